"""What a sentence classifier reads, in config.json: the first token or the mean of all."""

import json
from dataclasses import replace

import pytest

from jaxmlm.errors import InputError
from jaxmlm.models import interchange
from tests.models.test_formats import FAMILIES, MODERN, write


def test_what_a_modernbert_classifies_from_is_read_for_every_kind_and_written(tmp_path):
    for kind in ("mlm", "classify"):
        write(tmp_path / kind, MODERN, kind, classifier_pooling="mean")
        assert interchange.read(tmp_path / kind).config.pool == "mean"
        write(tmp_path / "own", replace(MODERN, pool="mean"), kind)
        assert json.loads((tmp_path / "own" / "config.json").read_text())["classifier_pooling"] == "mean"
    write(tmp_path / "max", MODERN, classifier_pooling="max")
    with pytest.raises(InputError, match="classifier_pooling 'max': jaxmlm computes cls or mean only"):
        interchange.read(tmp_path / "max")


@pytest.mark.parametrize("family", [family for family in FAMILIES if FAMILIES[family].first_norm])
def test_a_mean_is_not_exported_as_an_architecture_that_classifies_from_the_first_token(family, tmp_path):
    mean = replace(FAMILIES[family], pool="mean")
    write(tmp_path / "mlm", mean, "mlm")
    with pytest.raises(InputError, match="classifies from the first token, and this encoder has model.pool mean"):
        write(tmp_path / "classifier", mean, "classify")
