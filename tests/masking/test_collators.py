"""The audit of anyone's collator finds what is wrong with it, and nothing wrong with one that is right."""

import json
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import jaxmlm
from jaxmlm import cli
from jaxmlm.data import SentencePieceTokenizer, Tokenizer
from jaxmlm.errors import InputError
from jaxmlm.masking.collators import _repeats
from jaxmlm.synthetic import world

FILE = Path(__file__).parents[2] / "benchmarks" / "collators.py"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return SentencePieceTokenizer.train(list(world.documents(1, 300)), 500)


@pytest.fixture
def others() -> ModuleType:
    """The maskings of other systems, from a fresh seed."""
    spec = spec_from_file_location("collators", FILE)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    np.random.seed(0)
    return module


def independent(rate: float, random: float = 0.0, change: Callable | None = None) -> Callable:
    """A collator that masks each token by itself, with a fault."""
    rng = np.random.default_rng(0)

    def collate(rows: list[dict[str, list[int]]]) -> dict[str, np.ndarray]:
        longest = max(len(row["input_ids"]) for row in rows)
        ids, special = np.zeros((len(rows), longest), int), np.ones((len(rows), longest), int)
        for i, row in enumerate(rows):
            ids[i, : len(row["input_ids"])] = row["input_ids"]
            special[i, : len(row["input_ids"])] = row["special_tokens_mask"]
        chosen = (rng.random(ids.shape) < rate) & (special == 0)
        inputs = np.where(chosen, np.where(rng.random(ids.shape) < random, rng.integers(5, 500, ids.shape), 4), ids)
        labels = np.where(chosen, ids, -100)
        return dict(zip(("input_ids", "labels"), change(inputs, labels) if change else (inputs, labels), strict=True))

    return collate


def test_a_right_collator_is_found_right(tokenizer):
    found = jaxmlm.audit_collator(independent(0.3, random=0.2), tokenizer, rate=0.3, rows=300)
    assert found["ok"], found
    shares = found["shares"]
    assert shares["selected"]["low"] < 0.3 < shares["selected"]["high"] < 0.32
    assert shares["masked"]["low"] < 0.8 < shares["masked"]["high"]
    assert shares["random"]["low"] < 0.2 < shares["random"]["high"] and shares["same"]["got"] < 0.01
    assert found["words"]["cut"] > 0.5 and found["repeats"]["rows"] < 10


@pytest.mark.parametrize(
    ("name", "where"),
    [("electra", "selected"), ("bert", "selected"), ("fairseq", "special tokens"), ("modernbert", "padding")],
)
def test_the_faults_of_other_systems_are_found(tokenizer, others, name, where):
    found = jaxmlm.audit_collator(getattr(others, name), tokenizer, rate=others.RATE, rows=200)
    assert not found["ok"]
    assert found["special"].get(where, 0) > 0 or not found["shares"].get(where, {"ok": True})["ok"]


def test_the_spans_of_spanbert_cut_words_and_favour_long_ones(tokenizer, others, tmp_path):
    tokenizer.save(tmp_path)
    others.TOKENIZER = str(tmp_path)
    found = jaxmlm.audit_collator(others.spanbert, tokenizer, rate=others.RATE, rows=200)
    assert found["shares"]["selected"]["got"] > others.RATE and not found["shares"]["selected"]["ok"]  # rounded up
    for name, share in (("masked", 0.8), ("random", 0.1), ("same", 0.1)):
        assert found["shares"][name]["low"] < share + 0.01 and share - 0.01 < found["shares"][name]["high"]
    assert 0 < found["words"]["cut"] < 0.3 and not any(found["special"].values())
    lengths = found["lengths"]["selected"]
    assert lengths["1"]["selected"] < 0.97 * max(one["selected"] for one in lengths.values())
    assert found["positions"]["selected"][1] < 0.9 * found["positions"]["selected"][12]


def test_the_same_masks_in_every_epoch_are_found(tokenizer):
    def static(rows):
        return independent(0.3)(rows)

    found = jaxmlm.audit_collator(static, tokenizer, rate=0.3, rows=100)
    assert (found["repeats"]["rows"], found["repeats"]["of"]) == (200, 200) and found["repeats"]["chance"] < 1
    assert not found["repeats"]["ok"] and not found["ok"]


@pytest.mark.parametrize(("length", "rate"), [(5, 0.15), (8, 0.15), (12, 0.15), (8, 0.5), (10, 1.0)])
def test_short_rows_repeat_a_mask_by_chance(length, rate):
    """A right collator stays right, and one that masks alike in every epoch is found, but where all is masked."""
    maskable = np.ones((400, length), bool)
    rng = np.random.default_rng(0)
    passes = rng.random((3, 400, length)) < rate
    found = _repeats(passes, maskable, maskable, rate)
    assert found["ok"] and found["rows"] == pytest.approx(found["chance"], rel=0.5, abs=20)
    assert _repeats(passes[[0, 0, 0]], maskable, maskable, rate)["ok"] == (rate == 1.0)


def test_a_bias_by_position_is_found(tokenizer):
    def late(inputs, labels):
        early = np.arange(inputs.shape[1])[None] < 4
        return np.where(early & (labels >= 0), labels, inputs), np.where(early, -100, labels)

    found = jaxmlm.audit_collator(independent(0.3, change=late), tokenizer, rate=0.3, rows=300)
    assert not found["positions"]["ok"] and found["positions"]["bias"] > 10 and found["positions"]["selected"][2] == 0


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (independent(0.3, change=lambda x, y: (x, np.full_like(y, -100))), "changes ids outside its labels: .* to 4"),
        (independent(0.3, change=lambda x, y: (x, y + 1)), "labels are not the ids that were there"),
        (independent(0.3, change=lambda x, y: (x[1:], y[1:])), "it must keep rows"),
        (lambda rows: {"input_ids": []}, "returns a mapping with the arrays input_ids and labels"),
        (lambda rows: rows["input_ids"], "the collator fails on the rows: TypeError: list indices must be"),
    ],
    ids=["outside", "shifted", "fewer rows", "no labels", "fails"],
)
def test_a_collator_that_cannot_be_measured_is_refused_in_one_line(tokenizer, function, message):
    with pytest.raises(InputError, match=message) as caught:
        jaxmlm.audit_collator(function, tokenizer, rows=40)
    assert "\n" not in str(caught.value)


def test_the_command_line(tokenizer, tmp_path, monkeypatch, capsys):
    tokenizer.save(tmp_path)
    monkeypatch.chdir(FILE.parent)
    np.random.seed(0)
    words = ["audit", "--collator", "collators:electra", "--tokenizer", str(tmp_path), "--rate", "0.4", "--rows", "64"]
    assert cli.main([*words, "--json"]) == cli.FAILED
    captured = capsys.readouterr()
    assert json.loads(captured.out)["shares"]["selected"]["asked"] == 0.4 and "collators:electra" in captured.err
    assert cli.main(words) == cli.FAILED  # the rate is not as asked
    captured = capsys.readouterr()
    assert captured.out == "" and "as asked" in captured.err and "jaxmlm:" not in captured.err
    for name, said in (
        ("collators", "is named FILE.py:NAME or MODULE:NAME"),
        ("collators:missing", "collators defines no 'missing'"),
        ("no_such:function", "no_such cannot be imported"),
        ("transformers:Nothing", "transformers:Nothing is not known here"),
    ):
        words[2] = name
        assert cli.main(words) == cli.WRONG_INPUT
        err = capsys.readouterr().err
        assert said in err and err.count("\n") == 1
