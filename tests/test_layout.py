"""The shape of the code: imports go down only, files stay small, public names explain themselves."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = "jaxmlm"
STORIES = (
    (
        "checks",
        "directories",
        "errors",
        "fields",
        "hub",
        "json_files",
        "locks",
        "malloc",
        "multihost_signals",
        "os_errors",
        "preemption",
        "rng",
        "signals",
        "textfiles",
        "user_code",
        "wording",
    ),
    ("parallel", "masking", "synthetic"),
    ("logs", "plotting"),
    ("data",),
    ("models", "training"),
    ("tasks",),
    ("runs",),
    ("studies", "tools"),
    ("config", "api", "forward", "usage", "answers", "cli", "__init__"),
    ("__main__",),
)
"""The rooms (and files) of the package from the ground up, in the order of the data. Imports go down only."""
FLOORS = {room: floor for floor, rooms in enumerate(STORIES) for room in rooms}
INDEPENDENT = (FLOORS["masking"], FLOORS["models"])  # the rooms of these floors do not import each other ...
TYPES = {"Model", "Batch", "Mean", "Eval", "Task", "Step", "Metrics"}  # ... except for these names of training
HOMES = {
    "flax": ("models/",),
    "orbax": ("training/checkpoint.py",),
    "tensorflow_datasets": ("data/from_tfds.py", "tasks/"),
    "matplotlib": (
        "plotting.py",
        "studies/figures.py",
        "studies/heat_maps.py",
        "studies/training_figures.py",
        "studies/drawing.py",
    ),
    "pyarrow": ("data/columnar.py", "data/phrases/"),
}
LINES = 400
MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:home|root|Users|work|workspace|mnt|tmp)/\w+")

MODULES = sorted((ROOT / PACKAGE).rglob("*.py"))
SOURCES = [*MODULES, *(file for room in ("configs", "tests") for file in sorted((ROOT / room).rglob("*.py")))]


def name_of(module: Path) -> str:
    return module.relative_to(ROOT / PACKAGE).as_posix()


def room_of(name: str) -> str:
    return name.split("/")[0].removesuffix(".py")


def imports(source: str, name: str) -> list[tuple[str, str]]:
    """Every import in a module of the package, as (dotted module, imported name or "")."""
    found = []
    here = [PACKAGE, *name.split("/")[:-1]]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(here[: len(here) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (above, node.module) if part)
            found += [(module, alias.name) for alias in node.names]
    return found


def layout_faults(source: str, name: str) -> list[str]:
    """What in a module of the package goes against the floors or the homes of the libraries."""
    faults = []
    room = room_of(name)
    for module, imported in imports(source, name):
        parts = module.split(".")
        home = HOMES.get(parts[0])
        if home and not name.startswith(home):
            faults.append(f"{name} imports {parts[0]}, whose home is {' and '.join(home)}")
        if parts[0] != PACKAGE:
            continue
        other = parts[1] if len(parts) > 1 else imported if imported in FLOORS else "errors"
        if other == room:
            continue
        if FLOORS[other] > FLOORS[room]:
            faults.append(f"{name} imports {module} {imported}: up from floor {FLOORS[room]} to {FLOORS[other]}")
        if FLOORS[other] == FLOORS[room] in INDEPENDENT and imported not in TYPES:
            faults.append(f"{name} imports {module} {imported}: these rooms do not import each other")
    return faults


def undocumented(source: str) -> list[str]:
    """The public functions and classes of a module that have no docstring."""
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    public = [node for node in ast.parse(source).body if isinstance(node, kinds) and node.name[0] != "_"]
    return [node.name for node in public if not ast.get_docstring(node)]


def too_long(source: str) -> bool:
    return len(source.splitlines()) > LINES


def keys_made(source: str) -> list[int]:
    """The lines that make a PRNG key by JAX's default implementation."""
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return [call.lineno for call in calls if ast.unparse(call.func).endswith(("random.key", "PRNGKey"))]


