"""Recipes by name, what flags ask for, and the paired bootstrap: what needs no model."""

from dataclasses import replace

import numpy as np
import pytest

from jaxmlm.cli import main
from jaxmlm.errors import InputError
from jaxmlm.runs.comparison import paired_bootstrap, say_average, summarise
from jaxmlm.runs.finetune_config import Finetune, settings
from jaxmlm.runs.finetuning import _intermediate
from jaxmlm.runs.recipes import RECIPES, Selection, recipe, selected
from jaxmlm.tasks import glue
from jaxmlm.tasks.metrics import METRICS


def test_the_bootstrap_has_the_error_that_theory_gives():
    """Of accuracy: the standard error of a mean of differences. The same predictions differ by nothing, p = 1."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 1000)
    a, b = (np.where(random.random(1000) < share, labels, 1 - labels) for share in (0.80, 0.76))
    found = paired_bootstrap(METRICS["accuracy"], labels, [a], [b])
    apart = (a == labels).astype(float) - (b == labels)
    assert found["difference"] == pytest.approx(apart.mean())
    error = apart.std() / np.sqrt(1000)
    assert found["half"] == pytest.approx(1.96 * error, rel=0.06)
    from scipy import stats

    assert found["p"] == pytest.approx(2 * stats.norm.sf(abs(apart.mean()) / error), abs=0.02)
    same = paired_bootstrap(METRICS["accuracy"], labels, [a], [a])
    assert (same["difference"], same["p"]) == (0.0, 1.0)


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_have_every_task_and_a_source(name, tmp_path):
    of_squad = set(RECIPES[name].tasks) == {"squad", "squad2"} and not RECIPES[name].usual
    for task in ("squad", "squad2") if of_squad else set(glue.TASKS) - {"wnli"}:
        found = recipe(name, task, str(tmp_path))
        assert found.recipe == name and all(point.point.learning_rate <= 1e-4 for point in found.grid)
    assert (recipe("roberta", "rte", "x").intermediate_task, recipe("roberta", "rte").intermediate_task) == (
        "mnli",
        None,
    )
    assert "http" not in RECIPES[name].source and len(RECIPES[name].source) > 40


def test_all_of_glue_is_nine_tasks_each_with_its_own_recipe():
    every = selected(Selection("glue", workdir="w"))
    assert every == [Finetune(task, workdir=f"w/{task}") for task in glue.TASKS]
    covered = selected(Selection("glue", "mosaicbert", "w"))
    assert [one.task for one in covered] == [task for task in glue.TASKS if task != "wnli"]
    with pytest.raises(InputError, match="the recipe roberta has no setting for squad; these have: paper, bert"):
        selected(Selection("squad", "roberta"))
    with pytest.raises(InputError, match="the recipe bert has no setting for cola"):
        selected(Selection("glue", "bert"))
    both = selected(Selection("mnli,rte", "mosaicbert", "w"))
    assert [(one.task, one.epochs, one.intermediate_task) for one in both] == [
        ("mnli", 3.0, None),
        ("rte", 3.0, "mnli"),
    ]


def test_a_file_with_a_comma_in_its_name_is_one_task(tmp_path):
    table = tmp_path / "rte,mrpc.csv"
    table.write_text("text,label\ngood,1\n")
    [one] = selected(Selection(str(table), workdir="w"))
    assert one.workdir == "w"


def test_an_empty_directory_is_refused_for_several_tasks_too():
    for task in ("rte", "rte,mrpc"):
        with pytest.raises(InputError, match="workdir is empty"):
            selected(Selection(task, workdir=""))


@pytest.mark.parametrize("flags", [["--task", "rte,mrpc"], ["--batch", "8", "--task=rte,mrpc"]])
def test_options_of_a_command_reach_each_of_its_tasks(monkeypatch, flags):
    asked = []
    monkeypatch.setattr("jaxmlm.runs.suite.finetune_all", lambda target, configs: asked.extend(configs) or {})
    more = ["--recipe", "mosaicbert", "--learning-rate", "1e-3", "2e-3", "--workdir", "w"]
    assert main(["finetune", "run", *flags, *more]) == 0
    batches = (8, 8) if "--batch" in flags else (16, 32)
    assert asked == [
        replace(recipe("mosaicbert", task, f"w/{task}"), learning_rate=(1e-3, 2e-3), batch=batch)
        for task, batch in zip(("rte", "mrpc"), batches, strict=True)
    ]


def test_an_option_without_its_value_is_one_line(capsys):
    assert main(["finetune", "run", "--task"]) == 2
    assert capsys.readouterr().err == "jaxmlm: --task needs a value: write --task VALUE\n"


def test_recipes_for_squad():
    assert recipe("spanbert", "squad2").point == (2e-5, 32, 4.0) and recipe("spanbert", "squad").length == 512
    assert recipe("paper", "squad").point == recipe("run_qa", "squad").point == recipe("bert", "squad").point
    with pytest.raises(InputError, match="the recipe bert has no setting for cola; these have: paper, roberta"):
        recipe("bert", "cola")


def test_what_is_learned_first_goes_by_what_was_given():
    plain = Finetune(
        "mrpc",
        learning_rate=(1e-3, 3e-2),
        intermediate_task="mnli",
        predict="p.csv",
        regression=True,
        seeds=(0, 1),
        workdir="w",
    )
    first = _intermediate(plain)
    assert (first.task, first.intermediate_task, first.predict, first.regression) == ("mnli", None, None, False)
    assert (first.learning_rate, first.seeds) == (1e-3, (0,))  # one point: the first
    with_recipe = replace(recipe("mosaicbert", "rte", "w"), length=128)
    first = _intermediate(with_recipe)
    assert (first.length, first.learning_rate, first.epochs, first.batch) == (128, 5e-5, 3.0, 48)


def test_a_run_that_diverges_is_counted_and_does_not_end_the_grid():
    rows = [
        {"settings": settings(Finetune()), "scores": scores, "main": "accuracy", "degenerate": not scores,
         "notes": [], "select": "last"}
        for scores in ({"accuracy": 0.5}, {})
    ]  # fmt: skip
    [one] = summarise(rows)["summary"]
    assert (one["n"], one["degenerate"], one["mean"], one["sd"]) == (2, 1, 0.5, None)


@pytest.mark.parametrize(
    ("task", "twin"),
    [("rte", True), ("squad", True), ("squad2", False), ("mnli", False), ("glue", True), ("rte,mrpc", True)],
)
def test_a_task_of_others_needs_its_data(tmp_path, monkeypatch, capsys, task, twin):
    """The generated one is asked for by name."""
    monkeypatch.chdir(tmp_path)
    assert main(["finetune", "run", "--task", task]) == 2
    error = capsys.readouterr().err
    assert "needs its data: give --data DIRECTORY with the official files" in error and error.count("\n") == 1
    assert ("--data sample: for a generated task" in error) == twin and not list(tmp_path.iterdir())


def test_an_average_of_generated_tasks_is_called_so():
    average = {
        "tasks": {"rte": {"score": 0.5, "sd": None, "n": 1, "degenerate": 0, "accuracy": 0.5, "generated": True}}
    }
    lines = list(say_average({**average, "average": 0.5, "notes": []}))
    assert lines[1].startswith("rte (generated)   50.0") and "tasks of GLUE (generated): 50.0" in lines[2]


def test_flags_win_over_a_recipe(capsys):
    assert selected(Selection("rte")) == [Finetune("rte")]
    [given] = selected(Selection("rte", "mosaicbert", "w"))
    assert (given.learning_rate, given.weight_decay, given.intermediate_task) == (1e-5, 1.0, "mnli")
    assert main(["finetune", "run", "--recipe", "robert", "--task", "rte"]) == 2
    assert "no recipe 'robert'; did you mean roberta?" in capsys.readouterr().err
