"""The README and the pages of docs/ say what is so: their Python runs, their commands parse, their files exist."""

import re
import shlex
from dataclasses import MISSING
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest

import jaxmlm
from jaxmlm import Data, EncoderConfig, Loop, Masking, Run, SpanUnits, cli, pretrain
from jaxmlm.runs.results import read_results

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
CURRENT = [page for page in PAGES if page.parent.name != "results"]  # results name files as they were at their commit
FENCE = re.compile(r"(?ms)^(?:<!-- not run: (?P<why>[^\n]+) -->\n+)?```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^```")
INDENTED = re.compile(r"(?m)^ {4}(jaxmlm (?:.*\\\n)*.*)")
OPTION = re.compile(r"--(?:run\.)?((?:data|masking|model|optim|loop|mesh)\.[a-z_0-9.-]*[a-z_0-9])")
INLINE = re.compile(r"(?<!`)`(jaxmlm \w+\s[\w.][^`]+)`(?!`)")
RUN_ELSEWHERE = "docs/extending.md"  # tests/test_extending.py runs its files and commands
SHELL = ("bash", "sh", "console", "")
RUNS = (*(f"runs/{name}" for name in ("quickstart_run", "base", "mine", "other")), "CHECKPOINT")
RUNS = (*RUNS, "runs/quickstart/cells/rate=0.4,seed=0")
"""Runs that the pages speak of, which a reader has by then."""
PLACEHOLDERS = {
    "NAME": "rte",
    "CONFIG": "configs/quickstart_run.py",
    "my_config.py": "configs/quickstart_run.py",
}
PLACEHOLDER_STUDY = "configs/quickstart.py"
REPOSITORY_FILE = re.compile(
    r"(?<![\w./-])(?:configs|benchmarks|tests|tpu_scripts|jaxmlm|docs)/[\w./-]+\.(?:py|sh|ipynb|md)"
)


class Block(NamedTuple):
    """A fenced block of a page; `why` says why it is not run."""

    page: str
    line: int
    language: str
    text: str
    why: str | None


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(
            page.relative_to(ROOT).as_posix(), text.count("\n", 0, found.start()) + 1, found["language"], found["text"],
            found["why"],
        )
        for found in FENCE.finditer(text)
    ]  # fmt: skip


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
STUDY = next(block.text for block in BLOCKS if block.page == "docs/studies.md" and block.language == "python")
PYTHON_BLOCKS = [block for block in BLOCKS if block.language == "python"]
NAMED_FILES = {name[1]: block.text for block in PYTHON_BLOCKS if (name := re.match(r"# (\w+\.py)", block.text))}
"""Files that a page shows, by the name in their first line."""
PYTHON: dict[str, list[Block]] = {}
for block in BLOCKS:
    if block.language == "python" and block.page != RUN_ELSEWHERE:
        PYTHON.setdefault(block.page, []).append(block)


def commands_in(text: str) -> list[str]:
    """The commands of jaxmlm in a shell block: each on its line, or on several that end in a backslash."""
    lines = text.replace("\\\n", " ").splitlines()
    found = [re.sub(r"^\s*(?:\$ |!)?(?:[A-Z_]+=\S+ )*", "", line) for line in lines]
    return [line for line in found if line.startswith("jaxmlm ")]


COMMANDS = [
    (f"{block.page}:{block.line}", command)
    for block in BLOCKS
    if block.language in SHELL and block.page != RUN_ELSEWHERE
    for command in commands_in(block.text)
] + [
    (page.relative_to(ROOT).as_posix(), " ".join(command.replace("\\\n", " ").split()))
    for page in PAGES
    for command in (*INLINE.findall(page.read_text()), *INDENTED.findall(page.read_text()))
]


@pytest.fixture(scope="module")
def reader(tmp_path_factory) -> Path:
    """The directory of a reader who has done what the pages say: it has configs, texts, and small runs."""
    here = tmp_path_factory.mktemp("reader")
    for name in ("configs", "benchmarks"):
        (here / name).symlink_to(ROOT / name)
    model = EncoderConfig(layers=1, width=16, heads=2, positions="rope", dropout=0.0, attention_dropout=0.0)
    pretrain(
        Run(str(here / "run"), data=Data("sample:200", vocab=400, length=64, valid=0.1), model=model, loop=Loop(0, 8))
    )
    for name in RUNS:
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).symlink_to(here / "run")
    for part in ("a", "b"):
        (here / "stores").mkdir(exist_ok=True)
        (here / "stores" / part).symlink_to(here / "run" / "store")
    (here / "counts").mkdir()
    (here / "my_study.py").write_text(STUDY)
    for name, text in NAMED_FILES.items():
        (here / name).write_text(text)
    (here / "my.txt").write_text("the old baker lives by the river.\n\na fox ran home.\n")
    return here


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=pytest.mark.slow("trains")) if page == "docs/training.md" else page for page in PYTHON],
)
def test_the_python_of_a_page_runs(page, reader, monkeypatch, no_mesh):
    """Its blocks in their order, as somebody pastes them into one session."""
    monkeypatch.chdir(reader)
    names = {"__name__": "__main__", "jaxmlm": jaxmlm}
    for block in PYTHON[page]:
        if block.why is None:
            exec(compile(block.text, f"{block.page}:{block.line}", "exec"), names)