def project_texts() -> list[Path]:
    directories = (".ci", "benchmarks", "configs", "docs", "jaxmlm", "tests", "tpu_scripts")
    kinds = {"", ".py", ".md", ".toml", ".txt", ".yaml", ".yml", ".sh", ".json", ".jsonl", ".html", ".svg"}
    files = [file for directory in directories for file in (ROOT / directory).rglob("*") if file.is_file()]
    top = [file for file in ROOT.iterdir() if file.is_file()]
    return [file for file in (*files, *top) if file.suffix in kinds and "__pycache__" not in file.parts]


def test_imports_go_down_only():
    assert [fault for module in MODULES for fault in layout_faults(module.read_text(), name_of(module))] == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("masking/selection.py", "from jaxmlm.data.store import Store"),
        ("masking/selection.py", "from ..data import store"),
        ("masking/units.py", "import pyarrow"),
        ("data/store.py", "def f():\n    import jaxmlm.models.encoder"),
        ("models/heads.py", "from jaxmlm.training.step import train_step"),
        ("training/loop.py", "from jaxmlm import tasks"),
        ("tasks/mlm.py", "from jaxmlm.studies.study import Study"),
        ("errors.py", "from jaxmlm import fields, cli"),
        ("training/loop.py", "from flax import nnx"),
        ("training/loop.py", "import orbax.checkpoint as ocp"),
        ("studies/report.py", "import matplotlib.pyplot as plt"),
        ("data/store.py", "import tensorflow_datasets as tfds"),
    ],
)
def test_a_wrong_import_is_found(name, source):
    assert layout_faults(source, name)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("training/task.py", "from jaxmlm.models import Model"),
        ("data/store.py", "from jaxmlm.errors import InputError\nfrom .sources import documents"),
        ("studies/study.py", "from jaxmlm.tools.prepare import prepare\nimport jaxmlm.fields"),
        ("cli.py", "from jaxmlm import __version__\nfrom jaxmlm.config import load"),
        ("tasks/glue.py", "import tensorflow_datasets"),
    ],
)
def test_a_right_import_passes(name, source):
    assert layout_faults(source, name) == []


def test_source_files_stay_small():
    long = [file.relative_to(ROOT).as_posix() for file in SOURCES if too_long(file.read_text())]
    assert long == [], f"over {LINES} lines: split them by what they do"


def test_every_room_is_a_package():
    rooms = {module.parent for module in MODULES}
    assert [room.name for room in rooms if not (room / "__init__.py").is_file()] == []


def test_a_long_file_is_found():
    assert too_long("x = 1\n" * (LINES + 1)) and not too_long("x = 1\n" * LINES)


def test_public_names_have_a_docstring():
    found = {name_of(module): undocumented(module.read_text()) for module in MODULES}
    assert {name: bare for name, bare in found.items() if bare} == {}


def test_a_missing_docstring_is_found():
    assert undocumented("def f():\n    return 1\nclass C:\n    pass\ndef _g():\n    pass") == ["f", "C"]


def test_keys_are_made_in_one_place():
    found = {name_of(module): keys_made(module.read_text()) for module in MODULES if name_of(module) != "rng.py"}
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_a_key_made_elsewhere_is_found():
    source = "key = jax.random.key(0)\nother = random.PRNGKey(1)\nfine = make_key(2)"
    assert keys_made(source) == [1, 2]


def test_no_path_of_a_machine_stands_in_the_repository():
    found = {file.relative_to(ROOT): MACHINE_PATH.findall(file.read_text()) for file in project_texts()}
    assert len(found) > 5 and {file: hits for file, hits in found.items() if hits} == {}


def test_a_path_of_a_machine_is_found():
    planted = "/".join(["", "home", "someone", "data"])
    assert MACHINE_PATH.search(f"load('{planted}')")
    assert not MACHINE_PATH.search("see https://host.org/home/page and docs/home/page, runs/work/x")


def test_what_a_masking_selects_is_not_called_hidden():
    texts = {name_of(module): module.read_text() for module in MODULES if room_of(name_of(module)) == "masking"}
    assert len(texts) > 5
    assert [name for name, text in texts.items() if re.search(r"\bhid(e|es|den|ing)\b", text)] == []  # docs/glossary.md
