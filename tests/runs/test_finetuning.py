"""Fine-tuning through the command's function: grids, what is found again, models, comparisons, recipes, bad input."""

import json
import os
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxmlm
from jaxmlm import answers
from jaxmlm.cli import main
from jaxmlm.data import Data, SentencePieceTokenizer
from jaxmlm.data.opening import open_store
from jaxmlm.errors import Diverged, InputError
from jaxmlm.json_files import read_jsonl, without_checksum
from jaxmlm.runs import Finetune, finetune
from jaxmlm.runs.comparison import compare, say
from jaxmlm.runs.finetuning import make_task
from jaxmlm.runs.loading import load
from jaxmlm.runs.results import read_results
from jaxmlm.synthetic import world
from jaxmlm.tasks.downstream import TaskData, directory_of, examples_of
from jaxmlm.tasks.registry import TableTask
from jaxmlm.training.checkpoint import _sha256

GRID = Finetune(
    "rte",
    data="sample:",
    learning_rate=(1e-3, 3e-2),
    epochs=2.0,
    batch=24,
    length=24,
    limit=40,
    seeds=(0, 1),
    select="best",
)


@pytest.fixture(scope="module")
def grid(checkpoint, tmp_path_factory):
    config = replace(GRID, workdir=str(tmp_path_factory.mktemp("tuned") / "rte"))
    return config, finetune(checkpoint, config)


def test_a_grid_is_summed_up(grid):
    config, result = grid
    rows = result["rows"]
    assert [(json.loads(row["settings"])["learning_rate"], row["tuning_seed"]) for row in rows] == [
        (1e-3, 0), (1e-3, 1), (3e-2, 0), (3e-2, 1),
    ]  # fmt: skip
    for one in result["summary"]:
        values = [row["scores"]["accuracy"] for row in rows if row["settings"] == one["settings"]]
        assert one["mean"] == pytest.approx(np.mean(values)) and one["sd"] == pytest.approx(np.std(values, ddof=1))
        assert (one["median"], one["best"], one["n"]) == (pytest.approx(np.median(values)), max(values), 2)
    assert result["summary"][0]["mean"] >= result["summary"][1]["mean"]
    assert any("the best of each run's epochs on dev" in line for line in say(result))
    generated, limited = result["notes"]
    assert generated.startswith("generated data in the format of RTE") and limited == "train: 40 of 1,200 rows (limit)"


def test_a_signal_keeps_what_is_done_and_the_grid_goes_on(grid, checkpoint, tmp_path, monkeypatch, capsys):
    config, whole = grid
    made = []

    def signals(*of):
        made.append(of[1:])
        if len(made) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return make_task(*of)

    monkeypatch.setattr(sys.modules[make_task.__module__], "make_task", signals)
    monkeypatch.setattr("jaxmlm.runs.recipes.selected", lambda asked: [replace(config, workdir=asked.workdir)])
    command = ["finetune", checkpoint, "--workdir", str(tmp_path / "rte")]
    assert main(command) == 75
    assert capsys.readouterr().err.splitlines()[-1] == (
        "jaxmlm: stopped by a signal before the first step: run the same command again"
    )
    assert len(read_jsonl(tmp_path / "rte" / "results.jsonl")) == 2 and len(made) == 3
    assert main(command) == 0 and len(made) == 5

    def scores(rows):
        return [{**row["scores"], "by_step": row["by_step"]} for row in rows]

    assert scores(read_jsonl(tmp_path / "rte" / "results.jsonl")) == scores(whole["rows"])
    best, same = (load(directory / "model").model for directory in (Path(config.workdir), tmp_path / "rte"))
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(best), jax.tree.leaves(same), strict=True))


def test_the_best_epoch_is_kept(grid):
    """Its score, its model and its predictions, whichever epoch it was."""
    config, result = grid
    for row in result["rows"]:
        assert list(row["by_step"]) == ["2", "4"]  # 40 rows are 2 steps of 24
        assert row["scores"]["accuracy"] == max(row["by_step"].values()) == row["by_step"][str(row["chosen_step"])]
        lines = (Path(config.workdir) / row["predictions"] / "dev.tsv").read_text().splitlines()[1:]
        said, truth = zip(*(line.split("\t")[1:] for line in lines), strict=True)
        assert len(lines) == 400
        assert row["scores"]["accuracy"] == np.mean(np.array(said) == np.array(truth))
        assert row["degenerate"] == (len(set(said)) == 1)


