"""`audit` and `show` as a user types them, on the generated sample."""

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from jaxmlm import cli
from jaxmlm.data import Store
from jaxmlm.masking import PRESETS

QUICKSTART = str(Path(__file__).parents[2] / "configs" / "quickstart.py")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> Path:
    """A workdir whose store, word boundaries and phrases exist, as the first `audit --presets all` leaves it."""
    workdir = tmp_path_factory.mktemp("tools")
    assert cli.main(
        ["audit", QUICKSTART, "--small", "--presets", "pmi", "--rows", "50", "--workdir", str(workdir)]
    ) in (0, 1)
    return workdir


def test_audit_reports_every_preset_within_its_interval(workdir, capsys):
    words = ["audit", QUICKSTART, "--small", "--presets", "all", "--rows", "300", "--workdir", str(workdir), "--json"]
    assert cli.main(words) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out.splitlines()[-1])
    assert found["ok"] and set(found["maskings"]) == set(PRESETS) and "selected entirely" in captured.err
    assert json.loads((workdir / "audit.json").read_text()).keys() == PRESETS.keys()
    assert (workdir / "audit.png").stat().st_size > 10_000
    whole = {name: one["whole"] for name, one in found["maskings"].items()}
    assert whole["pmi"]["phrases"] > 2 * whole["roberta"]["phrases"]


def test_audit_of_a_runs_own_masking_with_views(workdir, capsys):
    words = ["audit", QUICKSTART, "--small", "--rows", "100", "--run.masking.predict", "0.8", "--workdir", str(workdir)]
    assert cli.main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["maskings"]["this run"]
    assert found["views"] == 2 and found["shares"]["predicted"]["asked"] == pytest.approx(0.8)


