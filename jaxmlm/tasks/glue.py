"""GLUE: what the tasks are (a table), and their official files: a directory, zips, or TensorFlow Datasets."""

import hashlib
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from jaxmlm.errors import InputError
from jaxmlm.tasks.file_formats import read_tabs
from jaxmlm.tasks.table import Examples, Sets, Table, read


@dataclass(frozen=True)
class Glue:
    """One task: its table, its files, and what its archive is."""

    directory: str
    table: Table
    rows: tuple[int, int]
    """How many there are, officially: train, dev."""
    archive: tuple[str, str] = ("", "")
    """The name of the official zip file and its SHA-256 (from tensorflow_datasets' url_checksums/glue.txt)."""
    train: str = "train.tsv"
    dev: str = "dev.tsv"
    more: tuple[tuple[str, str], ...] = ()
    """Further sets with labels, evaluated where they exist: name and file."""
    tests: tuple[tuple[str, str], ...] = ()
    """What the test server takes: name of the prediction file and the file that it answers."""
    broken: bool = False
    """Some copies of its files hold rows broken over lines: the readers of `transformers` and `datasets` skip those."""


def _task(directory: str, table: Table, rows: tuple[int, int], archive: str = "", sha256: str = "", **more) -> Glue:
    return Glue(directory, table, rows, (archive, sha256), **{"tests": ((directory, "test.tsv"),), **more})


def _table(name: str, texts: str, label: str, labels: str = "0 1", **more) -> Table:
    return Table(name, tuple(texts.split(", ")), label, tuple(labels.split()), **more)


_PAIR = "sentence1, sentence2"
_NLI = "entailment neutral contradiction"
_F1 = {"metrics": ("f1", "accuracy"), "averaged": True}
_AX = "../diagnostic/diagnostic.tsv"
TASKS: Mapping[str, Glue] = {
    "cola": _task("CoLA", _table("CoLA", "sentence", "label", metrics=("matthews", "accuracy"),
                                 header=("source", "label", "star", "sentence")), (8551, 1043), "CoLA.zip",
                  "f212fcd832b8f7b435fb991f101abf89f96b933ab400603bf198960dfc32cbff"),
    "sst2": _task("SST-2", _table("SST-2", "sentence", "label"), (67_349, 872), "SST-2.zip",
                  "d67e16fb55739c1b32cdce9877596db1c127dc322d93c082281f64057c16deaa"),
    "mrpc": _task("MRPC", _table("MRPC", "#1 String, #2 String", "Quality", **_F1), (3668, 408)),
    "stsb": _task("STS-B", _table("STS-B", _PAIR, "score", "", metrics=("spearman", "pearson"), averaged=True,
                                  decimals=3),
                  (5749, 1500), "STS-B.zip", "e60a6393de5a8b5b9bac5020a1554b54e3691f9d600b775bd131e613ac179c85"),
    "qqp": _task("QQP", _table("QQP", "question1, question2", "is_duplicate", **_F1), (363_846, 40_430), "QQP.zip",
                 "40e7c862c04eb26ee04b67fd900e76c45c6ba8e6d8fab4f8f1f8072a1a3fbae0", broken=True),
    "mnli": _task("MNLI", _table("MNLI", _PAIR, "gold_label", _NLI), (392_702, 9815), "MNLI.zip",
                  "e7c1d896d26ed6caf700110645df426cc2d8ebf02a5ab743d5a5c68ac1c83633", dev="dev_matched.tsv",
                  more=(("mm", "dev_mismatched.tsv"), ("ax", "../diagnostic/diagnostic-full.tsv")),
                  tests=(("MNLI-m", "test_matched.tsv"), ("MNLI-mm", "test_mismatched.tsv"), ("AX", _AX))),
    "qnli": _task("QNLI", _table("QNLI", "question, sentence", "label", "entailment not_entailment"),
                  (104_743, 5463), "QNLIv2.zip", "e634e78627a29adaecd4f955359b22bf5e70f2cbd93b493f2d624138a0c0e5f5"),
    "rte": _task("RTE", _table("RTE", _PAIR, "label", "entailment not_entailment"), (2490, 277), "RTE.zip",
                 "6bf86de103ecd335f3441bd43574d23fef87ecc695977a63b82d5efb206556ee"),
    "wnli": _task("WNLI", _table("WNLI", _PAIR, "label"), (635, 71), "WNLI.zip",
                  "ae0e8e4d16f4d46d4a0a566ec7ecceccfd3fbfaa4a7a4b4e02848c0f2561ac46"),
}  # fmt: skip

DIAGNOSTIC = Table("AX", ("Premise", "Hypothesis"), "Label", tuple(_NLI.split()), metrics=("matthews",))
"""The diagnostic set with its labels, on which MNLI's model is evaluated; without them it is a test file."""

MSR = {
    "msr_paraphrase_train.txt": "60a9b09084528f0673eedee2b69cb941920f0b8cd0eeccefc464a98768457f89",
    "msr_paraphrase_test.txt": "a04e271090879aaba6423d65b94950c089298587d9c084bf9cd7439bd785f784",
    "dev_ids.tsv": "971d7767d81b997fd9060ade0ec23c4fc31cbb226a55d1bd4a1bac474eb81dc7",
}
"""MRPC as its makers give it: train and dev in one file, and which pairs are dev; SHA-256 as above."""


