"""What the tests of several rooms share."""

import shutil

import jax
import numpy as np
import pytest

from jaxmlm.data import Data
from jaxmlm.models import EncoderConfig
from jaxmlm.runs.pretraining import pretrain
from jaxmlm.runs.run import Run
from jaxmlm.training import Loop


@pytest.fixture(scope="session")
def untrained(tmp_path_factory) -> str:
    """A run of no steps, of which `checkpoint` gives each module a copy."""
    directory = str(tmp_path_factory.mktemp("untrained") / "run")
    model = EncoderConfig(layers=1, width=16, heads=2, max_positions=32, dropout=0.0, attention_dropout=0.0)
    pretrain(Run(directory, data=Data("sample:200", vocab=400, length=24, valid=0.1), model=model, loop=Loop(0, 8)))
    return directory


@pytest.fixture(scope="module")
def checkpoint(request, tmp_path_factory) -> str:
    """An encoder that has learned nothing."""
    # Asked for here rather than as an argument, which would make it before a module's two devices are set.
    untrained = request.getfixturevalue("untrained")
    return str(shutil.copytree(untrained, tmp_path_factory.mktemp("run") / "run"))


@pytest.fixture
def no_mesh(mesh):
    """Undo the mesh that every test is given."""
    empty = jax.sharding.Mesh(np.empty((), object), ())
    with jax.set_mesh(empty):
        yield