def test_an_audit_measures_the_rows_of_the_runs_format(workdir, capsys):
    words = ["--small", "--rows", "100", "--run.data.format", "sentences", "--run.masking.rate", "0.15"]
    assert cli.main(["audit", QUICKSTART, *words, "--workdir", str(workdir), "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["maskings"]["this run"]
    assert found["tokens"] < 100 * 55  # packed rows have about 62
    assert found["shares"]["selected"]["asked"] == 0.15


def test_an_audit_that_fails_exits_with_1(workdir, monkeypatch, capsys):
    from jaxmlm.tools import audit

    monkeypatch.setattr(audit, "measure", lambda *args: {**good(), "ok": False})
    assert cli.main(["audit", QUICKSTART, "--small", "--workdir", str(workdir), "--rows", "50"]) == 1


def test_what_an_audit_finds_wrong_is_marked_without_colours_too(workdir, monkeypatch, capsys):
    from jaxmlm.tools import audit

    monkeypatch.setattr(audit, "measure", lambda *args: {**good(), "ok": False})
    monkeypatch.setattr(audit, "audit_figures", lambda *args: [])
    cli.main(["audit", QUICKSTART, "--small", "--workdir", str(workdir), "--rows", "50"])
    said = " ".join(capsys.readouterr().err.split())  # a narrow table breaks its title
    assert "red, with !: outside its interval" in said and "30.00 (40.00) !" in said


def good() -> dict:
    share = {"asked": 0.4, "got": 0.3, "low": 0.39, "high": 0.41, "ok": False}
    length = {"units": 1, "selected": 0.4, "low": 0.3, "high": 0.5, "ok": True}
    return {"shares": {"selected": share}, "lengths": {"1": length}, "positions": [0.0, 0.4], "whole": {"words": 0.4},
            "faults": {"units cut": 0}}  # fmt: skip


def test_show_prints_every_strategy_and_writes_a_page(workdir, capsys):
    words = ["show", QUICKSTART, "--small", "--rates", "0.15", "0.8", "--workdir", str(workdir)]
    assert cli.main([*words, "--sentence", "the <old> baker sold a loaf"]) == 0
    out = capsys.readouterr().out
    page = (workdir / "show.html").read_text()
    assert out.count("[") > 10 and "[" not in out.splitlines()[0]  # without colours, hidden pieces stand in brackets
    for head in ("tokens, 15%", "words, 80%", "spans, 80%", "phrases, 15%"):
        assert head in out and head in page
    assert 'class="mask"' in page and "<old>" not in page


def test_show_needs_no_colours_on_a_terminal_either(workdir, monkeypatch, capsys):
    """NO_COLOR takes the colours away and leaves the terminal one that has some."""
    for name, value in {"FORCE_COLOR": "1", "NO_COLOR": "1", "TERM": "xterm-256color"}.items():
        monkeypatch.setenv(name, value)
    words = ["show", QUICKSTART, "--small", "--rates", "0.8", "--workdir", str(workdir)]
    assert cli.main([*words, "--sentence", "the old baker sold a loaf"]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if "%" not in line]
    assert said and all(re.search(r"\[\w+\]", line) for line in said)


def quickstart_with(directory: Path, masking: str) -> Path:
    """A config file: the small quickstart under another masking."""
    path = directory / "other.py"
    path.write_text(
        "from dataclasses import replace\n"
        "from jaxmlm.config import load\n"
        "from jaxmlm.masking import Masking, Piecewise, Uniform\n"
        "def config():\n"
        f"    return replace(load({QUICKSTART!r}, ['--small']).run, masking={masking})\n"
    )
    return path


def test_show_takes_any_masking_and_shows_unknown_characters(workdir, tmp_path, capsys):
    """Weights that need a law of the rate, where the rates are single numbers; a character outside the vocabulary."""
    path = quickstart_with(tmp_path, "Masking(Uniform(0.001, 1.0), weights='bound')")
    words = ["show", str(path), "--rates", "0.4", "--workdir", str(workdir), "--sentence", "the old 猫 baker"]
    assert cli.main(words) == 0
    assert all("<unk>" in line for line in capsys.readouterr().out.splitlines() if "old" in line and "baker" in line)


def test_show_shows_the_rate_of_its_heading_whatever_a_schedule_says(workdir, tmp_path, capsys):
    path = quickstart_with(tmp_path, "Masking(0.4, schedule=Piecewise((0, 4), (0.05, 1.0)))")
    words = ["show", str(path), "--rates", "1.0", "--workdir", str(workdir), "--sentence", "the old baker"]
    assert cli.main(words) == 0
    heading, of_tokens = capsys.readouterr().out.splitlines()[:2]
    assert heading == "tokens, 100%" and not re.sub(r"\[[^]]*\]", "", of_tokens).strip()


def test_show_leaves_text_to_the_configuration(monkeypatch):
    """`--text` is where the text lies in every config that takes it, for all verbs."""
    from jaxmlm.tools import show

    seen = []
    monkeypatch.setattr(show, "show", lambda run, options: seen.append((run.data.text, options.sentence)) or {})
    assert (
        cli.main(
            ["show", str(Path(QUICKSTART).with_name("base.py")), "--text", "mine/*.gz", "--sentence", "the old baker"]
        )
        == 0
    )
    assert seen == [("mine/*.gz", "the old baker")]


def test_a_wrong_option_is_suggested(workdir, capsys):
    assert cli.main(["audit", QUICKSTART, "--small", "--presets", "spanber", "--workdir", str(workdir)]) == 2
    assert "did you mean spanbert" in capsys.readouterr().err


def test_what_is_in_a_store(workdir, capsys):
    """Beside counts that are made of the whole stream at once."""
    store = Store(workdir / "store")
    assert cli.main(["prepare", "--inspect", str(workdir / "store"), "--json"]) == 0
    out = capsys.readouterr().out.splitlines()
    found = json.loads(out[-1])
    tokens = store.tokens("train")[np.arange(len(store.tokens("train")))]
    texts = "".join(chr(0x4E00 + i) for i in tokens).split(chr(0x4E00 + store.tokenizer.sep_id))[:-1]
    assert found["train"]["tokens"] == len(tokens) and found["train"]["documents"] == len(texts)
    assert found["train"]["lengths"]["65"] == sum(65 <= len(text) < 129 for text in texts)
    assert sum(found["train"]["lengths"].values()) == len(texts)
    piece, share = found["train"]["top"][0]
    best = Counter("".join(texts)).most_common(1)[0]
    assert store.tokenizer.pieces([ord(best[0]) - 0x4E00]) == [piece]
    assert share == pytest.approx(best[1] / len(tokens), abs=1e-5)
    assert found["train"]["unknown"] == pytest.approx((tokens == 1).mean(), abs=1e-6)
    start = next(line for line in out if line.startswith("at 0: "))
    assert start == "at 0: " + store.tokenizer.decode(tokens[:64].tolist())


@pytest.mark.parametrize("words", [["no/such/store"], [], ["a", "b"]])
def test_a_store_that_is_none_is_not_inspected(words, capsys):
    assert cli.main(["prepare", "--inspect", *words]) == cli.WRONG_INPUT
    assert len(capsys.readouterr().err.splitlines()) == 1
