"""Probes of a treebank as a judge of a study's cells: found again, in the report and the verdict; wrong treebanks."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxmlm.cli import main
from jaxmlm.data import Data
from jaxmlm.errors import InputError
from jaxmlm.fields import replace_path
from jaxmlm.json_files import read_jsonl
from jaxmlm.masking import Masking, WordUnits
from jaxmlm.models import EncoderConfig
from jaxmlm.runs import Bound, Probes, Run
from jaxmlm.runs.layer_probes import check_probes
from jaxmlm.studies import Study, Vary, run_study
from jaxmlm.studies.likelihood import BOUND
from jaxmlm.studies.study import UNITS, report
from jaxmlm.tasks.probing import WORD
from jaxmlm.training import Loop

FORMS = ("the", "hen", "owl", "sees", "old", "river")
KINDS = ("DET", "NOUN", "VERB")


def tree(random: np.random.Generator) -> str:
    """A sentence of six words whose parts of speech are random, so that the layers differ in what is found."""
    words = [f"{i}\t{random.choice(FORMS)}\t_\t{random.choice(KINDS)}\t_\t_\t{i - 1}\tdep\t_\t_" for i in range(1, 7)]
    return "\n".join(words) + "\n\n"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Tokens and words, one step each."""
    directory = tmp_path_factory.mktemp("probes")
    random = np.random.default_rng(0)
    for part, number in (("train", 40), ("dev", 20)):
        (directory / f"en-{part}.conllu").write_text("".join(tree(random) for _ in range(number)))
    return Study(
        str(directory / "work"),
        run=Run(
            data=Data(text="sample:300", vocab=200, length=32),
            model=EncoderConfig(layers=2, width=16, heads=2, init=0.5),
            loop=Loop(steps=1, batch=8),
        ),
        vary=(Vary("masking", (Masking(0.4), Masking(0.4, units=WordUnits())), ("tokens", "words")),),
        bound=Bound(rows=8),
        probes=Probes(str(directory), sentences=0, words=200),
    )


@pytest.fixture(scope="module")
def done(study):
    return run_study(study)


def test_every_cell_is_probed_once_and_its_last_layer_counts(study, done, capsys):
    lines = [line for line in read_jsonl(Path(study.workdir, "results.jsonl")) if line["stage"] == "probe"]
    assert len(lines) == 3 and sum(line["control"] for line in lines) == 1
    assert any(one["scores"][f"{name}/layer/0"] != one["scores"][f"{name}/layer/2"] for one in lines for name in WORD)
    for line in lines:
        names = {name for name in line["scores"] if "/" not in name}
        assert names >= {"part of speech", "relation", "tree depth"} and line["scores"]["part of speech/dev"] == 50
        assert all(line["scores"][name] == line["scores"][f"{name}/layer/2"] for name in names)
    run_study(study)
    again = [line for line in read_jsonl(Path(study.workdir, "results.jsonl")) if line["stage"] == "probe"]
    assert again == lines  # nothing was measured twice


def test_the_verb_of_a_checkpoint_says_the_same(study, done, capsys):
    cell = f"{study.workdir}/cells/masking=words,seed=0"
    [line] = [line for line in read_jsonl(Path(cell, "results.jsonl")) if line["stage"] == "probe"]
    words = ["evaluate", cell, "--treebank", study.probes.treebank]
    assert main([*words, "--sentences", "0", "--words", "200", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    own = {
        f"{row['task']}/{key}": value
        for row in rows
        for key, value in row["scores"].items()
        if not key.startswith("untrained/")
    }
    assert own == {key: value for key, value in line["scores"].items() if "/" in key}


def test_the_report_shows_them_and_says_that_the_units_differ(study, done):
    assert "by the probe of part of speech" in done["verdict"] and "probe of relation" in done["verdict"]
    assert {pair["score"] for pair in done["pairs"]} >= {BOUND, "probe/part of speech", "probe/relation"}
    assert set(done["values"]["tokens"]["scores"]) >= {"probe/part of speech", "probe/relation"}
    report(study.workdir, markdown=True)
    document = Path(study.workdir, "report.md").read_text()
    assert "## Probes" in document and "probes.png" in document and UNITS in document
    [headings] = [line for line in document.splitlines() if line.startswith("| cell |") and "perplexity" in line]
    assert "| part of speech | relation |" in headings and "layer" not in headings


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"treebank": "nowhere"}, r"0 files \*train\*.conllu"),
        ({"words": 0}, "probes.words is 0"),
        ({"length": 4}, "probes.length is 4"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(study, tmp_path, change, message):
    elsewhere = replace_path(study, "workdir", str(tmp_path / "work"))
    with pytest.raises(InputError, match=message):
        run_study(replace_path(elsewhere, "probes", Probes(**{"treebank": study.probes.treebank} | change)))
    assert not (tmp_path / "work").exists()


def test_probes_are_for_one_host(study, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(InputError, match="the probes of a treebank run on one host, and this is one of 2"):
        check_probes(study.probes.treebank)
