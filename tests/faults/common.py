"""Commands in processes of their own, and what they leave on disk.

A process is forked from this one, which has imported everything and touched no device: it starts in a tenth of a second
and is killed like any other.
"""

import atexit
import contextlib
import fcntl
import functools
import hashlib
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

TIMES = ("seconds", "tokens_per_second")
"""Fields that no two runs have in common."""
UNEQUAL = ("verified.json", "report.html", "README.md", "tensorboard")
"""Files that hold times, or the directory's own path."""
LIMIT = 300
"""Seconds after which a process counts as hanging."""
PIPE = 1 << 20
"""Bytes that a process may write to stdout or stderr."""

CONFIG = """
from jaxmlm.data import Data
from jaxmlm.models import EncoderConfig
from jaxmlm.runs import ZeroShot, Finetune
from jaxmlm.runs.run import Run
from jaxmlm.studies import Study, Vary
from jaxmlm.training import Loop

RUN = Run(
    "run",
    data=Data("sample:300", vocab=300, length=24, valid=0.1, store="store"),
    model=EncoderConfig(layers=1, width=16, heads=2, max_positions=32),
    loop=Loop(steps=12, batch=8, log_every=2, eval_every=4, save_every=4),
)

def config():
    return RUN
"""
STUDY = f"""{CONFIG}
from jaxmlm.fields import replace_path

def config():
    tune = Finetune("cola", "sample:", batch=8, length=24, epochs=0.1, limit=64, seeds=(0,))
    return Study("study", run=replace_path(RUN, "loop.steps", 4), vary=(Vary("masking.rate", (0.15, 0.4)),),
                 control=False, zero_shot=ZeroShot(pairs=1), finetune=(tune,))
"""
PRETRAIN = ("pretrain", "run.py")
PREPARE = ("prepare", "run.py")
FINETUNE = ("finetune", "run", "--task", "cola", "--data", "sample:", "--batch", "8", "--length", "24")
FINETUNE = (*FINETUNE, "--epochs", "0.1", "--limit", "64", "--seeds", "0", "1", "--workdir", "tuned")
RUN_STUDY = ("study", "study.py")


@dataclass
class Figure:
    """A row of the table.

    Attributes:
        what: the fault, and what was to become of it.
        right: how often that became of it.
        of: how often it was tried.
        wrong: what happened instead.
        notes: counts that say more, in words.

    """

    what: str
    right: int = 0
    of: int = 0
    wrong: list[str] = field(default_factory=list)
    notes: str = ""

    def add(self, why: str) -> None:
        """Count a trial; `why` says what went wrong, and is empty if nothing did."""
        self.of += 1
        self.right += not why
        if why:
            self.wrong.append(why)
            print(f"  WRONG {self.what}: {why}", flush=True)


