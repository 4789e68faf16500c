"""Studies and axes that cannot be are refused when they are made."""

import pytest

from jaxmlm.errors import InputError
from jaxmlm.masking import Masking
from jaxmlm.runs import Finetune, Run
from jaxmlm.studies import Study, Vary
from jaxmlm.training import Loop


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"finetune": (Finetune("cola"), Finetune("cola", batch=32))}, "cola is there twice"),
        ({"finetune": (Finetune("cola", workdir="w"),)}, "finetune cola: a study has no use for workdir: leave it out"),
        (
            {"finetune": (Finetune("rte", workdir="w", intermediate_task="mnli"),)},
            "a study has no use for intermediate_task",
        ),
        ({"vary": (Vary("masking", (Masking(),), ("a",)), Vary("masking.rate"))}, "vary masking and vary masking.rate"),
        ({"vary": (Vary("masking.rate"), Vary("masking.rate"))}, "set the same"),
        ({"vary": (Vary("loop.steps", (1, 2)),), "run": Run(loop=Loop(budget="1h"))}, "a budget decides the steps"),
        ({"vary": (Vary("mesh.fsdp", (1, 2)),)}, "vary mesh.fsdp: runs that differ in nothing else give the same"),
        ({"vary": (Vary("model.remat", ("none", "full")),)}, "vary model.remat: runs that differ in nothing else"),
    ],
)
def test_studies_that_cannot_be_are_refused_when_they_are_made(fields, message):
    with pytest.raises(InputError, match=message):
        Study(**fields)


def test_values_that_are_objects_need_names():
    with pytest.raises(InputError, match="vary masking: a value is a Masking: give the values names"):
        Vary("masking", (Masking(),))
    with pytest.raises(InputError, match="vary masking.rate: the names a, a are not all different"):
        Vary("masking.rate", (0.1, 0.2), ("a", "a"))
    with pytest.raises(InputError, match="vary masking.rate: the values 0.15, 0.15 are not all different"):
        Vary("masking.rate", (0.15, 0.15))
    with pytest.raises(InputError, match="vary init: 'runs/a' cannot name the directory of a cell: give the values"):
        Vary("init", ("runs/a", "hf:org/b"))
    assert Vary("init", ("runs/a", "hf:org/b"), ("a", "b")).named == {"a": "runs/a", "b": "hf:org/b"}
