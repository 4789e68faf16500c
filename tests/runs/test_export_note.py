"""A pre-training whose model cannot be exported says so before anything that takes long."""

import pytest

from jaxmlm.models import EncoderConfig
from jaxmlm.runs import pretraining
from jaxmlm.runs.run import Run


class Opened(Exception):
    """The token store was asked for."""


@pytest.mark.parametrize(
    ("change", "note"),
    [({"norm": "post", "positions": "rope"}, "note: this model cannot be exported: "), ({}, "")],
    ids=["no format", "a format"],
)
def test_it_is_said_at_the_start(change, note, tmp_path, monkeypatch, capsys):
    said = []

    def open_store(*_):
        said.append(capsys.readouterr().err)
        raise Opened

    monkeypatch.setattr(pretraining, "open_store", open_store)
    model = EncoderConfig(layers=1, width=16, heads=2, **change)
    with pytest.raises(Opened):
        pretraining.pretrain(Run(workdir=str(tmp_path / "run"), model=model))
    assert said[0].startswith(note) and bool(note) == ("cannot be exported" in said[0])
