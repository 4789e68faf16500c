"""How often a text is read: estimated from a part of it, near what its token store says."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest

from jaxmlm.data import Data
from jaxmlm.data.opening import open_store
from jaxmlm.errors import InputError
from jaxmlm.runs import epochs
from jaxmlm.runs.pretraining import pretrain
from jaxmlm.runs.run import Run, identity
from jaxmlm.synthetic import world
from jaxmlm.training import Loop

SENTENCES = "\n\n".join(world.documents(0, 3000))


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.jsonl"])
def test_the_estimate_is_near_the_tokens_of_the_store(name, tmp_path):
    path = tmp_path / name
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(SENTENCES.encode()))
    elif name.endswith(".jsonl"):
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in SENTENCES.split("\n\n")))
    else:
        path.write_text(SENTENCES)
    layout = "jsonl" if name.endswith(".jsonl") else "blank-line"
    data = Data(text=str(path), vocab=600, length=64, valid=0.05, layout=layout)
    guessed = epochs.tokens_in(data, tmp_path)
    store = open_store(data, tmp_path)
    exact = epochs.tokens_in(data, tmp_path)
    assert exact == store.manifest["train"]["tokens"] and exact / 2 < guessed < exact * 2
    ready = replace(data, tokenizer=str(store.directory))
    assert epochs.tokens_in(ready, tmp_path / "elsewhere") == pytest.approx(exact, rel=0.05)


def test_the_generated_world_and_mixes(tmp_path):
    one = epochs.tokens_in(Data(text="sample:20000"), tmp_path)
    assert 1.4e6 < one < 1.8e6
    two = Data(text="sample:20000,sample:40000")
    assert epochs.tokens_in(two, tmp_path) == pytest.approx(3 * one, rel=0.01)
    mixed = replace(two, weights=(1.0, 1.0))  # ends when the first does
    assert epochs.tokens_in(mixed, tmp_path) == pytest.approx(2 * one, rel=0.01)


@pytest.mark.parametrize("text", ["no/such/*.txt", "gs://bucket/*.gz", "tfds:lm1b", "no/such.txt,sample:9", "sample:x"])
def test_a_text_that_is_not_here_has_no_number(text, tmp_path):
    run = Run(workdir=str(tmp_path), data=Data(text=text))
    assert epochs.size(run) is None and epochs.check(run, 10**15, None) is None


def test_more_than_was_asked_for_is_refused_before_the_text_is_prepared(tmp_path):
    run = Run(workdir=str(tmp_path / "run"), data=Data(text="sample:50", length=16), loop=Loop(steps=40_000, batch=16))
    with pytest.raises(InputError, match="read it 2,[0-9]{3} times, more than most_epochs 100: .*--most-epochs 10000"):
        pretrain(run)
    assert not list(tmp_path.iterdir())
    assert epochs.check(replace(run, most_epochs=None), 10**9, 4000) == 250_000
    assert epochs.check(replace(run, most_epochs=3000.0), 8_000_000, 4000) == 2000
    assert identity(replace(run, most_epochs=None)) == identity(run)


def test_a_plan_counts_epochs(monkeypatch, tmp_path, capsys):
    from jaxmlm.tools import plan

    fits = {
        "topology": "v5e:1x1",
        "slices": 1,
        "chips": 1,
        "fits": False,
        "steps": 8000,
        "budget": None,
        "instead": None,
        "total": 1,
        "limit": 1,
    }
    monkeypatch.setattr(plan, "pairs", lambda jax: iter(()))
    monkeypatch.setattr(plan, "planned", lambda run, where, options: fits)
    run = Run(workdir=str(tmp_path), data=Data(text="sample:20000"), loop=Loop(steps=8000, batch=16))
    found = plan.plan(run, plan.Plan("v5e:1x1"))
    assert 8 < found["plans"][0]["epochs"] < 12
    assert "epochs of the text" in capsys.readouterr().err
    with pytest.raises(InputError, match="most_epochs"):
        plan.plan(replace(run, loop=Loop(steps=800_000, batch=16)), plan.Plan("v5e:1x1"))
    assert Path(tmp_path).exists()