def sets(task: Glue, directory: str | Path, train: str | None = None, dev: str | None = None) -> Sets:
    """The train and dev rows in `directory`, which holds the task's own directory or zip, or is it.

    `train` and `dev` name other files there, parts of the official ones. The notes say what is not whole.
    """
    given = {"train": train or task.train, "dev": dev or task.dev}
    found = {name: rows(task, directory, file) for name, file in given.items()}
    notes = []
    for (name, part), official in zip(found.items(), task.rows, strict=True):
        if len(part) != official:
            whole = "partial" if given[name] != getattr(task, name) else "not the official file"
            notes.append(f"{name}: {len(part):,} rows of {given[name]}, officially {official:,}: {whole}")
        if part.left_out:
            notes.append(f"{name}: left out of {given[name]} for too few fields (broken over lines): {part.left_out:,}")
    evaluated = {"dev": found["dev"]}
    for name, file in task.more:
        if _there(task, directory, file):
            evaluated[name] = rows(task, directory, file, DIAGNOSTIC if name == "ax" else None)
        elif name == "mm":
            notes.append(f"no {file}: the mismatched dev set is not evaluated")
    return Sets(found["train"], evaluated, tuple(notes))


def tests(task: Glue, directory: str | Path) -> dict[str, Examples]:
    """The rows of the test files that are there, by the name of the prediction file."""
    plain = replace(task.table, header=())  # the test files have a header all
    there = {name: file for name, file in task.tests if _there(task, directory, file)}
    if not there:
        raise InputError(
            f"{directory}: no {' or '.join(file for _, file in task.tests)} of {task.directory} to predict"
        )
    return {name: rows(task, directory, file, plain, labelled=False) for name, file in there.items()}


def rows(task: Glue, directory: str | Path, file: str, table: Table | None = None, labelled: bool = True) -> Examples:
    """The rows of one file of a task, from the directory or from the zip."""
    table = table or task.table
    inside = _inside(task, directory)
    broken = task.broken and labelled  # a test file is answered whole
    path = _path(task, directory, file)
    if path.is_file():
        with path.open("rb") as lines:
            return read(table, read_tabs(lines, path), path, labelled, broken)
    if (archive := _archive(task, directory)) is not None:
        with zipfile.ZipFile(archive) as packed:
            member = f"{task.directory}/{file}"
            if member in packed.namelist():
                where = f"{archive}/{member}"
                with packed.open(member) as lines:
                    return read(table, read_tabs(lines, where), where, labelled, broken)
    if task.directory == "MRPC" and (inside / "msr_paraphrase_train.txt").is_file() and file in (task.train, task.dev):
        return _msr(table, inside, file == task.dev)
    there = ", ".join(sorted(p.name for p in inside.glob("*.tsv"))) or "none"
    other = {task.train: "; --train FILE takes another one", task.dev: "; --dev FILE takes another one"}.get(file, "")
    raise InputError(
        f"{path} is missing: {task.directory} needs {task.train} and {task.dev}; .tsv files there: {there}{other}"
    )


def _inside(task: Glue, directory: str | Path) -> Path:
    directory = Path(directory)
    return directory / task.directory if (directory / task.directory).is_dir() else directory


def _path(task: Glue, directory: str | Path, file: str) -> Path:
    """Where a file of a task is; "../" leads to its neighbours, also from within a zip."""
    inside = _inside(task, directory)
    packed = file.startswith("../") and _archive(task, inside) is not None
    return inside / (file.removeprefix("../") if packed else file)


def _there(task: Glue, directory: str | Path, file: str) -> bool:
    if _path(task, directory, file).is_file():
        return True
    archive = _archive(task, directory)
    if archive is None:
        return False
    with zipfile.ZipFile(archive) as packed:
        return f"{task.directory}/{file}" in packed.namelist()


def _archive(task: Glue, directory: str | Path) -> Path | None:
    """The task's zip in the directory, if there is one; InputError if it is not the official one."""
    name, sha256 = task.archive
    path = Path(directory) / name
    if not name or not path.is_file():
        return None
    _checked(path, sha256, path.stat().st_mtime_ns)
    return path


@cache
def _checked(path: Path, sha256: str, _: int) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise InputError(f"{path} is not the official file: its SHA-256 is {found}, expected {sha256}: get it again")


def _msr(table: Table, inside: Path, dev: bool) -> Examples:
    """MRPC's train or dev rows as the official script cuts them: the pairs of dev_ids.tsv are dev."""
    for name in ("msr_paraphrase_train.txt", "dev_ids.tsv"):
        path = inside / name
        if not path.is_file():
            raise InputError(f"{path} is missing: MRPC is {' and '.join(list(MSR)[::2])}, or train.tsv and dev.tsv")
        _checked(path, MSR[name], path.stat().st_mtime_ns)
    ids = {tuple(pair) for pair in _tabs(inside / "dev_ids.tsv")}
    header, *lines = _tabs(inside / "msr_paraphrase_train.txt")
    kept = [line for line in lines if (tuple(line[1:3]) in ids) == dev]
    return read(table, enumerate([header, *kept], 1), inside / "msr_paraphrase_train.txt")


def _tabs(path: Path) -> Iterator[list[str]]:
    with path.open("rb") as lines:
        yield from (fields for _, fields in read_tabs(lines, path))
