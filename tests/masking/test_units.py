"""Units of the user's own: honoured to their `max_length`, or refused; no warning on the way."""

import dataclasses
import pickle
import sys
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmlm.config import load
from jaxmlm.errors import InputError
from jaxmlm.fields import replace_path
from jaxmlm.masking import Masking, Tokens, TokenUnits, Vocab, mask_batch
from jaxmlm.masking.audit import audit
from jaxmlm.masking.units import check_units
from jaxmlm.rng import step_key
from jaxmlm.runs.run import Run

LENGTH = 130
VOCAB = Vocab(500, 4, 0, np.arange(300, 400, dtype=np.int32))


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Blocks of so many tokens; nothing of the project is derived from."""

    tokens: int = 40
    max_length = 64

    def starts(self, key, tokens):
        return (jnp.arange(len(tokens.ids)) - 1) % self.tokens == 0


@dataclasses.dataclass(frozen=True)
class Chosen:
    """Its max_length unit is a value of the configuration."""

    max_length: int = 20

    def starts(self, key, tokens):
        return jnp.zeros(tokens.ids.shape, bool)


def rows(many: int) -> Tokens:
    at = np.broadcast_to(np.arange(LENGTH), (many, LENGTH))
    maskable = (at > 0) & (at < LENGTH - 1)
    return Tokens(np.where(maskable, 10 + at, 2).astype(np.int32), maskable, np.ones(at.shape, np.uint8))


@pytest.mark.parametrize(
    ("units", "sizes"),
    [(Blocks(40), {40, 8}), (Blocks(100), {64, 36, 28}), (Chosen(20), {20, 8}), (Chosen(500), {128})],
)
def test_units_are_selected_whole_up_to_their_longest(units, sizes):
    masking, tokens = Masking(0.4, units=units), rows(40)
    out = mask_batch(masking, step_key(0, 0), jnp.arange(40), jax.tree.map(jnp.asarray, tokens), VOCAB, 0)
    assert out.positions.shape[1] == masking.predictions(LENGTH) == min(LENGTH, 52 + units.max_length - 1)
    found = audit(masking, tokens, np.arange(40), VOCAB)
    assert {int(size) for size in found["lengths"]} == sizes
    assert not any(found["faults"].values())
    hidden = np.asarray((out.inputs == 4).sum(1))
    assert (hidden == np.asarray(out.weights.sum(1))).all() and hidden.max() > 16


class Plain:
    """Not a dataclass."""

    max_length, starts = 4, Blocks.starts


@dataclasses.dataclass
class Changing:
    """Cannot be a constant of a compiled program."""

    max_length = 4
    starts = Blocks.starts


@dataclasses.dataclass(frozen=True)
class Endless:
    """Has no max_length unit."""

    max_length = None
    starts = Blocks.starts


@dataclasses.dataclass(frozen=True)
class Silent:
    """Does not say where units start."""

    max_length = 4


@dataclasses.dataclass(frozen=True)
class Listed(Blocks):
    """Cannot be a constant of a compiled program, as its lengths are a list."""

    lengths: list = dataclasses.field(default_factory=lambda: [1, 2])


@pytest.mark.parametrize(
    ("units", "message"),
    [
        (Listed(), "masking.units: Listed cannot be hashed: write lengths as tuples"),
        (Plain(), "masking.units is a Plain: give a frozen dataclass with max_length"),
        (Changing(), "masking.units is a Changing: give a frozen dataclass"),
        (Silent(), "masking.units is a Silent: give a frozen dataclass"),
        (Endless(), "Endless.max_length is a number of tokens, at least 1; got None"),
        (Chosen(0), "Chosen.max_length is a number of tokens, at least 1; got 0"),
    ],
)
def test_units_that_cannot_be_are_refused(units, message):
    with pytest.raises(InputError, match=message):
        check_units(units)


CONFIG = '''
"""A run with units of its own."""
from dataclasses import dataclass
import jax.numpy as jnp
from jaxmlm.masking import Masking
from jaxmlm.runs.run import Run

@dataclass(frozen=True)
class Mine:
    """Blocks."""
    tokens: int = 32
    max_length = 64

    def starts(self, key, tokens):
        return jnp.arange(len(tokens.ids)) % self.tokens == 0

def config() -> Run:
    """One run."""
    return Run(masking=Masking(units=Mine()))
'''


def test_a_config_file_defines_units_without_a_warning(tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text(CONFIG)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = load(path, ["--masking.units.tokens", "8", "--masking.rate", "0.2"])
    assert (run.masking.rate, run.masking.units.tokens, run.masking.predictions(128)) == (0.2, 8, 26 + 63)
    assert capsys.readouterr().err == ""
    assert replace_path(run, "masking.units", TokenUnits()).masking.units == TokenUnits()
    assert replace_path(Run(), "masking.units", Blocks()).masking.units == Blocks()


def test_a_process_of_its_own_reads_the_units_of_a_config_file(tmp_path):
    from jaxmlm.tools.aot import packed

    path = tmp_path / "mine.py"
    path.write_text(CONFIG)
    run = load(Path(path))
    said = packed(run)
    del sys.modules[type(run.masking.units).__module__]
    again = pickle.loads(said)
    assert again.masking.units.max_length == 64 and again.masking.rate == run.masking.rate
    local = dataclasses.make_dataclass("Local", [], frozen=True, namespace={"max_length": 3, "starts": Blocks.starts})
    with pytest.raises(InputError, match="define its class at the top of the config file"):
        packed(replace_path(run, "masking.units", local()))
