"""Two fine-tunings are compared by what their predictions say, whatever the labels are called."""

from dataclasses import replace

import numpy as np
import pytest

from jaxmlm.runs import Finetune
from jaxmlm.runs.comparison import compare
from jaxmlm.runs.finetune_config import settings
from jaxmlm.runs.results import Result
from jaxmlm.runs.workdir import append_results, write_metadata
from jaxmlm.tasks.metrics import METRICS


@pytest.mark.parametrize("names", [("0", "1"), ("false", "true"), ("1", "0")])
def test_f1_is_compared_for_labels_of_any_name(tmp_path, names):
    """Class 1 is the second label, whatever it is called."""
    score = METRICS["f1"]
    truth = [0, 1, 1, 0, 1, 1, 0, 1]
    said = {"one": [0, 1, 1, 1, 1, 0, 0, 1], "other": [1, 1, 0, 1, 1, 0, 0, 1]}
    for which, classes in said.items():
        directory = tmp_path / which
        (directory / "predictions").mkdir(parents=True)
        rows = [f"{i}\t{names[a]}\t{names[b]}" for i, (a, b) in enumerate(zip(classes, truth, strict=True))]
        (directory / "predictions" / "dev.tsv").write_text("\n".join(["index\tsaid\tlabel", *rows, ""]))
        scores = {"f1": score(np.array(truth), np.array(classes))}
        result = Result("finetune", "mrpc", 0, "f1", scores, settings=settings(Finetune("mrpc")))
        append_results(
            directory / "results.jsonl",
            [replace(result, predictions="predictions", degenerate=False, notes=["none"], select="last").to_json()],
        )
        write_metadata(directory / "model", "run.json", {}, {"labels": list(names), "config": {}})
    found = compare(tmp_path / "one", tmp_path / "other")
    assert (found["a"], found["b"]) == tuple(pytest.approx(score(np.array(truth), np.array(x))) for x in said.values())
