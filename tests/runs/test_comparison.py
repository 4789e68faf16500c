"""Two fine-tunings are compared by what their predictions say, whatever the labels are called."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from jaxmlm.errors import InputError
from jaxmlm.runs import Finetune
from jaxmlm.runs.comparison import compare
from jaxmlm.runs.finetune_config import settings
from jaxmlm.runs.results import Result
from jaxmlm.runs.workdir import append_results, write_metadata
from jaxmlm.tasks.metrics import METRICS

SCORE = METRICS["f1"]
TRUTH = [0, 1, 1, 0, 1, 1, 0, 1]
SAID = {"one": [0, 1, 1, 1, 1, 0, 0, 1], "other": [1, 1, 0, 1, 1, 0, 0, 1]}


def write(tmp_path, names):
    """Two fine-tunings on the same rows."""
    for which, classes in SAID.items():
        directory = tmp_path / which
        (directory / "predictions").mkdir(parents=True)
        rows = [f"{i}\t{names[a]}\t{names[b]}" for i, (a, b) in enumerate(zip(classes, TRUTH, strict=True))]
        (directory / "predictions" / "dev.tsv").write_text("\n".join(["index\tsaid\tlabel", *rows, ""]))
        scores = {"f1": SCORE(np.array(TRUTH), np.array(classes))}
        result = Result("finetune", "mrpc", 0, "f1", scores, settings=settings(Finetune("mrpc")))
        append_results(
            directory / "results.jsonl",
            [replace(result, predictions="predictions", degenerate=False, notes=["none"], select="last").to_json()],
        )
        write_metadata(directory / "model", "run.json", {}, {"labels": list(names), "config": {}})
    return tmp_path / "one", tmp_path / "other"


@pytest.mark.parametrize("missing", ["", "one", "other"])
@pytest.mark.parametrize("names", [("0", "1"), ("false", "true"), ("1", "0")])
def test_f1_is_compared_for_labels_of_any_name(tmp_path, names, missing):
    """Class 1 is the second label, whatever it is called; one of the two best models says it."""
    directories = write(tmp_path, names)
    if missing:
        shutil.rmtree(tmp_path / missing / "model")
    found = compare(*directories)
    assert (found["a"], found["b"]) == tuple(pytest.approx(SCORE(np.array(TRUTH), np.array(x))) for x in SAID.values())


def test_f1_of_a_class_whose_name_is_not_known_is_refused(tmp_path):
    """Of labels "0" and "1" it is known without the best model, of words it is not."""
    one, other = write(tmp_path, ("0", "1"))
    known = compare(one, other)
    shutil.rmtree(one / "model")
    shutil.rmtree(other / "model")
    assert compare(one, other) == known
    shutil.rmtree(tmp_path)
    for directory in write(tmp_path, ("no", "yes")):
        shutil.rmtree(directory / "model")
    with pytest.raises(InputError, match="one/model/run.json is missing, which says what class 1 is called") as error:
        compare(one, other)
    assert "\n" not in str(error.value)


def test_other_labels_are_refused_with_what_they_are(tmp_path):
    one, other = write(tmp_path, ("no", "yes"))
    path = other / "predictions" / "dev.tsv"
    path.write_text(path.read_text().replace("2\tno\tyes", "2\tno\tno"))
    with pytest.raises(InputError, match="different rows: the label of '2' is 'yes' here and 'no' there"):
        compare(one, other)
    shutil.rmtree(other / "model")
    write_metadata(other / "model", "run.json", {}, {"labels": ["yes", "no"], "config": {}})
    with pytest.raises(InputError, match="class 1 is 'yes' in .*one, 'no' in .*other: compare the same task"):
        compare(one, other)
