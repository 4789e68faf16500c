import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from jaxmlm import cli
from jaxmlm.errors import InputError, Preempted
from jaxmlm.usage import (
    OPTIONS_OF_A_RUN,
    OPTIONS_OF_A_STUDY,
    OPTIONS_OF_EVALUATE,
    OPTIONS_OF_FINETUNE,
    OPTIONS_OF_PREPARE,
    usage,
    usage_of,
)

RUN = """
from dataclasses import dataclass
@dataclass(frozen=True)
class {kind}:
    steps: int = 3
def config():
    return {kind}()
"""


def jaxmlm(*words: str, **environment: str) -> subprocess.CompletedProcess:
    """The command as a user starts it."""
    command = [sys.executable, "-m", "jaxmlm", *words]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, timeout=60)


@pytest.fixture
def verb(monkeypatch):
    """Add a verb of the test's own to the table."""

    def add(run, takes="CONFIG [--dry-run]"):
        monkeypatch.setitem(cli.VERBS, "probe", cli.Verb(takes, "probes", run))

    return add


def test_help_names_every_verb():
    shown = jaxmlm("--help")
    assert shown.returncode == 0 and all(f"  {verb} " in shown.stdout for verb in cli.VERBS)


def test_help_fits_into_80_columns():
    shown = [usage(cli.VERBS), *(usage_of(name, verb, True) for name, verb in cli.VERBS.items())]
    assert [line for text in shown for line in text.splitlines() if len(line) > 80] == []


def test_help_imports_no_jax():
    code = "import sys; from jaxmlm.cli import main; main(['study', '--help']); sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_a_model_is_loaded_without_matplotlib():
    code = "import sys; from jaxmlm import Study, evaluate, load; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


@pytest.mark.parametrize("name", cli.VERBS)
@pytest.mark.parametrize("words", ["{} --help", "help {}"])
def test_every_verb_explains_itself(name, words, capsys):
    assert cli.main(words.format(name).split()) == 0
    assert capsys.readouterr().out.startswith(f"usage: jaxmlm {name} {cli.VERBS[name].takes}")


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("study", "--dry-run"),
        ("prepare", "--workers"),
        ("audit", "--presets"),
        ("show", "--sentence"),
        ("plan", "--topology"),
        ("bench", "--peer"),
        ("finetune", "--learning-rate"),
        ("evaluate", "--blimp"),
        ("doctor", "--bucket"),
    ],
)
def test_a_verb_shows_its_own_options_without_a_config_or_a_checkpoint(name, option, capsys):
    assert cli.main([name, "--help"]) == 0
    assert re.search(rf"^\W*{option}\b", capsys.readouterr().out, re.MULTILINE)


def test_the_options_that_are_used_most_exist():
    from jaxmlm.config import from_flags
    from jaxmlm.runs import Finetune
    from jaxmlm.runs.evaluation import Evaluation
    from jaxmlm.runs.run import Run
    from jaxmlm.studies import Study

    described = [
        (OPTIONS_OF_A_RUN, Run()),
        (OPTIONS_OF_PREPARE, Run()),
        (OPTIONS_OF_A_STUDY, Study(finetune=(Finetune(),))),
        (OPTIONS_OF_FINETUNE, Finetune()),
        (OPTIONS_OF_EVALUATE, Evaluation(text="x", treebank="x")),
    ]
    for listed, config in described:
        assert len(listed) == 10
        for flag in listed.keys() - {"--dry-run", "--shard I/N", "--inspect STORE"}:  # options of the verb
            words = flag.replace("DIRECTORY", "x").replace("FILES", "x").replace("I/N", "0/2").split()
            from_flags(type(config), words, config)


def test_help_alone_is_the_list_of_verbs(capsys):
    assert cli.main(["help"]) == 0
    assert capsys.readouterr().out.startswith("usage: jaxmlm VERB ...")
    assert cli.main(["help", "studdy"]) == 2
    assert "did you mean study?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["studdy"], "unknown verb 'studdy'; did you mean study?"),
        (["--jsn"], "unknown verb '--jsn'; `jaxmlm --help` lists the verbs"),
        (["study"], "`jaxmlm study` needs a CONFIG, got nothing; write: jaxmlm study CONFIG [--dry-run]"),
        (
            ["report", "--x"],
            "`jaxmlm report` needs a WORKDIR, got '--x' first; write: jaxmlm report WORKDIR [--markdown]",
        ),
        (["report", "w", "--x"], "unknown option --x; `jaxmlm report w --help` lists all"),
        (["study", "nowhere/a.py"], "no config file nowhere/a.py; give the path of a .py file"),
    ],
)  # fmt: skip
def test_wrong_words_give_one_line_and_exit_2(words, message, capsys):
    assert cli.main(words) == 2
    shown = capsys.readouterr()
    assert shown.err == f"jaxmlm: {message}\n" and shown.out == ""


