"""Wrong inputs to every verb: exit 2, one line, and nothing on disk has changed."""

import contextlib
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.faults.common import FINETUNE, PREPARE, PRETRAIN, STUDY, Figure, made, spread, well

CONFIG_VERBS = ("pretrain", "prepare", "audit", "show", "bench", "plan")
TARGET_VERBS = ("finetune", "evaluate", "compare", "export", "import", "report", "fill", "study", *CONFIG_VERBS)
NUMBERS = (
    *(f"loop.{name}" for name in ("steps", "batch", "seed", "log-every", "save-every", "eval-every", "accumulate")),
    *(f"optim.{name}" for name in ("learning-rate", "weight-decay", "clip", "epsilon")),
    *(f"model.{name}" for name in ("layers", "width", "heads", "max-positions", "dropout", "epsilon", "init")),
    *(f"data.{name}" for name in ("vocab", "length", "valid")),
    *(f"masking.{name}" for name in ("rate", "predict")),
    *(f"mesh.{name}" for name in ("data", "fsdp", "tensor")),
)
VALUES = ("x", "nan", "-3", "1e400")
OF_FINETUNE = ("learning-rate", "batch", "epochs", "length", "limit", "seeds")
TARGETS = ("nowhere", "empty", "empty.txt", "noise.bin", "loop", "n" * 300, "run.py/below", "run/log.jsonl", "bad.json")
FILES = {
    "empty.txt": b"",
    "noise.bin": bytes(range(256)) * 40,
    "bad.json": b"[" * 50_000,
    "raises.py": b"raise BaseException('no')\n",
    "leaves.py": b"import sys\nsys.exit(0)\n",
    "no_config.py": b"x = 1\n",
    "wrong.py": b"def config():\n    return 7\n",
    "torn.py": b"def config(:\n",
}


def cases() -> Iterator[tuple[str, ...]]:
    """Commands, each of which has something wrong."""
    for verb in TARGET_VERBS:
        yield (verb,)
        yield (verb, "run.py", "--nonsense", "1")
        for target in TARGETS:
            rest = {"finetune": ("--task", "cola", "--data", "sample:"), "compare": ("tuned",), "export": ("new",)}
            rest |= {"fill": ("a [MASK]",), "evaluate": ("--pairs", "1")}
            yield (verb, target, *rest.get(verb, ()))
    for verb in (*CONFIG_VERBS, "study"):
        for name in [name for name in FILES if name.endswith(".py")]:
            yield (verb, name)
    for verb in ("pretrain", "prepare", "audit", "show"):
        for number in NUMBERS:
            for value in VALUES:
                yield (verb, "run.py", f"--{number}", value)
    for name in OF_FINETUNE:
        for value in VALUES:
            yield ("finetune", "run", "--task", "cola", "--data", "sample:", f"--{name}", value)
    yield from (
        ("pretrain", "run.py", "--workdir", ""),
        ("pretrain", "run.py", "--workdir", "store"),
        ("pretrain", "run.py", "--workdir", "run.py"),
        ("pretrain", "run.py", "--workdir", "run.py/below"),
        ("pretrain", "run.py", "--workdir", "run", "--model.width", "32"),
        ("pretrain", "run.py", "--data.text", "nowhere/*.txt", "--data.store", "new-store"),
        ("pretrain", "run.py", "--data.text", "noise.bin", "--data.store", "new-store"),
        ("pretrain", "run.py", "--data.vocab", "400"),
        ("pretrain", "run.py", "--init", "nowhere", "--workdir", "new"),
        ("pretrain", "run.py", "--init", "empty", "--workdir", "new"),
        ("pretrain", "run.py", "--coordinator", "localhost:99999999", "--processes", "2", "--process", "0"),
        ("pretrain", "run.py", "--coordinator", "localhost:1", "--processes", "2", "--process", "2"),
        ("pretrain", "run.py", "--wait", "nan"),
        ("pretrain", "run.py", "--require", "gpu", "--workdir", "new"),
        ("finetune", "run", "--task", "nonsense", "--data", "sample:"),
        ("finetune", "run", "--task", "cola", "--data", "nowhere"),
        ("finetune", "run", "--task", "cola", "--data", "empty"),
        ("finetune", "run", "--task", "squad", "--data", "empty"),
        ("finetune", "run", "--task", "cola", "--data", "sample:", "--recipe", "nonsense"),
        ("evaluate", "run", "--blimp", "nowhere"),
        ("evaluate", "run", "--text", "nowhere.txt"),
        ("evaluate", "run", "--treebank", "empty"),
        ("export", "run", "run"),
        ("export", "run", "run.py"),
        ("import", "run"),
        ("compare", "run", "tuned"),
        ("report", "run"),
        ("prepare", "--inspect", "run"),
        ("prepare", "--inspect", "nowhere"),
        ("prepare", "run.py", "--shard", "2/2"),
        ("prepare", "run.py", "--shard", "x"),
        ("audit", "--collator", "nowhere.py:thing"),
        ("audit", "run.py", "--rows", "0"),
        ("show", "run.py", "--rates", "5"),
        ("plan", "run.py", "--topology", "v99:1"),
        ("doctor", "--wait", "-1"),
        ("nonsense",),
        ("study", "study.py", "--cells", "2/2"),
        ("study", "study.py", "--seeds", "-1"),
        ("study", "run.py"),
    )


def inputs(work: Path, short: bool) -> Figure:
    """Run every wrong command in a directory that has a store, a run and a fine-tuning."""
    figure = Figure("bad inputs over every verb: exit 2 in one line, nothing changed on disk")
    given = Path(shutil.copytree(made(PREPARE, PRETRAIN), work / "given"))
    if not short:
        well(given, FINETUNE)
    (given / "empty").mkdir()
    (given / "loop").symlink_to("loop")
    (given / "study.py").write_text(STUDY)
    for name, content in FILES.items():
        (given / name).write_bytes(content)
    chosen = list(cases())[:: 8 if short else 1]
    share = -(-len(chosen) // 8)

    def some(job: int) -> str:
        there = work / f"there-{job}"
        shutil.copytree(given, there, symlinks=True)
        os.chdir(there)
        before = _tree(there)
        said = []
        for words in chosen[job * share : (job + 1) * share]:
            why = _refused(words)
            if not why and _tree(there) != before:
                why = "something on disk has changed"
            if why:
                os.chdir(work)
                shutil.rmtree(there)
                shutil.copytree(given, there, symlinks=True)
                os.chdir(there)
                before = _tree(there)
            said.append(why and f"{' '.join(word[:60] for word in words)}: {why}")
        (work / f"said-{job}").write_text(json.dumps(said))
        return ""

    jobs = Figure("jobs")
    spread(jobs, some, 8, work)
    figure.wrong += jobs.wrong
    for job in range(8):
        told = work / f"said-{job}"
        for why in json.loads(told.read_text()) if told.is_file() else ["a job did not end"]:
            figure.add(why)
    return figure


def _refused(words: tuple[str, ...]) -> str:
    """What is wrong with how a command is refused; empty: nothing."""
    from jaxmlm.cli import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([*words])
    lines = err.getvalue().strip().splitlines()
    if code != 2:
        return f"exit {code}: {(lines or [''])[-1][:200]}"
    if len(lines) != 1 or not lines[0].startswith("jaxmlm: "):
        return f"{len(lines)} lines: {' / '.join(lines)[:300]}"
    return ""


def _tree(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in directory.rglob("*")
        if "__pycache__" not in path.parts
    }


FIGURES = {"bad-inputs": inputs}
