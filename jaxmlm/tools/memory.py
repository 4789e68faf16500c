"""How much memory of a chip a training step takes, by a formula: quick enough to search with, checked by compiling."""

import dataclasses
import math
from collections.abc import Iterator
from typing import NamedTuple

from jaxmlm.models import EncoderConfig, count_parameters
from jaxmlm.models.kernel_sizes import fits_fused, pays_fused
from jaxmlm.models.splash import BLOCK, pays
from jaxmlm.parallel import Mesh, undivided
from jaxmlm.runs.run import Run
from jaxmlm.tasks.mlm import LOGITS_BYTES

UPDATE = 2.35
"""How many times the parameters in float32 an update takes beside them, the optimizer's state and the gradients."""


class Memory(NamedTuple):
    """Bytes on each chip: what a run keeps (parameters, optimizer), and what a step needs beside it."""

    parameters: float
    optimizer: float
    gradients: float
    copies: float
    kept: float
    block: float
    head: float
    update: float

    @property
    def total(self) -> float:
        """The most at one time: the head's arrays are gone before the backward pass of the blocks, all of these
        before the update."""
        backward = self.copies + self.kept + max(self.block, self.head)
        return self.parameters + self.optimizer + self.gradients + max(backward, self.update)


def memory(run: Run, vocab: int, devices: int) -> Memory:
    """Of a run's training step on so many devices.

    Copies: of the blocks' parameters in bfloat16, made once before the loop over them, and where parameters are cut up
    those of the whole table and of its gradient. Kept for the backward pass: the input of every block (remat full),
    also its products with parameters (dots), or all that it computes (none). Beside that one block's arrays, or the
    logits that are made at a time and their gradient. Update: the compiler's own copies of gradients and parameters,
    a multiple of them that was found by compiling (docs/results/plan.md).
    """
    data, fsdp, tensor = run.mesh.over(devices).values()
    c = run.model
    length = run.data.length
    every = count_parameters(_as_counted(c), vocab)
    table = vocab * c.width
    word = 2 if c.dtype == "bfloat16" else 4
    rows = run.loop.batch * run.masking.views / (data * fsdp * run.loop.accumulate)
    tokens = rows * length
    mlp = c.mlp or 4 * c.width
    products = (3 * c.width + mlp * (2 if c.activation.startswith("geglu") else 1)) / tensor + 2 * c.width
    # The kernels make no scores (models/attention.py).
    fused = c.attention == "fused" or (c.attention == "auto" and pays_fused(length, c.attention_dropout > 0))
    fused = fused and fits_fused(length, c.heads // tensor, c.width // c.heads, c.dtype)
    splash = pays(length) if c.attention == "auto" else c.attention == "splash" and length % BLOCK == 0
    scores = 0.0 if fused or (splash and not c.attention_dropout) else c.heads / tensor * length
    # Attention probabilities: their scores in float32, themselves twice, and which of them dropout keeps.
    everything = products + mlp / tensor + 4 * c.width
    attention = scores * (4 + 2 * word + 1)
    of_block = tokens * (everything * word + attention)
    kept = {"full": c.width * word, "dots": (c.width + products) * word}.get(c.remat)
    share = every / (fsdp * tensor)
    cast = (every - table) / (fsdp * tensor) * word if word < 4 else 0.0
    return Memory(
        4 * share,
        4 * run.optim.slots * share,
        4 * share * (2 if run.loop.accumulate > 1 else 1),
        cast + (8.0 * table if fsdp * tensor > 1 else 0.0),
        c.layers * (tokens * kept if kept is not None else of_block),
        1.1 * of_block,
        rows * _predicted_at_once(run, rows * vocab / tensor) * vocab / tensor * (4 + word),
        UPDATE * 4 * share,
    )


def _as_counted(config: EncoderConfig) -> EncoderConfig:
    """The encoder without the options that do not change its parameters, so that a search counts them once."""
    return config.with_runtime_fields_of(EncoderConfig())


def _predicted_at_once(run: Run, logits: float) -> int:
    """Of how many predictions of every row the logits are made at a time; `logits` of one of each there are."""
    most = run.masking.predictions(run.data.length)
    if run.masking.pools_slots:
        most = min(most, math.ceil(run.masking.mean_rate * run.data.length) + run.masking.units.max_length)
    chunk = run.model.logits_chunk or max(int(LOGITS_BYTES / (4 * logits)), 1)
    return -(-most // -(-most // min(chunk, most)))


def alternatives(run: Run, devices: int, slices: int = 1) -> Iterator[Run]:
    """This run cut up in all ways (mesh.fsdp, loop.accumulate, model.remat), the likely fastest first."""
    found = []
    batch = run.loop.batch
    for fsdp in (size for size in _powers(devices // slices) if devices % (size * slices) == 0):
        mesh = Mesh(-1, fsdp, 1)
        for accumulate in (size for size in _powers(min(batch, 256)) if batch % size == 0):
            loop = dataclasses.replace(run.loop, accumulate=accumulate)
            for remat in ("none", "dots", "full"):
                model = dataclasses.replace(run.model, remat=remat)
                other = dataclasses.replace(run, mesh=mesh, loop=loop, model=model)
                if not undivided(mesh.over(devices, slices), other.sizes):
                    found.append((_burden(accumulate, remat, fsdp), other))
    yield from (other for _, other in sorted(found, key=lambda pair: pair[0]))


def _burden(accumulate: int, remat: str, fsdp: int) -> float:
    """About how much longer a step takes: recomputed products; for each part of the batch parameters and the sums of
    the gradients read again, with fsdp also gathered and scattered again."""
    again = {"none": 0.0, "dots": 0.05, "full": 0.25}[remat]
    return again + 0.03 * (accumulate - 1) * (2 if fsdp > 1 else 1) + 0.02 * (fsdp > 1) + 1e-4 * fsdp


def _powers(most: int) -> list[int]:
    return [2**i for i in range(int(math.log2(most)) + 1)]
