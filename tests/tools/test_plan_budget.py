"""Plans of a run with a budget of time; the compiler is played here."""

import json
from pathlib import Path

import pytest

from jaxmlm.cli import main
from jaxmlm.tools import plan as plans

MADE = {"fits": True, "temporaries": 0, "moved": 1e9, "collectives": {}, "total": 1.0, "seconds": 0.0}
MADE |= {"parameters": 1, "optimizer": 2, "limit": 1.0}
WORDS = ["plan", "configs/one_chip.py", "--topology", "v5e:1x1", "--price", "1.2", "--json"]


@pytest.fixture
def planned(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(plans, "compiled_for", lambda *_: MADE)
    monkeypatch.setenv("JAXMLM_CACHE", str(tmp_path))

    def planned(*flags):
        assert main([*WORDS, *flags]) == 0
        told = capsys.readouterr()
        return json.loads(told.out)["plans"][0], " ".join(told.err.split())

    return planned


def test_a_budget_is_what_is_paid_for(planned):
    """Its steps are those that fit at the assumed speed."""
    usual, told = planned("--data.text", "hf:some/text")
    assert usual["budget"] is None and "budget" not in told and f"{usual['steps']:,} steps" in told
    day, told = planned("--data.text", "hf:some/text", "--loop.budget", "24h")
    hour, _ = planned("--data.text", "hf:some/text", "--loop.budget", "1h")
    assert (day["hours"], day["price"]) == (pytest.approx(24, rel=1e-3), pytest.approx(28.8, rel=1e-3))
    assert day["steps"] == pytest.approx(24 * hour["steps"], rel=1e-3) and day["epochs"] is None
    assert day["steps"] == pytest.approx(usual["steps"] * 24 / usual["hours"], rel=1e-3)
    assert ", budget 24h" in told and f"{day['steps']:,}" in told and "those that 24h have time for" in told


def test_a_budget_ends_with_the_text(planned, tmp_path):
    """As the run does, which reads it most_epochs times."""
    text = tmp_path / "text.txt"
    text.write_text("a fox saw the crow and the grapes. " * 3000)
    run, _ = planned("--data.text", str(text), "--loop.budget", "240h", "--most-epochs", "5", "--loop.batch", "8")
    assert run["hours"] < 24 and run["epochs"] == pytest.approx(5, rel=0.2) and run["epochs"] <= 5


def test_the_users_own_class_is_part_of_the_program(monkeypatch, tmp_path, capsys):
    """Also one that another file has run: a plan of another class is not found again."""
    asked = []
    monkeypatch.setattr(plans, "compiled_for", lambda *program: asked.append(program) or MADE)
    monkeypatch.setenv("JAXMLM_CACHE", str(tmp_path))
    code = (Path(__file__).parents[2] / "docs" / "extending.md").read_text().split("```python\n")[1].split("```")[0]
    (tmp_path / "config.py").write_text(
        f"from runpy import run_path\nconfig = run_path({str(tmp_path / 'sentences.py')!r})['config']\n"
    )
    for edited in (code, code, code.replace("ends[:-1]", "~ends[:-1]")):
        (tmp_path / "sentences.py").write_text(edited)
        assert main(["plan", str(tmp_path / "config.py"), "--topology", "v5e:1x1", "--json"]) == 0
    assert len(asked) == 2
