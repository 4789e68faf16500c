"""`batch_at(step)`: which rows a step reads is arithmetic, so a resume needs no iterator state.

epoch, k = divmod(step, rows // batch); the rows are permutation(seed, epoch)[k * batch : (k + 1) * batch], each in
O(1). The last rows % batch rows of an epoch's order are left out; every epoch has another order. Places of sentences go
from short rows to long ones in every epoch, so there as many places are left out from anywhere in the order.
"""

from dataclasses import dataclass

import numpy as np

from jaxmlm.data.config import Format
from jaxmlm.data.permutation import shuffled
from jaxmlm.data.rows import Cut, Documents, Packed, Sentences
from jaxmlm.data.store import Store
from jaxmlm.errors import InputError


@dataclass(frozen=True)
class Batches:
    """Batches of the rows that a split is cut into.

    Of each global batch this host reads the rows [host * B / hosts, (host + 1) * B / hosts).
    """

    cut: Cut
    batch: int
    seed: int = 0
    host: int = 0
    hosts: int = 1

    def __post_init__(self) -> None:
        if self.rows < self.batch:
            raise InputError(
                f"a batch of {self.batch} rows is more than the {self.rows} rows of the text: set loop.batch or "
                "data.length lower, or give more text"
            )
        if self.rows >= 1 << 31:
            raise InputError(
                f"the text has {self.rows:,} rows, and ids count to 2,147,483,647: make data.length longer, or the "
                "text into several stores"
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
        format: Format = "packed",
    ):
        """The batches of a store's split; with `units` also the unit bits that the phrase list gave."""
        stream = store.units(split) if units else None
        if units and stream is None:
            raise InputError(
                f"the token store {store.folder} was prepared without phrases: run jaxmlm prepare with a masking that "
                "wants them, or name another --data.store"
            )
        t, tokens = store.tokenizer, store.tokens(split)
        if format == "packed":
            cut: Cut = Packed(tokens, t.cls_id, length, stream)
        else:
            kind = Documents if format == "documents" else Sentences
            counts = store.documents(split)["tokens"]
            cut = kind(tokens, counts, (t.cls_id, t.sep_id, t.pad_id), length, stream)
        return cls(cut, batch, seed, host, hosts)

    @property
    def rows(self) -> int:
        """How many rows the split has."""
        return self.cut.rows

    @property
    def left_out(self) -> int:
        """How many rows an epoch leaves out, others each time: they do not fill a batch."""
        return self.rows % self.batch

    def at(self, step: int) -> dict[str, np.ndarray]:
        """The batch of a step: {"ids": int32 [B, L], "example": int32 [B]}.

        With units also "unit" uint8 [B, L]; formats with padding also have "segments" int32 [B, L] (0: padding).
        """
        steps = self.rows // self.batch
        epoch, k = divmod(step, steps)
        seed = (self.seed * 1_000_003 + epoch) % 2**32
        gap = self.rows  # the left-out places begin here at the latest
        if isinstance(self.cut, Sentences):  # their places go from short to long, so the batches are shuffled too
            k = int(shuffled(np.array([k]), steps, seed)[0])
            gap = int(np.random.Philox(seed).random_raw()) % (self.rows - self.left_out + 1)
        share = self.batch // self.hosts
        first = k * self.batch + self.host * share
        places = np.append(np.arange(first, first + share), (k + 1) * self.batch - 1)  # and the last of all hosts
        places += self.left_out * (places >= gap)
        return self.cut.batch(places[:-1], int(places[-1]), seed)

    def take(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """The rows with these ids, at full length."""
        return self.cut.take(index)
