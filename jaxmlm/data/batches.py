"""`batch_at(step)`: which rows a step reads is arithmetic, so a resume needs no iterator state.

epoch, k = divmod(step, rows // batch); the rows are permutation(seed, epoch)[k * batch : (k + 1) * batch], each in
O(1). The last rows % batch rows of an epoch's order are left out; every epoch has another order.
"""

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from jaxmlm.data.permutation import shuffled
from jaxmlm.data.store import Store, Stream
from jaxmlm.errors import InputError


@dataclass(frozen=True)
class Batches:
    """The rows of a split in the `packed` format: <cls> and length - 1 consecutive tokens of the stream.

    Row i, for ever the same tokens, is the example with id i. Of each global batch this host reads the rows
    [host * B / hosts, (host + 1) * B / hosts). With `units`, the stream's unit bits, batches have them as "unit".
    """

    tokens: np.ndarray | Stream
    cls_id: int
    length: int
    batch: int
    seed: int = 0
    host: int = 0
    hosts: int = 1
    units: np.ndarray | Stream | None = None

    def __post_init__(self) -> None:
        if self.rows < self.batch:
            raise InputError(
                f"a batch of {self.batch} rows of {self.length} tokens is more than the {self.rows} rows of the text: "
                "set loop.batch or data.length lower, or give more text"
            )
        if self.batch % self.hosts:
            raise InputError(f"loop.batch {self.batch} does not divide over {self.hosts} hosts: take a multiple")

    @classmethod
    def of(
        cls,
        store: Store,
        split: str,
        length: int,
        batch: int,
        seed: int = 0,
        host: int = 0,
        hosts: int = 1,
        units: bool = False,
    ):
        """The batches of a store's split; with `units` also the unit bits that the phrase list gave."""
        stream = store.units(split) if units else None
        if units and stream is None:
            raise InputError(
                f"the token store {store.folder} was prepared without phrases: run jaxmlm prepare with a masking that "
                "wants them, or name another --data.store"
            )
        return cls(store.tokens(split), store.tokenizer.cls_id, length, batch, seed, host, hosts, stream)

    @property
    def rows(self) -> int:
        """How many rows the split has; the tokens after the last whole row belong to none."""
        return len(self.tokens) // (self.length - 1)

    def at(self, step: int) -> dict[str, np.ndarray]:
        """The batch of a step: {"ids": int32 [B, L], "example": int32 [B]}, with units also "unit" uint8 [B, L]."""
        epoch, k = divmod(step, self.rows // self.batch)
        share = self.batch // self.hosts
        first = k * self.batch + self.host * share
        seed = (self.seed * 1_000_003 + epoch) % 2**32
        return self.take(shuffled(np.arange(first, first + share), self.rows, seed))

    def take(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """The rows with these ids."""
        width = self.length - 1
        ids = np.empty((len(index), self.length), np.int32)
        ids[:, 0] = self.cls_id
        ids[:, 1:] = _runs(self.tokens, index * width, width)
        rows = {"ids": ids, "example": index.astype(np.int32)}
        if self.units is not None:
            # A row that starts within a word or phrase has the rest of it as a unit, not as a part of <cls>.
            rows["unit"] = np.full(ids.shape, 3, np.uint8)
            rows["unit"][:, 2:] = _runs(self.units, index * width + 1, width - 1)
        return rows


def _runs(tokens: np.ndarray | Stream, starts: np.ndarray, width: int) -> np.ndarray:
    return tokens.runs(starts, width) if isinstance(tokens, Stream) else sliding_window_view(tokens, width)[starts]