class Ended(NamedTuple):
    """How a process ended: its exit code, that of a signal negative, and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def last(self) -> str:
        """The last line on stderr."""
        return (self.err.strip().splitlines() or [""])[-1][:300]


class Running:
    """A process that runs `body` in `directory`, for at most `limit` seconds."""

    def __init__(self, directory: Path, body: Callable[[], int], limit: int = LIMIT):
        self._told = []
        ends = []
        for _ in range(2):  # pipes: a limit on the size of files is none on them
            told, tell = os.pipe()
            fcntl.fcntl(told, fcntl.F_SETPIPE_SZ, PIPE)
            os.set_blocking(told, False)
            self._told.append(told)
            ends.append(tell)
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _run(directory, body, limit, ends)
        for tell in ends:
            os.close(tell)

    def kill(self) -> None:
        """End it at once."""
        os.kill(self.pid, signal.SIGKILL)

    def wait(self, after: float = 0.0) -> Ended:
        """Wait for its end, and for what a process that watched it says within so many seconds after that."""
        _, status = os.waitpid(self.pid, 0)
        time.sleep(after)
        return Ended(os.waitstatus_to_exitcode(status), *map(_read, self._told))


def _run(directory: Path, body: Callable[[], int], limit: int, ends: Sequence[int]) -> None:
    """What the forked process does."""
    code = 70
    try:
        os.chdir(directory)
        for number, tell in enumerate(ends, 1):
            os.dup2(tell, number)
        signal.alarm(limit)
        code = body()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _read(told: int) -> str:
    """What stands in a pipe; children of the process that wrote may hold its other end."""
    parts = []
    with contextlib.suppress(BlockingIOError):
        while part := os.read(told, PIPE):
            parts.append(part)
    os.close(told)
    return b"".join(parts).decode(errors="replace")


def start(
    directory: Path,
    words: Sequence[str],
    before: Callable[[], Any] | None = None,
    verified: str | None = None,
) -> Running:
    """Start a command of jaxmlm.

    Args:
        directory: where it runs.
        words: the command.
        before: is called in its process first: hooks, limits.
        verified: a directory of which all checksums are verified when the command has ended well; 99 if one is wrong.

    """

    def body() -> int:
        from jaxmlm.cli import main
        from jaxmlm.tools.integrity import damage

        if before is not None:
            before()
        code = main([*words])
        if code or verified is None:
            return code
        wrong = [why for _, why in damage(directory / verified) if why]
        print(*wrong, file=sys.stderr)
        return 99 if wrong else 0

    return Running(directory, body)


def command(
    directory: Path,
    words: Sequence[str],
    before: Callable[[], Any] | None = None,
    verified: str | None = None,
) -> Ended:
    """Run a command of jaxmlm to its end; arguments as in `start`."""
    return start(directory, words, before, verified).wait()


def well(directory: Path, words: Sequence[str]) -> None:
    """Run a command that must end well."""
    ended = command(directory, words)
    if ended.code:
        raise SystemExit(f"`jaxmlm {' '.join(words)}` ended with {ended.code}: {ended.err}")


@functools.cache
def made(*commands: tuple[str, ...], config: str = CONFIG) -> Path:
    """A directory with the configurations in which these commands have ended well; nobody may change it."""
    there = Path(tempfile.mkdtemp(prefix="faults-")) / "given"
    atexit.register(shutil.rmtree, there.parent, ignore_errors=True)
    if commands:
        shutil.copytree(made(*commands[:-1], config=config), there)
        well(there, commands[-1])
        return there
    there.mkdir()
    (there / "run.py").write_text(config)
    (there / "study.py").write_text(STUDY)
    return there


def spread(figure: Figure, trial: Callable[[int], str], count: int, work: Path) -> None:
    """Make `count` trials and add them to a figure, in as many processes at a time as the options say.

    Args:
        figure: what is counted.
        trial: gets the trial's number and says what went wrong; empty: nothing.
        count: number of trials.
        work: a directory for what they say.

    """
    jobs = min(int(os.environ.get("FAULTS_JOBS", "2")), count)

    def some(job: int) -> int:
        for number in range(job, count, jobs):
            why = trial(number)
            (work / f"trial-{number}").write_text(why)
        return 0

    running = [Running(work, partial(some, job), limit=0) for job in range(jobs)]
    for number, one in enumerate(running):
        ended = one.wait()
        if ended.code:
            figure.wrong.append(f"job {number} ended with {ended.code}: {ended.err}")
    for number in range(count):
        said = work / f"trial-{number}"
        figure.add(said.read_text() if said.is_file() else "the trial did not end")


def contents(directory: Path) -> dict[str, Any]:
    """What must be the same in two directories: of each file its bits, of a log and of results all but the times.

    A record names the checkpoint that it began with by its path, which counts from where the directory is.

    Of the checkpoints the newest counts, by its checksums; `damaged` says whether the arrays have them.
    """
    found: dict[str, Any] = {}
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        name = path.relative_to(directory).as_posix()
        if "checkpoints/" in f"/{name}" or path.name in UNEQUAL or path.name.endswith(".lock"):
            continue
        found[name] = _content(path, f"{directory.parent.resolve()}/")
    for saved in sorted(directory.rglob("checkpoints")):
        steps = [step for step in saved.iterdir() if step.name.isdigit()]
        newest = max(steps, key=lambda step: int(step.name))
        sums = json.loads((newest / "checksums" / "metadata").read_text())
        sums.pop("sha256")
        sums["notes"].pop("seconds", None)
        found[newest.relative_to(directory).as_posix()] = sums
    return found


def _content(path: Path, above: str) -> Any:
    if path.suffix == ".jsonl":
        return [_timeless(json.loads(line)) for line in path.read_text().splitlines()]
    if path.name in ("run.json", "study.json", "finetune.json", "report.json"):
        return _timeless(json.loads(path.read_text().replace(above, "")))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _timeless(line: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in line.items() if key not in (*TIMES, "checksum")}


def difference(one: dict[str, Any], other: dict[str, Any]) -> str:
    """The first name under which two contents differ; empty: none."""
    names = [name for name in sorted(one.keys() | other.keys()) if one.get(name) != other.get(name)]
    return f"{names[0]} is not the same" if names else ""


def limited(size: int) -> Callable[[], None]:
    """A disk that is full after so many bytes of a file."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return limit