@pytest.fixture
def only_parsed(monkeypatch) -> list[str]:
    """Let each verb read its arguments and do nothing; the list has the names of the functions that were called."""
    called: list[str] = []

    def stand_in(name: str):
        return lambda *arguments, **named: called.append(name) or {}

    for name in (
        "runs.comparison.compare", "runs.conversion.check_import", "runs.conversion.export",
        "runs.evaluation.evaluate", "runs.pretraining.pretrain", "runs.suite.finetune_all", "studies.study.report",
        "studies.study.run_study", "tools.audit.audit", "tools.bench.bench", "tools.collators.audit_named",
        "tools.doctor.doctor", "tools.inspect.inspect", "tools.plan.plan", "tools.prepare.prepare", "tools.show.show",
    ):  # fmt: skip
        monkeypatch.setattr(f"jaxmlm.{name}", stand_in(name))
    monkeypatch.setattr("jaxmlm.parallel.hosts.start", lambda hosts: None)
    filler = SimpleNamespace(fill_mask=lambda text: called.append("fill") or [])
    monkeypatch.setattr("jaxmlm.api.load", lambda path: filler)
    monkeypatch.setattr(cli, "say", lambda result, as_json: None)
    return called


@pytest.mark.parametrize(("where", "command"), COMMANDS, ids=[f"{where} {command}" for where, command in COMMANDS])
def test_a_command_parses(where, command, reader, only_parsed, monkeypatch, capfd):
    monkeypatch.chdir(reader)
    words = [PLACEHOLDERS.get(word, word) for word in arguments_of(command)]
    if words[0] == "study":
        words = [PLACEHOLDER_STUDY if word == PLACEHOLDERS["CONFIG"] else word for word in words]
    assert cli.main(words) == 0, f"{command}: {capfd.readouterr().err}"
    assert only_parsed or "--help" in words or words == ["--version"]


def arguments_of(command: str) -> list[str]:
    """What a shell gives to `jaxmlm`: up to a comment, a pipe or the next command."""
    words = shlex.split(command, comments=True)[1:]
    ends = [words.index(word) for word in ("|", "&&", ";", "&", ">") if word in words]
    return words[: min(ends, default=len(words))]


@pytest.mark.parametrize("command", ["jaxmlm pretrain configs/quickstart_run.py --loop.stepz 4", "jaxmlm trian CONFIG"])
def test_a_command_that_is_not_one_is_found(command, reader, only_parsed, monkeypatch, capfd):
    monkeypatch.chdir(reader)
    assert cli.main(arguments_of(command)) == 2 and not only_parsed


@pytest.mark.parametrize("page", CURRENT, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_files_that_a_page_names_exist(page):
    named = set(REPOSITORY_FILE.findall(page.read_text()))
    assert sorted(name for name in named if not (ROOT / name).is_file()) == []


@pytest.mark.parametrize("page", CURRENT, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_options_that_a_page_names_exist(page):
    """Also in tables and in the text; those of a page's own classes are run elsewhere."""
    named = set(OPTION.findall(page.read_text())) if page.name != Path(RUN_ELSEWHERE).name else set()
    assert sorted(name for name in named if not is_option_of_a_run(name)) == []


def is_option_of_a_run(name: str) -> bool:
    """Whether a path leads to a field of a run with its usual parts, or with one of the other units."""
    path = name.replace("-", "_").replace(".no_", ".").split(".")  # --loop.no-fallback sets loop.fallback
    for run in (Run(), Run(masking=Masking(units=SpanUnits()))):
        part = run
        for field in path:
            part = getattr(part, field, MISSING)
        if part is not MISSING:
            return True
    return False


def test_an_option_that_is_not_one_is_found():
    assert is_option_of_a_run("optim.optimizer.weight-decay") and not is_option_of_a_run("loop.stepz")


def test_what_is_not_run_has_a_reason():
    assert [block for block in BLOCKS if block.why is not None and len(block.why.split()) < 3] == []


def test_the_reference_has_every_public_name():
    page = (ROOT / "docs" / "api.md").read_text()
    shown = set(re.findall(r"(?m)^::: jaxmlm\.(\w+)$", page)) - {"masking"}
    assert shown == set(jaxmlm.__all__) - {"__version__"}


@pytest.mark.parametrize("path", sorted((ROOT / "docs").rglob("*.jsonl")), ids=lambda path: path.stem)
def test_committed_results_are_read_as_they_stand(path):
    rows = read_results(path)
    assert rows and {"cell", "seed", "values"} <= set.intersection(*map(set, rows))


def test_blocks_and_commands_are_found(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(
        "```bash\n$ jaxmlm study a.py \\\n  --dry-run | head  # lists\n```\n\n"
        "<!-- not run: takes a day -->\n```python\nx\n```\n"
    )
    shell, python = blocks_of(page)
    (command,) = commands_in(shell.text)
    assert arguments_of(command) == ["study", "a.py", "--dry-run"]
    assert (python.language, python.text, python.why, python.line) == ("python", "x\n", "takes a day", 6)
