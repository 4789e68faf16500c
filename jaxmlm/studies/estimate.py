"""What a cell of a study will cost, before it is started. An estimate: no program is compiled."""

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import jax

from jaxmlm.checks import COUNT, NOT_NEGATIVE, POSITIVE, check_numbers
from jaxmlm.models import EncoderConfig
from jaxmlm.models.flops import flops
from jaxmlm.parallel import make_mesh
from jaxmlm.runs.evaluation import Bound
from jaxmlm.runs.finetune_config import Finetune
from jaxmlm.runs.layer_probes import Probes
from jaxmlm.runs.loading import load
from jaxmlm.runs.run import Run
from jaxmlm.runs.zero_shot import BabyLM, ZeroShot
from jaxmlm.tasks import babylm
from jaxmlm.tasks.downstream import SAMPLE
from jaxmlm.tools.flops import step_flops
from jaxmlm.tools.hardware import measured_peak, peak_flops
from jaxmlm.training import budget

_EFFICIENCY = 0.35
"""Share of the peak that training reaches; measured with 2 x 128 and 4 x 256 encoders on two CPU cores."""
_COMPILE_SECONDS = 12.0
"""For each program."""
_PAIR_ROWS = 2 * 12
_PAIR_LENGTH = 16
"""Masked copies of the sentences of a minimal pair, and their tokens."""
_BABYLM = {
    "blimp": (2, 10, 14),
    "supplement": (2, 17, 20),
    "ewok": (2, 8, 24),
    "entity_tracking": (5, 6, 160),
    "wug_adj": (2, 15, 18),
    "wug_past": (2, 15, 18),
    "comps": (2, 6, 14),
}
"""Sentences of a row of BabyLM's tasks, the tokens of one that are scored, and all its tokens."""
_SENTENCE_TOKENS = 32
"""Tokens of a GLUE input with its padding."""
_PAIR_SETS = {True: 11, False: 67}
_TASK_ROWS = {True: 1500, False: 8000}
"""Sets of minimal pairs, and training rows of a task whose size is not known: of generated data, of the real ones."""
_DEV_ROWS = 1_000
_TREEBANK = 12_000
"""Train sentences of a treebank."""
_PROBED = 2
"""Rows for a train sentence: dev has a quarter as many sentences, and half of all have a second row, a bigram shift."""
_PROBED_CLASSES = 65
"""Classes of the probes of words together, whose fits take nearly all the time."""
_FITTING_PASSES = 600
"""Passes of L-BFGS over the words of a probe, those that choose the weight of L2 among them."""
_SCORING = 1 / 3
"""A forward pass, as a share of a training step."""


@dataclass(frozen=True)
class Assumed:
    """A machine to estimate for."""

    name: str
    """Name of the machine in the listing."""
    flops_per_second: float
    """FLOP/s that training gets out of the whole machine."""
    chips: int = 1
    """Chips of the machine, for chip-hours and price."""
    price: float | None = None
    """Price of one chip for one hour."""

    def __post_init__(self) -> None:
        check_numbers(self, "assume.", flops_per_second=POSITIVE, chips=COUNT, price=NOT_NEGATIVE)


def training_tokens(run: Run, assume: Assumed | None = None) -> int:
    """Tokens of a pre-training; with a budget those of the steps that it has time for, at the estimated speed."""
    tokens = run.loop.batch * run.data.length
    if not run.loop.budget:
        return run.loop.steps * tokens
    return max(1, int(budget.seconds(run.loop.budget) / _step_seconds(run, assume))) * tokens


def seconds_of_pretraining(run: Run, assume: Assumed | None = None) -> float:
    """Seconds for the pre-training of a cell."""
    steps = training_tokens(run, assume) / (run.loop.batch * run.data.length)
    return 2 * _COMPILE_SECONDS + steps * _step_seconds(run, assume)


def seconds_of_job(run: Run, what: Any, assume: Assumed | None = None) -> float:
    """Seconds for an evaluation of a cell: bound, minimal pairs, probes, one fine-tuning; of held-out text 0."""
    run = _with_its_encoder(run)
    if isinstance(what, Bound):
        rows = what.rows * what.draws
        predicted = run.data.length // 2
        operations = flops(run.model, run.data.vocab, rows, run.data.length, predicted).forward
    elif isinstance(what, ZeroShot):
        # Of minimal pairs, one prediction in each copy of a sentence.
        rows = _PAIR_SETS[what.blimp == SAMPLE] * (what.pairs or 1000) * _PAIR_ROWS
        operations = flops(run.model, run.data.vocab, rows, _PAIR_LENGTH, 1).forward
    elif isinstance(what, BabyLM):
        options, scored, length = _BABYLM[what.task]
        copies = options * scored * babylm.size(what.task, what.fast)
        operations = flops(run.model, run.data.vocab, copies, length, 1).forward
    elif isinstance(what, Probes):
        sentences = _PROBED * (what.sentences or _TREEBANK)
        operations = flops(run.model, run.data.vocab, sentences, _SENTENCE_TOKENS, 0).forward
        fits = 4 * _FITTING_PASSES * what.words * run.model.width * _PROBED_CLASSES
        operations += (run.model.layers + 1) * fits
    elif isinstance(what, Finetune):
        operations = _finetuning_flops(run, what)
    else:
        return 0.0
    return _COMPILE_SECONDS + operations / _speed(assume)


def _step_seconds(run: Run, assume: Assumed | None) -> float:
    run = _with_its_encoder(run)
    return step_flops(run, run.data.vocab).training / _speed(assume)


def _with_its_encoder(run: Run) -> Run:
    """The run; of one that continues from an encoder, with that encoder's sizes and vocabulary in the place of `init`.

    Raises:
        InputError: there is no such encoder, or it does not read rows of this length.

    """
    if run.init is None:
        return run
    model, vocab = _sizes_of(run.init)
    data = replace(run.data, vocab=vocab + run.data.new_words, new_words=0)
    return replace(run, init=None, model=model, data=data)


@cache
def _sizes_of(init: str) -> tuple[EncoderConfig, int]:
    """An encoder's configuration and vocabulary; it is read, and one of the Hub fetched, as the study would."""
    with jax.set_mesh(make_mesh(devices=jax.devices()[:1])):
        loaded = load(init)
    return loaded.config, loaded.encoder.vocab


def _finetuning_flops(run: Run, config: Finetune) -> float:
    """Operations of one fine-tuning and its scoring."""
    task = config.downstream
    is_generated = config.data == SAMPLE
    rows, dev = (_TASK_ROWS[is_generated], _DEV_ROWS) if is_generated or not task.sizes else task.sizes
    rows = config.point.epochs * min(rows, config.limit or rows) + dev * _SCORING
    length = config.length if task.head == "answer" else min(config.length, _SENTENCE_TOKENS)
    return flops(run.model, run.data.vocab, round(rows), length, 0).training


def _speed(assume: Assumed | None) -> float:
    return assume.flops_per_second if assume else _EFFICIENCY * _peak()


@cache
def _peak() -> float:
    """FLOP/s of this machine; of an unknown accelerator those of a matrix product on all its devices."""
    devices = jax.devices()
    found, _ = peak_flops(devices, seconds=0.3)
    return found or len(devices) * measured_peak(seconds=0.3)
