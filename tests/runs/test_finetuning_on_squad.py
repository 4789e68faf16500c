"""SQuAD through the command's function: notes, official scores of what was written, models, comparison."""

import json
from dataclasses import replace

import pytest

import jaxmlm
from jaxmlm.errors import InputError
from jaxmlm.runs import Finetune, finetune
from jaxmlm.runs.comparison import compare, say_comparison
from jaxmlm.tasks import squad
from jaxmlm.tasks.downstream import directory_of


def test_squad2_through_the_command(checkpoint, tmp_path):
    """On another training file, said in the notes; what it wrote gives the official scores that it said."""
    files = {"train-v1.1.json": "train-v1.1.json", "dev-v1.1.json": "dev-v2.0.json"}
    for theirs, ours in files.items():
        content = json.loads((directory_of("sample:") / "squad" / theirs).read_text())
        del content["data"][0]["paragraphs"][12:], content["data"][1:]
        for paragraph in content["data"][0]["paragraphs"][::2] if ours == "dev-v2.0.json" else []:
            for qa in paragraph["qas"]:
                qa["answers"] = []
        (tmp_path / ours).write_text(json.dumps(content))
    config = Finetune("squad2", str(tmp_path), epochs=1.0, batch=24, length=32, stride=8, limit=10)
    with pytest.raises(InputError, match="train-v2.0.json is missing: squad2 needs .*; --train FILE takes another one"):
        finetune(checkpoint, config)
    config = replace(config, train="train-v1.1.json", workdir=str(tmp_path / "work"))
    (row,) = finetune(checkpoint, config)["rows"]
    assert row["main"] == "best_f1" and row["notes"][2] == "train: 10 of 12 questions (limit)"
    assert [note.split(",")[0] for note in row["notes"][:2]] == ["train: train-v1.1.json", "dev: dev-v2.0.json"]
    directory = tmp_path / "work" / row["predictions"]
    spans, odds, said = (
        squad.read_answers(directory / f"{name}.json", kind)
        for name, kind in (("best_spans", str), ("null_odds", float), ("predictions", str))
    )
    data = squad.read(tmp_path / "dev-v2.0.json", unanswerable=True)
    scores, official = row["scores"], squad.evaluate(data, spans, odds, threshold=0.0)
    for name in ("exact", "f1", "HasAns_f1", "NoAns_exact", "best_f1"):
        assert 100 * scores[name] == pytest.approx(official[name])
    assert squad.evaluate(data, said)["f1"] == pytest.approx(official["f1"])
    assert len(json.loads((directory / "nbest_predictions.json").read_text())) == len(data.questions)
    model = jaxmlm.load(tmp_path / "work" / "model")
    jaxmlm.export(tmp_path / "work" / "model", tmp_path / "out")
    asked = ("who runs?", data.paragraphs[0][:60])
    assert model.kind == "answer" and jaxmlm.load(tmp_path / "out").answer(*asked)[:3] == model.answer(*asked)[:3]
    assert "question-answering" in (tmp_path / "out" / "README.md").read_text()
    # Question by question: the means are the scores, and a checkpoint beside itself is no better.
    found = compare(tmp_path / "work", tmp_path / "work")
    assert list(found["by_score"]) == ["best_f1", "best_exact"] and found["dev_rows"] == len(data.questions)
    for name, one in found["by_score"].items():
        assert one["a"] == pytest.approx(scores[name]) and (one["difference"], one["p"]) == (0.0, 1.0)
    assert [line.split(":")[0] for line in say_comparison(found)] == ["squad2, best_f1", "squad2, best_exact", "seeds"]
