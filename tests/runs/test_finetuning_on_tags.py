"""Tagging through the command's function: what is learned, written, compared, loaded, exported."""

import json
from dataclasses import replace

import numpy as np
import pytest

import jaxmlm
from jaxmlm.errors import InputError
from jaxmlm.runs import Finetune, finetune
from jaxmlm.runs.comparison import compare, say_comparison
from jaxmlm.tasks.entities import entity_scores
from jaxmlm.tasks.tagging_files import read_bio

NAMES = ["Ada", "Grace", "Emmy", "Sofia"]
PLACES = ["London", "Oslo", "Göttingen"]


def sentences(seed: int, count: int) -> str:
    """Who stands at the beginning is a person, what follows "in" a place."""
    random = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        name, place = random.choice(NAMES), random.choice(PLACES)
        tags = ["B-PER", "O", "O", "B-LOC", "O"]
        rows.append(json.dumps({"tokens": [name, "lives", "in", place, "."], "tags": tags}, ensure_ascii=False))
    return "\n".join(rows) + "\n"


@pytest.fixture(scope="module")
def tuned(checkpoint, tmp_path_factory):
    data = tmp_path_factory.mktemp("tags")
    for seed, (name, count) in enumerate({"train": 96, "dev": 20, "test": 9}.items()):
        (data / f"{name}.jsonl").write_text(sentences(seed, count), encoding="utf-8")
    directory = tmp_path_factory.mktemp("tuned") / "work"
    config = Finetune("ner", str(data), epochs=6.0, learning_rate=3e-2, batch=16, length=24, workdir=str(directory))
    return data, directory, finetune(checkpoint, config)


def test_entities_are_learned_and_what_is_written_has_the_scores(tuned):
    data, directory, result = tuned
    [row] = result["rows"]
    assert row["main"] == "f1" and row["scores"]["f1"] > 0.9, row["scores"]
    assert {"precision", "recall", "accuracy", "f1_LOC", "f1_PER", "test/f1", "cut"} < set(row["scores"])
    lines = (directory / row["predictions"] / "dev.txt").read_text().splitlines()
    words, gold, said = zip(*(line.split(" ") for line in lines if line), strict=True)
    assert list(words[:5]) == read_bio(data / "dev.jsonl").sentences[0].words and lines.count("") == 19
    sentence_of = np.array_split(np.arange(100), 20)
    tags = [[[part[i] for i in one] for one in sentence_of] for part in (gold, said)]
    assert entity_scores(*tags)["f1"] == row["scores"]["f1"]


def test_a_loaded_and_an_exported_model_tag_a_text(tuned, tmp_path):
    _, _, result = tuned
    model = jaxmlm.load(result["model"])
    text = "  Grace lives in Göttingen."
    spans = model.tag(text)
    assert [one[:4] for one in spans] == [("Grace", "PER", 2, 7), ("Göttingen", "LOC", 17, 26)]
    assert all(text[one.begin : one.end] == one.text and 0.3 < one.probability <= 1 for one in spans)
    assert model.tag(" ") == []
    jaxmlm.export(result["model"], tmp_path / "out")
    again = jaxmlm.load(tmp_path / "out")
    assert again.labels == model.labels == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
    for one, other in zip(again.tag(text), spans, strict=True):
        assert one[:4] == other[:4] and one.probability == pytest.approx(other.probability, abs=1e-5)
    assert "pipeline_tag: token-classification" in (tmp_path / "out" / "README.md").read_text()
    with pytest.raises(InputError, match="fill_mask needs a model of kind 'mlm', and this one is 'tokens'"):
        model.fill_mask("a [MASK]")


def test_two_are_compared_by_the_f1_of_resampled_sentences(tuned):
    _, directory, result = tuned
    found = compare(directory, directory)
    assert found["a"] == pytest.approx(result["rows"][0]["scores"]["f1"]) and found["difference"] == 0.0
    assert list(found["by_score"]) == ["f1"] and found["dev_rows"] == 20
    assert [line.split(":")[0] for line in say_comparison(found)] == ["ner, f1", "seeds"]


@pytest.mark.parametrize("name", ["words.txt", "words.jsonl", "words.conllu"])
def test_words_of_a_file_are_tagged_as_those_of_dev_were(tuned, checkpoint, tmp_path, name):
    data, directory, result = tuned
    dev = [sentence.words for sentence in read_bio(data / "dev.jsonl").sentences]
    conllu = [
        "\t".join([str(n), word, *"_" * 4, str(n - 1), "dep", "_", "_"])
        for words in dev
        for n, word in enumerate(words, 1)
    ]
    contents = {
        "words.txt": "\n\n".join("\n".join(words) for words in dev),
        "words.jsonl": "\n".join(json.dumps({"tokens": words}) for words in dev),
        "words.conllu": "\n\n".join("\n".join(conllu[at : at + 5]) for at in range(0, len(conllu), 5)) + "\n\n",
    }
    (tmp_path / name).write_text(contents[name], encoding="utf-8")
    config = Finetune("ner", str(data), epochs=6.0, learning_rate=3e-2, batch=16, length=24, workdir=str(directory))
    found = finetune(checkpoint, replace(config, predict=str(tmp_path / name)))
    assert found["predicted"] == [str(directory / "predicted" / "words.tsv")]
    [row] = result["rows"]
    of_dev = (directory / row["predictions"] / "dev.txt").read_text().splitlines()
    wanted = ["\t".join(line.split(" ")[::2]) for line in of_dev]
    assert (directory / "predicted" / "words.tsv").read_text().splitlines() == wanted
    assert len(read_bio(directory / "predicted" / "words.tsv").sentences) == 20


def test_a_file_without_words_is_refused_before_anything_is_trained(tuned, checkpoint, tmp_path):
    (tmp_path / "empty.txt").write_text("\n\n")
    config = Finetune("ner", str(tuned[0]), workdir=str(tmp_path / "w"), predict=str(tmp_path / "empty.txt"))
    with pytest.raises(InputError, match=r"empty.txt: no words: expected a word on each line, or JSON lines of tokens"):
        finetune(checkpoint, config)
    assert not (tmp_path / "w").exists()