def test_a_config_of_the_wrong_kind_is_refused(tmp_path, capsys):
    for kind in ("Study", "Run", "Other"):
        (tmp_path / f"{kind}.py").write_text(RUN.format(kind=kind))
    assert cli.main(["pretrain", str(tmp_path / "Study.py")]) == 2
    assert "takes a Run, but" in (err := capsys.readouterr().err) and "`jaxmlm study` takes it" in err
    assert cli.main(["study", str(tmp_path / "Run.py")]) == 2
    assert "is a Run; `jaxmlm pretrain` takes it" in capsys.readouterr().err
    assert cli.main(["prepare", str(tmp_path / "Other.py")]) == 2
    assert "takes a Run or a Study, but" in capsys.readouterr().err


def test_wrong_options_are_one_line_in_ascii_and_in_colour(tmp_path):
    (tmp_path / "run.py").write_text(RUN.format(kind="Run"))
    for environment in ({"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "utf-8", "FORCE_COLOR": "1"}):
        shown = jaxmlm("pretrain", str(tmp_path / "run.py"), "--steps", "x", **environment)
        assert shown.stderr == "jaxmlm: --steps takes a whole number; got 'x'\n"
        assert shown.returncode == 2 and shown.stdout == ""


def test_json_is_the_last_line_and_valid(verb, capsys):
    def run(call):
        options, call = call.take(cli.StudyOptions)
        print("progress")
        return {
            "dry": options.dry_run,
            "loss": float("nan"),
            "n": np.int64(3),
            "scores": (np.float32(0.5), None),
        }

    verb(run)
    assert cli.main(["probe", "--dry-run", "x.py", "--json"]) == 0
    progress, last = capsys.readouterr().out.splitlines()
    assert progress == "progress"
    assert json.loads(last) == {"dry": True, "loss": None, "n": 3, "scores": [0.5, None]}
    assert cli.main(["probe", "x.py"]) == 0
    assert capsys.readouterr().out == "progress\n"


def test_results_are_printed_within_80_columns(verb, capsys):
    scores = {"accuracy": 0.51234, "same": 3.0, **{f"field/{name}": 0.5 for name in ("binding", "ellipsis", "islands")}}
    row = {"stage": "blimp", "task": "blimp", "tuning_seed": None, "main": "accuracy"}
    sets = {f"set/number_{i}": i / 70 for i in range(67)}
    verb(lambda call: {"rows": [{**row, "scores": {**scores, "perplexity": None, **sets}}]})
    assert cli.main(["probe", "x.py"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("blimp blimp: accuracy 0.5123  same 3  field/binding 0.5")
    assert len(lines) == 2 and max(map(len, lines)) <= 80 and lines[-1].endswith("perplexity not finite")
    verb(lambda call: {"sets": True, "rows": [{**row, "scores": {**scores, **sets}}]})
    assert cli.main(["probe", "x.py"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80 and sum(line.count("set/") for line in lines) == 67


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["- [MASK] sees"], "- [MASK] sees"),
        (["-[MASK]"], "-[MASK]"),
        (["--", "- [MASK] sees"], "- [MASK] sees"),
        (["--", "--json [MASK]"], "--json [MASK]"),
        (["--json", "--", "--"], "--"),
    ],
)
def test_a_text_may_begin_with_a_dash(words, text, monkeypatch):
    from jaxmlm import api

    seen = []
    model = SimpleNamespace(fill_mask=lambda words: seen.append(words) or [])
    monkeypatch.setattr(api, "load", lambda path: seen.append(path) or model)
    assert cli.main(["fill", "runs/mine", *words]) == 0
    assert cli.main(["fill", "--", "-mine", text]) == 0
    assert seen == ["runs/mine", text, "-mine", text]


def test_words_after_two_dashes_are_no_options(verb, capsys):
    verb(lambda call: {})
    assert cli.main(["probe", "x.py", "--", "--rate"]) == 2
    assert "unexpected argument '--rate' after --" in capsys.readouterr().err
    assert cli.main(["fill", "runs/mine", "a", "text"]) == 2
    assert "one text, in quotes" in capsys.readouterr().err
    assert cli.main(["fill", "runs/mine", "--help"]) == 0


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InputError("the rate is 3\nbut"), 2, "jaxmlm: the rate is 3 but\n"),
        (ZeroDivisionError("by 0"), 1, "jaxmlm: ZeroDivisionError: by 0 (JAXMLM_DEBUG=1 shows where)\n"),
        (KeyboardInterrupt(), 130, "jaxmlm: interrupted\n"),
    ],
)
def test_errors_give_one_line_and_their_code(verb, capsys, monkeypatch, error, code, message):
    def run(call):
        raise error

    verb(run)
    assert cli.main(["probe", "x.py"]) == code
    assert capsys.readouterr().err == message
    monkeypatch.setenv("JAXMLM_DEBUG", "1")
    assert cli.main(["probe", "x.py"]) == code
    assert "Traceback" in capsys.readouterr().err


def test_a_preempted_run_exits_75(verb):
    def run(call):
        raise Preempted("saved")

    verb(run)
    assert cli.main(["probe", "x.py"]) == 75


def test_a_reader_that_leaves_is_no_error():
    shown = subprocess.run(f"{sys.executable} -m jaxmlm --help | head -1", shell=True, capture_output=True, text=True)
    assert shown.stdout == "usage: jaxmlm VERB ...\n" and shown.stderr == ""