def test_the_best_model_is_a_checkpoint(grid):
    """It loads, says the labels by name, and says what its predictions say."""
    config, result = grid
    best = max(result["rows"], key=lambda row: row["scores"]["accuracy"])
    model = jaxmlm.load(result["model"])
    assert (model.kind, model.labels) == ("classify", ("entailment", "not_entailment"))
    dev = examples_of(config.downstream, config.task_data).evaluated["dev"]
    lines = (Path(config.workdir) / best["predictions"] / "dev.tsv").read_text().splitlines()[1:]
    given = list(zip(*dev.texts, strict=True))[:8]
    if max(len(model._pair(pair)[0]) for pair in given) <= 24:  # else it was cut
        said = [max(shares, key=shares.__getitem__) for shares in model.classify(given)]
        assert said == [line.split("\t")[1] for line in lines[:8]]


def test_the_best_model_is_exported(grid, tmp_path):
    """The directory of the transformers format says what the checkpoint says (logit by logit: tests/parity)."""
    _, result = grid
    jaxmlm.export(result["model"], tmp_path / "out")
    pairs = [("the fox sees the hen", "the hen sees the fox"), ("a red owl", "an owl")]
    ours, theirs = (jaxmlm.load(directory).classify(pairs) for directory in (result["model"], tmp_path / "out"))
    for a, b in zip(ours, theirs, strict=True):
        assert list(a) == list(b) == ["entailment", "not_entailment"] and a == pytest.approx(b, abs=1e-6)
    assert "text-classification" in (tmp_path / "out" / "README.md").read_text()


def test_a_classifier_reads_the_first_token_or_the_mean(checkpoint, tmp_path):
    """As it is asked, whatever the encoder was configured with; a mean has no BERT or RoBERTa to be exported as."""
    scores = {}
    for pool in ("first", "mean"):
        asked = replace(GRID, learning_rate=1e-3, seeds=(0,), pool=pool, workdir=str(tmp_path / pool))
        result = finetune(checkpoint, asked)
        model = load(result["model"])
        assert model.config.pool == model.encoder.config.pool == pool
        assert f'"pool": "{pool}"' in result["rows"][0]["settings"]
        scores[pool] = result["rows"][0]["scores"]["train_loss"]
    assert scores["first"] != scores["mean"]
    with pytest.raises(InputError, match="this encoder has model.pool mean: fine-tune with --pool first to export"):
        jaxmlm.export(tmp_path / "mean" / "model", tmp_path / "out")
    jaxmlm.export(tmp_path / "first" / "model", tmp_path / "out")


def test_rows_without_labels_are_predicted(checkpoint, grid, tmp_path, capsys):
    """By the best model of a grid that is done already; a file with labels in it does as well."""
    config, result = grid
    path = tmp_path / "new.csv"
    path.write_text('id,sentence2,sentence1\nx7,"a hen, red",the hen is red\nx9,the owl ran,the owl slept\n')
    found = finetune(checkpoint, replace(config, predict=str(path)))
    assert found["rows"] == result["rows"] and f"predicted: {found['predicted'][0]}" in list(say(found))
    lines = [line.split("\t") for line in Path(found["predicted"][0]).read_text().splitlines()]
    shares = jaxmlm.load(result["model"]).classify([("the hen is red", "a hen, red"), ("the owl slept", "the owl ran")])
    said = [max(one, key=one.__getitem__) for one in shares]
    assert lines == [["index", "prediction"], ["x7", said[0]], ["x9", said[1]]]
    path.write_text("sentence1\nthe hen is red\n")
    with pytest.raises(InputError, match=r"new.csv:1: no column 'sentence2'; there are: sentence1"):
        finetune(checkpoint, replace(config, predict=str(path)))


