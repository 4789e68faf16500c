import dataclasses
import re
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from jaxmlm.cli import main
from jaxmlm.config import from_flags, load
from jaxmlm.errors import InputError
from jaxmlm.fields import describe, replace_path

CONFIGS = Path(__file__).parent.parent / "configs"


@dataclasses.dataclass(frozen=True)
class Words:
    """Whole words."""

    longest: int = 10


@dataclasses.dataclass(frozen=True)
class Spans:
    """Spans."""

    p: float = 0.2


@dataclasses.dataclass(frozen=True)
class Masking:
    """What is hidden."""

    rate: float = 0.4
    """Share of the tokens."""
    predict: float | None = None
    units: Words | Spans = Words()
    order: Literal["first", "last"] = "first"

    def __post_init__(self):
        if not 0 < self.rate < 1:
            raise InputError(f"masking.rate must be between 0 and 1, got {self.rate}")


@dataclasses.dataclass(frozen=True)
class Loop:
    """How long."""

    steps: int = 100
    save_every: int = 10


@dataclasses.dataclass(frozen=True)
class Run:
    """One run."""

    masking: Masking = Masking()
    loop: Loop = Loop()
    sizes: tuple[int, ...] = (1, 2)
    workdir: str = "runs/x"
    verbose: bool = False


