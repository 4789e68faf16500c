"""A bit is flipped, a file cut short or deleted: it is noticed, or what is read is what was written.

The files of a directory take turns. Each trial has a copy of it, and reads it as a user's commands do.
"""

import contextlib
import io
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.faults.common import (
    FINETUNE,
    PREPARE,
    PRETRAIN,
    RUN_STUDY,
    Figure,
    contents,
    made,
    spread,
)

WORDS = {"flip": "single-bit flips", "cut": "truncations", "delete": "deletions"}


def read_run(directory: Path) -> Any:
    """The model of a run, its tokenizer, and its results."""
    from jaxmlm.runs.results import read_results

    return _loaded(directory / "run"), read_results(directory / "run" / "results.jsonl")


def resume_run(directory: Path) -> Any:
    """What the command that was stopped in its last second ends with, from its newest checkpoint."""
    from jaxmlm.cli import main

    (directory / "run" / "DONE").unlink(missing_ok=True)
    os.chdir(directory)
    code = main([*PRETRAIN])
    if code:
        return code
    return {name: content for name, content in contents(directory / "run").items() if "log" not in name}


def read_store(directory: Path) -> Any:
    """The tokens, the documents and the tokenizer of a store."""
    from jaxmlm.data import Store
    from jaxmlm.data.manifest import SPLITS

    store = Store(directory / "store")
    parts = [(bytes(store.tokens(split)), bytes(store.documents(split))) for split in SPLITS]
    return parts, store.tokenizer.model, store.manifest["data"]


def read_tuned(directory: Path) -> Any:
    """The model of a fine-tuning, its results, and what it comes to beside itself."""
    from jaxmlm.runs.comparison import compare
    from jaxmlm.runs.results import read_results
    from jaxmlm.runs.workdir import read_metadata

    tuned = directory / "tuned"
    config = read_metadata(tuned / "finetune.json")["config"]
    found = compare(str(tuned), str(directory / "same"), draws=20)
    return _loaded(tuned / "model"), read_results(tuned / "results.jsonl"), config, found


def read_exported(directory: Path) -> Any:
    """The model in a directory of the transformers format, and its tokenizer."""
    return _loaded(directory / "exported")


def read_study(directory: Path) -> Any:
    """The numbers of a report."""
    from jaxmlm.studies.study import report

    return report(str(directory / "study"))


def _loaded(directory: Path) -> Any:
    import jax
    import numpy as np

    from jaxmlm.parallel import make_mesh
    from jaxmlm.runs.loading import load

    with jax.set_mesh(make_mesh()):
        found = load(directory)
    leaves = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(found.model)]
    return leaves, found.config, found.kind, found.labels, found.tokenizer.model


class Kind:
    """A directory, the commands that make it, and how it is read."""

    def __init__(self, name: str, read: Callable[[Path], Any], *commands: tuple[str, ...]):
        self.name = name
        self.read = read
        self.commands = commands


EXPORT = ("export", "run", "exported")
KINDS = (
    Kind("store", read_store, PREPARE),
    Kind("run", read_run, PREPARE, PRETRAIN),
    Kind("exported", read_exported, PREPARE, PRETRAIN, EXPORT),
    Kind("run", resume_run, PREPARE, PRETRAIN),
    Kind("tuned", read_tuned, PREPARE, PRETRAIN, FINETUNE),
    Kind("study", read_study, PREPARE, RUN_STUDY),
)
COUNTS = {"flip": (24, 240), "cut": (6, 48), "delete": (6, 48)}
"""Trials of the short form, which has three of the kinds, and of the long one; each kind has a sixth."""


def damages(work: Path, how: str, short: bool) -> Figure:
    """Damage every kind of directory."""
    figure = Figure(f"{WORDS[how]}: noticed in one line, or every array and number equal")
    kinds = KINDS[:3] if short else KINDS
    commands = dict.fromkeys(words for kind in kinds for words in kind.commands)
    given = Path(shutil.copytree(made(*commands), work / "given"))
    if not short:
        shutil.copytree(given / "tuned", given / "same")
    each = COUNTS[how][0 if short else 1] // len(KINDS)
    counted = work / "counted"
    counted.mkdir()

    def trial(number: int) -> str:
        kind = kinds[number]
        for count, verdict in enumerate(_verdicts(given, work / f"copy-{number}", kind, how, each)):
            (counted / f"{number}-{count}").write_text(verdict)
        return ""

    ended = Figure("kinds of directories")
    spread(ended, trial, len(kinds), work)
    figure.wrong += ended.wrong
    said = [path.read_text() for path in sorted(counted.iterdir())]
    for verdict in said:
        figure.add("" if verdict.startswith(("noticed", "harmless")) else verdict)
    seen = Counter(verdict.split()[0].rstrip(":") for verdict in said)
    figure.notes = ", ".join(f"{name} {count}" for name, count in sorted(seen.items()))
    return figure


def _verdicts(given: Path, directory: Path, kind: Kind, how: str, count: int) -> Iterator[str]:
    """What became of each damage, in words that begin with noticed, harmless, silent or traceback."""
    rng = random.Random(f"{kind.name}{kind.read.__name__}{how}")
    files = [path.relative_to(given) for path in sorted((given / kind.name).rglob("*")) if path.is_file()]
    if how != "delete":
        files = [path for path in files if (given / path).stat().st_size]
    rng.shuffle(files)
    shutil.copytree(given, directory)
    wanted = kind.read(directory)
    for number in range(count):
        path = files[number % len(files)]
        shutil.rmtree(directory)
        shutil.copytree(given, directory)
        where = _damage(directory / path, how, rng)
        yield f"{_verdict(kind, directory, wanted)} [{path} {where}]"


def _damage(path: Path, how: str, rng: random.Random) -> str:
    if how == "delete":
        path.unlink()
        return ""
    content = bytearray(path.read_bytes())
    if how == "cut":
        size = rng.randrange(len(content))
        path.write_bytes(content[:size])
        return f"cut to {size} of {len(content)} bytes"
    at, bit = rng.randrange(len(content)), rng.randrange(8)
    content[at] ^= 1 << bit
    path.write_bytes(content)
    return f"byte {at} bit {bit}"


def _verdict(kind: Kind, directory: Path, wanted: Any) -> str:
    from jaxmlm.errors import InputError

    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told), contextlib.redirect_stdout(told):
            found = kind.read(directory)
    except InputError as error:
        return f"noticed: {error}"
    except Exception as error:
        return f"traceback: {type(error).__name__}: {error}"
    os.chdir(directory.parent)
    if found == 2 or any(word in told.getvalue() for word in ("damaged", "not as it was")):
        return f"noticed: {told.getvalue().strip().splitlines()[-1][:200]}"
    return "harmless" if found == wanted else f"silent: {kind.read.__name__}"


FIGURES = {
    "flips": lambda work, short: damages(work, "flip", short),
    "truncations": lambda work, short: damages(work, "cut", short),
    "deletions": lambda work, short: damages(work, "delete", short),
}