@pytest.mark.slow("fine-tunes several times")
def test_several_tasks_and_their_average(checkpoint, tmp_path, capsys):
    words = ["--data", "sample:", "--length", "24", "--epochs", "1", "--batch", "24", "--limit", "24"]
    words += ["--seeds", "0", "1"]
    assert main(["finetune", checkpoint, "--task", "rte,cola", *words, "--workdir", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    scores = {"rte": "accuracy", "cola": "matthews"}
    for task, name in scores.items():
        rows = read_results(tmp_path / task / "results.jsonl")
        assert [row for row in found["rows"] if row["task"] == task] == rows and len(rows) == 2
        assert found["tasks"][task]["score"] == pytest.approx(np.mean([row["scores"][name] for row in rows]))
    assert found["average"] == pytest.approx(np.mean([one["score"] for one in found["tasks"].values()]))
    assert found["notes"][-1] == "the average is partial: without sst2, mrpc, stsb, qqp, mnli, qnli, wnli"
    # What is wrong with the last task is said before the first one is learned; of a table, nothing is averaged.
    assert main(["finetune", checkpoint, "--task", "glue", *words]) == 2
    assert "data is 'sample:' for sst2: sample: alone is generated data, of cola, rte, squad" in capsys.readouterr().err
    assert main(["finetune", checkpoint, "--task", "rte,squad", *words]) == 2
    assert "squad is not a task of GLUE" in capsys.readouterr().err


def test_a_task_that_starts_from_another_of_the_call_goes_on_from_its_model(checkpoint, tmp_path, capsys):
    words = ["--length", "24", "--epochs", "1", "--batch", "24", "--limit", "24", "--learning-rate", "1e-3"]
    words += ["--data", "sample:", "--workdir", str(tmp_path), "--json"]
    assert main(["finetune", checkpoint, "--task", "cola,rte", "--intermediate-task", "rte", *words]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(found["tasks"]) == ["cola", "rte"] and not (tmp_path / "cola" / "rte").exists()
    first = json.loads((tmp_path / "cola" / "finetune.json").read_text())["identity"]["checkpoint"]
    assert first == str(tmp_path / "rte" / "model")


def test_a_killed_grid_goes_on_and_a_finished_one_is_read(checkpoint, grid):
    config, result = grid
    path = Path(config.workdir) / "results.jsonl"
    whole = path.read_text()
    assert finetune(checkpoint, config)["rows"] == result["rows"] and path.read_text() == whole
    path.write_text(whole[: whole.rindex("\n", 0, -1) + 40])  # a kill in the last line
    again = finetune(checkpoint, config)
    assert [row["scores"] for row in again["rows"]] == [row["scores"] for row in result["rows"]]
    assert len(read_jsonl(path)) == 4


def test_results_of_other_weights_or_data_are_not_taken_for_these(checkpoint, grid, tmp_path):
    """The best of a directory is the best of runs that can be compared; a checkpoint trained on is another one."""
    config, _ = grid
    moved = tmp_path / "moved"
    shutil.copytree(checkpoint, moved)
    own = replace(config, seeds=(0,), learning_rate=1e-3, select="last", epochs=0.5, workdir=str(tmp_path / "tuned"))
    finetune(str(moved), own)
    for other, what in (
        (replace(own, data=str(directory_of("sample:"))), "data"),
        (replace(own, intermediate_task="cola"), "intermediate_task"),
    ):
        with pytest.raises(InputError, match=f"holds another finetune: {what} is"):
            finetune(str(moved), replace(other, workdir=own.workdir))
    sums = next((moved / "checkpoints").glob("*/checksums/metadata"))
    checked = json.loads(sums.read_text())
    del checked["sha256"]
    checked["model"][0] += 1
    sums.write_text(json.dumps({**checked, "sha256": _sha256(checked)}))
    with pytest.raises(InputError, match="holds another finetune: weights is"):
        finetune(str(moved), own)


def test_results_of_other_examples_in_the_same_file_are_not_taken_for_these(checkpoint, tmp_path):
    """Predictions would have the names of another file's classes."""
    file = tmp_path / "own.csv"
    config = Finetune(str(file), epochs=1.0, batch=20, length=16, workdir=str(tmp_path / "tuned"))
    rows = [f"a fox {i} runs,{'ab'[i % 2]}" for i in range(60)]
    for others in (
        rows,
        [f"{row[:-1]}{'bca'[i % 3]}" for i, row in enumerate(rows)],
        [row[:-1] + "b" for row in rows[:-1]],
    ):
        file.write_text("\n".join(["text,label", *others, "an owl,a"]))
        if others is rows:
            first = finetune(checkpoint, config)
            assert finetune(checkpoint, config)["rows"] == first["rows"]
            continue
        with pytest.raises(InputError, match="holds a fine-tuning on other examples of .* than its files have now"):
            finetune(checkpoint, replace(config, seeds=(0, 1)))
    with pytest.raises(InputError, match="the training rows are those of .*own.csv: leave out --train"):
        finetune(checkpoint, replace(config, train="other.csv", workdir=None))


def test_a_diverged_run_is_a_line_that_is_found_again(checkpoint, tmp_path, monkeypatch):
    config = replace(GRID, seeds=(0,), learning_rate=1e-3, workdir=str(tmp_path))

    def diverges(*_: object, **__: object) -> None:
        raise Diverged("step 1: not finite: the loss")

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["jaxmlm.runs.finetuning"], "train", diverges)
        first = finetune(checkpoint, config)
    assert first["rows"][0]["scores"] == {} and "model" not in first
    assert finetune(checkpoint, config)["rows"] == first["rows"]
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["jaxmlm.runs.finetuning"], "train", diverges)
        with pytest.raises(InputError, match="every run of the intermediate task rte diverged"):
            finetune(checkpoint, replace(config, task="cola", intermediate_task="rte", workdir=str(tmp_path / "cola")))


def test_a_grid_shares_what_is_compiled(checkpoint):
    """After the first epoch of the first point no other compiles a step, and every seed gives the same again."""
    compiled: list[str] = []
    counting = {"on": True}

    def heard(name: str, seconds: float, **_: object) -> None:
        if counting["on"] and "backend_compile" in name:
            compiled.append(name)

    config = replace(GRID, learning_rate=1e-3, seeds=(0,), select="last", epochs=3.0)
    jax.monitoring.register_event_duration_secs_listener(heard)
    try:
        first = finetune(checkpoint, config)
        assert compiled
        compiled.clear()
        for seed, rate in ((0, 1e-3), (5, 1e-3), (0, 3e-2)):
            again = finetune(checkpoint, replace(config, seeds=(seed,), learning_rate=rate))
            assert (again["rows"][0]["scores"] == first["rows"][0]["scores"]) == (seed == 0 and rate == 1e-3)
    finally:
        counting["on"] = False
    # Reading a checkpoint and making a model compile a few small programs again; no step, no prediction.
    assert len(compiled) <= 12, compiled


@pytest.mark.slow("fine-tunes twice")
def test_two_stages_go_on_from_the_first_ones_model(checkpoint, tmp_path, capsys):
    config = replace(GRID, task="cola", learning_rate=1e-3, seeds=(0,), select="last", intermediate_task="rte",
                     workdir=str(tmp_path / "cola"))  # fmt: skip
    staged = finetune(checkpoint, config)
    direct = finetune(str(tmp_path / "cola" / "rte" / "model"), replace(config, intermediate_task=None, workdir=None))
    alone = finetune(checkpoint, replace(config, intermediate_task=None, workdir=None))
    assert "nothing is kept: --workdir DIRECTORY" in capsys.readouterr().err
    assert staged["rows"][0]["scores"] == direct["rows"][0]["scores"] != alone["rows"][0]["scores"]


def test_numbers_of_ones_own_and_their_model(checkpoint, tmp_path):
    """The command reads a CSV; the model it leaves gives the numbers of its predictions."""
    path = tmp_path / "my.csv"
    path.write_text("text,label\n" + "".join(f"word {'old ' * (i % 7)}{i},{100 + i % 7}.5\n" for i in range(120)))
    words = ["finetune", checkpoint, "--task", str(path), "--length", "24", "--epochs", "1", "--batch", "24"]
    assert main([*words, "--workdir", str(tmp_path / "out"), "--learning-rate", "1e-3"]) == 0
    [row] = read_jsonl(tmp_path / "out" / "results.jsonl")
    assert row["main"] == "spearman" and "by a hash of their texts" in row["notes"][0]
    lines = (tmp_path / "out" / row["predictions"] / "dev.tsv").read_text().splitlines()[1:]
    texts = TableTask(str(path)).read(TaskData()).evaluated["dev"].texts[0]
    model = jaxmlm.load(tmp_path / "out" / "model")
    numbers = [one["label"] for one in model.classify(texts[:4])]
    np.testing.assert_allclose(numbers, [float(line.split("\t")[1]) for line in lines[:4]], rtol=1e-4)
    assert all(80 < number < 130 for number in numbers)


def test_two_checkpoints_are_compared_on_the_same_rows(checkpoint, grid, tmp_path, capsys):
    config, result = grid
    assert main(["compare", config.workdir, config.workdir]) == 0
    assert capsys.readouterr().out.startswith("rte (generated), accuracy: ")
    found = compare(config.workdir, config.workdir)
    assert (found["difference"], found["p"], found["dev_rows"]) == (0.0, 1.0, 400)
    other = tmp_path / "other"
    for row in result["rows"]:
        (other / row["predictions"]).mkdir(parents=True)
        text = (Path(config.workdir) / row["predictions"] / "dev.tsv").read_text()
        (other / row["predictions"] / "dev.tsv").write_text(text.replace("\n7\t", "\nseven\t"))
    (other / "results.jsonl").write_text((Path(config.workdir) / "results.jsonl").read_text())
    with pytest.raises(InputError, match="were evaluated on different rows: '7' here is 'seven' there"):
        compare(config.workdir, other)
    with pytest.raises(InputError, match="has no predictions of a fine-tuning"):
        compare(config.workdir, tmp_path)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--task", "rte", "--test"], "test needs a directory for models: give --workdir DIRECTORY"),
        (["--task", "rte", "--predict", "x.csv"], "predict needs a directory for models: give --workdir DIRECTORY"),
        (["--task", "squad", "--predict", "x.csv", "--workdir", "w"], "predict takes sentences, not squad"),
        (["--task", "rte", "--predict", "x.csv", "--workdir", "w"], "x.csv is missing"),
        (["--task", "rte", "--data", "tfds:glue"], "data is 'tfds:glue': write tfds: alone"),
        (["--task", "squad", "--data", "tfds:", "--dev", "x.json"], "train and dev name files, and data is tfds:"),
        (
            ["--task", "rte", "--intermediate-task", "mnlii", "--workdir", "w"],
            "intermediate_task: no task 'mnlii'; did you mean mnli?",
        ),
        (["--task", "no.csv"], "no.csv is missing"),
        (["--task", "rte", "--batch", "0"], "batch is 0: it must be an integer of at least 1"),
        (["--task", "rte", "--batch", "9"], "batch size 9 is not divisible by 2 devices"),
        (["--task", "rte", "--learning-rate", "0"], "learning_rate is 0: it must be above 0"),
        (["--task", "rte", "--length", "64"], "length 64 is above the 32 positions"),
        (["--task", "sst2"], "data is 'sample:' for sst2: sample: alone is generated data, of cola, rte, squad; give"),
        (["--task", "squad2"], "data is 'sample:' for squad2: sample: alone is generated data, of cola, rte, squad; "),
        (["--task", "rte", "--data", "sample:100"], "data is 'sample:100' for rte: sample: alone is generated data"),
        (["--task", "rte", "--train", "train_10.tsv"], "train_10.tsv is missing: RTE needs train.tsv and dev.tsv"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(checkpoint, tmp_path, monkeypatch, capsys, flags, message):
    monkeypatch.chdir(tmp_path)
    data = [] if "--data" in flags else ["--data", "sample:"]
    assert main(["finetune", checkpoint, *flags, *data]) == 2
    assert message in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_scores_of_generated_data_are_called_so(checkpoint, grid, tmp_path, capsys):
    """In the lines that are printed, the results, the note, the average and the model card."""
    config, result = grid
    assert all(row["generated"] for row in result["rows"])
    answers.say({**result, "rows": result["rows"][:1]})
    said = capsys.readouterr().out
    assert said.startswith("finetune rte (generated) seed 0: accuracy ") and "note: generated data in the" in said
    jaxmlm.export(Path(config.workdir) / "model", tmp_path / "out")
    assert "ine-tuned on rte (generated) with jaxmlm" in (tmp_path / "out" / "README.md").read_text()


def test_a_folder_of_another_checkpoint_is_refused(checkpoint, grid, tmp_path):
    config, _ = grid
    with pytest.raises(InputError, match="holds another finetune: task is 'rte' there and 'cola' here"):
        finetune(checkpoint, replace(config, task="cola"))
    assert directory_of("sample:").is_dir() and not list(tmp_path.iterdir())


def test_a_checkpoint_with_the_tokenizer_of_another_is_refused(checkpoint, tmp_path, capsys):
    """Also one of as many pieces: the run says which file it learned with. And so is a store of other pieces."""
    other = tmp_path / "other"
    shutil.copytree(checkpoint, other)
    for seed, pieces in ((0, 300), (1, 400)):
        made = SentencePieceTokenizer.train(list(world.documents(seed, 200)), pieces)
        made.save(other)
        assert main(["finetune", str(other), "--task", "rte", "--data", "sample:", "--length", "24"]) == 2
        error = capsys.readouterr().err
        assert f"({pieces} pieces) is not the one of this model (400)" in error and error.count("\n") == 1
    shutil.copy(Path(checkpoint) / "tokenizer.model", other)
    about = without_checksum(json.loads((other / "run.json").read_text()), "run.json")
    about["config"]["data"]["store"] = str(tmp_path / "store")
    (other / "run.json").write_text(json.dumps(about))
    open_store(Data("sample:200", vocab=300, length=24, valid=0.1), tmp_path)
    assert main(["evaluate", str(other), "--text", "heldout:"]) == 2
    assert "has another vocabulary (300 pieces) than the model" in capsys.readouterr().err