CONFIG = """
'''A small run.'''
from typing import Literal
from tests.test_config import Run, Loop

def config(scale: Literal["cpu", "pod"] = "cpu", seed: int = 0):
    return Run(loop=Loop(steps=10 if scale == "cpu" else 1000))
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent))

    def write(text: str, name: str = "small.py") -> str:
        (tmp_path / name).write_text(text.replace("from tests.test_config", f"from {__name__}"))
        return str(tmp_path / name)

    return write


def test_a_config_file_gives_its_dataclass(write):
    assert type(load(write(CONFIG))).__name__ == "Run"
    assert load(write(CONFIG)).loop == Loop(steps=10)


def test_typed_overrides_and_keywords_of_config_mix_in_any_order(write):
    flags = "--masking.rate 0.3 --scale pod --loop.save-every 50 --masking.units.longest 3 --sizes 7 8 9"
    run = load(write(CONFIG), [*flags.split(), "--masking.predict", "0.1", "--verbose"])
    assert run.masking == Masking(rate=0.3, predict=0.1, units=Words(longest=3))
    assert run.loop == Loop(steps=1000, save_every=50)
    assert run.sizes == (7, 8, 9) and run.verbose
    assert load(write(CONFIG), ["--masking.predict", "None"]).masking.predict is None


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--masking.rat 0.3", "unknown option --masking.rat; did you mean --masking.rate?"),
        ("--rate 0.3", "unknown option --rate; did you mean --masking.rate?"),
        ("--loop.save_evry 3", "unknown option --loop.save-evry; did you mean --loop.save-every?"),
        ("--scal pod", "unknown option --scal; did you mean --scale?"),
        ("--zzzz 1", "unknown option --zzzz; `jaxmlm "),
        ("-x 3", "unknown option -x; `jaxmlm "),
        ("stray", "unexpected argument 'stray'; options are written --name VALUE"),
        ("--masking.rate x", "--masking.rate takes a number; got 'x'"),
        ("--masking.rate 3", "masking.rate must be between 0 and 1, got 3.0"),
        ("--loop.steps", "--loop.steps needs a value: write --loop.steps VALUE"),
        ("--sizes 1,2,3", "--sizes cannot be '1,2,3': several values stand with spaces between, as 0 1 2"),
        ("--loop.steps 1.5", "--loop.steps takes a whole number; got '1.5'"),
        ("--masking.order mid", "--masking.order: invalid choice 'mid'; expected one of first, last"),
        ("--scale huge", "--scale: invalid choice 'huge'; expected one of cpu, pod"),
    ],
)  # fmt: skip
def test_wrong_flags_give_one_line(write, flags, message):
    with pytest.raises(InputError) as error:
        load(write(CONFIG), flags.split())
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--rates 0.15 0.4", "unknown option --rates; did you mean --vary.0.values?"),
        ("--rate 0.4", "unknown option --rate; did you mean --vary.0.values?"),
        ("--masking.rate 0.4", "unknown option --masking.rate; did you mean --vary.0.values?"),
        ("--run.masking.rat 0.4", "unknown option --run.masking.rat; did you mean --run.masking.rate?"),
        ("--steps 4", "unknown option --steps; did you mean --run.loop.steps?"),
        (
            "--vary 0.4",
            "unknown option --vary; there are --vary.0.path, --vary.0.values, --vary.0.names; --no-vary leaves it out",
        ),
        (
            "--finetune None",
            "unknown option --finetune; there are --finetune.0.task, --finetune.0.data, --finetune.0.train and more; "
            "--no-finetune leaves it out",
        ),
        ("--zero-shot None", "unknown option --zero-shot; there are --zero-shot.blimp, --zero-shot.pairs"),
        (
            "--run.masking.units words",
            "unknown option --run.masking.units; run.masking.units is an object, TokenUnits, that the config file sets",
        ),
        (
            "--run.optim.optimizer Lion",
            "unknown option --run.optim.optimizer; there are --run.optim.optimizer.b1, --run.optim.optimizer.b2, "
            "--run.optim.optimizer.eps and more; run.optim.optimizer is an object, AdamW, that the config file sets",
        ),
        ("--no-finetun", "unknown option --no-finetun; did you mean --no-finetune?"),
        ("--run", "unknown option --run; there are --run.workdir, --run.init, --run.data.text and more"),
    ],
)
def test_the_options_of_a_study_are_suggested(flags, message):
    with pytest.raises(InputError) as error:
        load(CONFIGS / "quickstart.py", flags.split())
    assert str(error.value).startswith(message)
    for word in re.findall(r"--[a-z][\w.-]+", str(error.value))[1:]:  # there is such an option
        try:
            load(CONFIGS / "quickstart.py", [word])
        except InputError as other:
            assert "unknown option" not in str(other)


def test_parts_of_a_study_are_left_out():
    study = load(CONFIGS / "quickstart.py", ["--small", "--no-finetune", "--vary.0.values", "0.15", "0.4"])
    assert (study.finetune, study.vary[0].values, study.zero_shot.pairs) == ((), (0.15, 0.4), 20)
    assert load(CONFIGS / "quickstart.py", ["--no-zero-shot", "--seeds", "1", "2"]).zero_shot is None
    with pytest.raises(InputError, match="unknown option --no-run; "):
        load(CONFIGS / "quickstart.py", ["--no-run"])
    with pytest.raises(InputError, match="unknown option --finetune.0.task; "):
        load(CONFIGS / "quickstart.py", ["--no-finetune", "--finetune.0.task", "rte"])


def test_a_value_may_begin_with_a_dash():
    words = ["--sentence", '-- "Who sees?" he said', "--title", "-A title", "--note", "- a note", "--seeds", "1"]
    study = load(CONFIGS / "quickstart.py", words)
    assert (study.sentence, study.title, study.note) == tuple(words[1:6:2]) and study.seeds == (1,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\ndef config(:\n", "small.py:2: not Python: "),
        ("x = 1\n", "small.py: has no function config()"),
        ("config = 3\n", "small.py: has no function config()"),
        ("def config():\n    return {}\n", "small.py: config() must return a Run or a Study, got dict"),
        ("import no_such_module\n", "small.py:1: ModuleNotFoundError: No module named 'no_such_module'"),
        ("def config():\n    x = 1\n    return x.y\n", "small.py:3: AttributeError: 'int' object has no"),
        ("import sys\nsys.exit(0)\n", "small.py:2: ends the program (exit 0): config() must return a Run or a Study"),
        ("def config():\n    exit(5)\n", "small.py:2: ends the program (exit 5): config() must return"),
        ("def config():\n    raise BaseException('away')\n", "small.py:2: BaseException: away"),
        (
            "import os\ndef config(scale: str = 'cpu'):\n    raise SystemExit\n",
            "small.py:3: ends the program (exit None)",
        ),
        (
            "from tests.test_config import Masking\ndef config():\n    return Masking(rate=15)\n",
            "small.py:3: masking.rate must be between 0 and 1, got 15",
        ),
    ],
)
def test_a_wrong_file_is_told_with_its_line(write, text, message):
    path = write(text)
    with pytest.raises(InputError) as error:
        load(path)
    assert str(error.value).removeprefix(path.removesuffix("small.py")).startswith(message)


def test_a_missing_file_suggests_the_right_one(write, tmp_path):
    path = write(CONFIG)
    with pytest.raises(InputError, match=r"no config file .*smal\.py; did you mean .*small\.py\?"):
        load(path.replace("small", "smal"))
    with pytest.raises(InputError, match="give the path of a .py file"):
        load(tmp_path / "nowhere" / "a.py")


def test_help_lists_keywords_and_fields(write, capsys):
    with pytest.raises(SystemExit) as stop:
        load(write(CONFIG), ["--scale", "pod", "--help"], prog="jaxmlm study")
    shown = capsys.readouterr().out
    assert stop.value.code == 0
    for text in ("--scale", "--masking.rate", "Share of the tokens", "default: 1000", "A small run"):
        assert text in shown


def test_required_flags_are_named():
    @dataclasses.dataclass(frozen=True)
    class Finetune:
        task: str
        data: str
        rate: float = 1e-3

    with pytest.raises(InputError, match="^missing options: --task, --data$"):
        from_flags(Finetune, [])
    assert from_flags(Finetune, ["--task", "cola", "--data", "d"]) == Finetune("cola", "d")


def test_replace_path_replaces_only_what_it_names():
    run = replace_path(Run(), "masking.rate", 0.15)
    assert run == dataclasses.replace(Run(), masking=Masking(rate=0.15))
    assert replace_path(Run(), "masking.units", Spans()).masking.units == Spans()
    assert replace_path(Run(), "sizes", [3]).sizes == (3,)
    assert replace_path(Run(), "masking.predict", 1).masking.predict == 1.0
    assert replace_path(Run(), "masking.predict", None).masking.predict is None


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("masking.rat", 0.1, "no field 'masking.rat'; did you mean masking.rate?"),
        ("maskin.rate", 0.1, "no field 'maskin.rate'; did you mean masking.rate?"),
        ("rate", 0.1, "no field 'rate'; did you mean masking.rate?"),
        ("masking.unit", 0.1, "no field 'masking.unit'; did you mean masking.units?"),
        ("loop.qqqq", 0.1, "no field 'loop.qqqq'; Loop has steps, save_every"),
        ("workdir.x", 0.1, "no field 'workdir.x': workdir is 'runs/x' and has no fields"),
        ("masking.rate", "x", "masking.rate takes float, got 'x' (str)"),
        ("loop.steps", 1.5, "loop.steps takes int, got 1.5 (float)"),
        ("loop.steps", True, "loop.steps takes int, got True (bool)"),
        ("masking.order", "mid", "masking.order takes Literal['first', 'last'], got 'mid' (str)"),
        ("sizes", (1, "a"), "sizes takes tuple[int, ...], got (1, 'a') (tuple)"),
        ("masking.rate", 2.0, "masking.rate must be between 0 and 1, got 2.0"),
    ],
)
def test_replace_path_refuses_what_does_not_fit(path, value, message):
    with pytest.raises(InputError) as error:
        replace_path(Run(), path, value)
    assert str(error.value) == message


def test_describe_gives_plain_values():
    plain = describe(Run(masking=Masking(units=Spans())))["masking"]
    assert len(plain["units"].pop("source")) == 16 and len(plain.pop("source")) == 16  # classes of this file
    assert plain == {
        "class": "Masking",
        "rate": 0.4,
        "predict": None,
        "units": {"class": "Spans", "p": 0.2},
        "order": "first",
    }
    assert describe({"a": (Path("x"), np.float32(0.5), np.arange(2))}) == {"a": ["x", 0.5, [0, 1]]}
    with pytest.raises(TypeError, match="plain values"):
        describe(object())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--run.masking.rate 0.3", "--run.masking.rate has no effect: the study varies it; give --vary.0.values"),
        ("--run.loop.seed=3", "--run.loop.seed has no effect: the study varies it; give --seeds"),
        ("--run.workdir x", "--run.workdir has no effect: the study varies it; give --workdir"),
    ],
)
def test_an_option_that_changes_no_cell_is_refused(flags, message, capsys):
    assert main(["study", str(CONFIGS / "quickstart.py"), "--dry-run", *flags.split()]) == 2
    assert capsys.readouterr().err == f"jaxmlm: {message}\n"


OWN = """
from dataclasses import dataclass
import jax.numpy as jnp
from jaxmlm import Masking, Run

@dataclass(frozen=True)
class Pairs:
    max_length = 2

    def starts(self, key, tokens):
        return jnp.arange(tokens.ids.shape[0]) % {every} == 0

def config():
    return Run(masking=Masking(0.4, units=Pairs()))
"""


def test_a_run_with_an_edited_class_of_the_config_file_is_another_run(write, tmp_path):
    from jaxmlm.runs.run import identity
    from jaxmlm.runs.workdir import check_workdir, write_metadata

    first = identity(load(write(OWN.format(every=2))))
    assert first == identity(load(write(OWN.format(every=2) + "# another comment, below the class")))
    assert len(first["masking"]["units"]["source"]) == 16 and "source" not in first["masking"]
    edited = identity(load(write(OWN.format(every=4))))
    assert edited["masking"]["units"]["source"] != first["masking"]["units"]["source"]
    write_metadata(tmp_path / "run", "run.json", first, {"config": {}})
    check_workdir(tmp_path / "run", "run.json", first)
    with pytest.raises(InputError, match="another masking.units: the file that defines its class has changed"):
        check_workdir(tmp_path / "run", "run.json", edited)
