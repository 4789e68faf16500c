"""What a cell of a study will cost, before it is started. An estimate: no program is compiled."""

from dataclasses import dataclass
from functools import cache

from jaxmlm.runs.evaluation import Evaluate
from jaxmlm.runs.finetune_config import Finetune
from jaxmlm.runs.run import Run
from jaxmlm.tasks.downstream import SAMPLE
from jaxmlm.tools.hardware import measured_peak
from jaxmlm.training import budget

_EFFICIENCY = 0.35  # of the matrix-product peak; measured with 2 x 128 and 4 x 256 encoders on two CPU cores
_COMPILE = 12.0  # seconds for each program
_PAIR_TOKENS = 2 * 12 * 16  # in the masked copies of a minimal pair
_SENTENCE_TOKENS = 32  # in a GLUE input with its padding
_SETS, _ROWS = {True: 11, False: 67}, {True: 1500, False: 8000}  # of the generated tasks; of BLiMP and GLUE


@dataclass(frozen=True)
class Assumed:
    """A machine to estimate for: its name and the FLOP/s that training gets out of it."""

    name: str
    flops_per_second: float
    chips: int = 1
    price: float | None = None
    """Of one chip for one hour."""


def flops_per_token(run: Run, length: int | None = None, head: float | None = None) -> float:
    """FLOPs of a training step for each token: forward and backward, attention counted, the head at its share.

    Args:
        run: the run.
        length: of a row; that of pre-training if not given.
        head: share of the tokens that are predicted; that of the masking, and its views, if not given.

    """
    m, length = run.model, length or run.data.length
    mlp = m.mlp or 4 * m.width
    block = 2 * (4 * m.width * m.width + 2 * m.width * mlp) + 4 * length * m.width
    output = 2 * (m.width * m.width + m.width * run.data.vocab)
    if head is not None:
        return 3 * (m.layers * block + head * output)
    masking = run.masking
    return 3 * (masking.views * m.layers * block + (masking.predict or masking.rate) * output)


def training_tokens(run: Run, assume: Assumed | None = None) -> int:
    """Tokens of a pre-training; with a budget those of the steps that it has time for, at the estimated speed."""
    step = run.loop.batch * run.data.length
    if not run.loop.budget:
        return run.loop.steps * step
    return max(1, int(budget.seconds(run.loop.budget) * _speed(assume) / (step * flops_per_token(run)))) * step


def seconds_of_cell(
    run: Run, evaluate: Evaluate | None, finetune: tuple[Finetune, ...], assume: Assumed | None = None
) -> float:
    """Seconds for a cell: pre-training, minimal pairs, fine-tuning."""
    speed = _speed(assume)
    seconds = 2 * _COMPILE + training_tokens(run, assume) * flops_per_token(run) / speed
    if evaluate is not None:
        copies = _SETS[evaluate.blimp == SAMPLE] * (evaluate.pairs or 1000) * _PAIR_TOKENS
        seconds += _COMPILE + copies * flops_per_token(run, 16, 1 / 16) / 3 / speed
    for config in finetune:
        task, generated = config.downstream, config.data == SAMPLE
        rows, dev = task.sizes if task.sizes and not generated else (_ROWS[generated], 1_000)
        rows = config.point.epochs * min(rows, config.limit or rows) + dev / 3  # scoring is a third of training
        tokens = rows * (config.length if task.head == "answer" else min(config.length, _SENTENCE_TOKENS))
        each = tokens * flops_per_token(run, config.length, 0.0) / speed
        seconds += _COMPILE + len(config.seeds) * each
    return seconds


def _speed(assume: Assumed | None) -> float:
    return assume.flops_per_second if assume else _EFFICIENCY * _peak()


@cache
def _peak() -> float:
    return measured_peak(seconds=0.3)
