"""`jaxmlm prepare --inspect STORE`: what is in a token store."""

from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxmlm.data import Store
from jaxmlm.wording import counted

EDGES = (0, 9, 17, 33, 65, 129, 257, 513, 1025, 4097)
"""The histogram of document lengths has a bar from each of these to the next."""
ROWS = 3
ROW = 64


def inspect(directory: str | Path, top: int = 20) -> dict[str, Any]:
    """Print counts, document lengths, the `top` tokens and some decoded text of a store, read in one pass.

    Returns {"store", "vocab", "dtype", and for each split: documents, tokens, unknown (a share), lengths (documents by
    number of tokens, the separator left out), top ([piece, share])}.
    """
    store = Store(directory)
    found: dict[str, Any] = {
        "store": str(store.directory),
        "vocab": store.tokenizer.size,
        "dtype": store.manifest["dtype"],
    }
    for split in ("train", "valid"):
        found[split] = _split(store, split, top)
    _print(store, found)
    return found


def _split(store: Store, split: str, top: int) -> dict[str, Any]:
    t = store.tokenizer
    times = np.zeros(t.size, np.int64)
    lengths = np.zeros(len(EDGES), np.int64)
    for _, tokens in store.chunks(split):
        times += np.bincount(tokens, minlength=t.size)
        ends = np.flatnonzero(tokens == t.sep_id)
        if tokens[-1] != t.sep_id:  # the beginning of a document whose end is held out
            ends = np.append(ends, len(tokens))
        sizes = np.diff(ends, prepend=-1) - 1
        lengths += np.bincount(np.searchsorted(EDGES, sizes, "right") - 1, minlength=len(EDGES))
    total = int(times.sum())
    text = times.copy()
    text[t.special] = 0
    best = np.argsort(-text, kind="stable")[:top].tolist()
    return {
        "documents": store.manifest[split]["documents"],
        "tokens": total,
        "unknown": round(float(times[t.unk_id] / max(total, 1)), 6),
        "lengths": dict(zip(map(str, EDGES), lengths.tolist(), strict=True)),
        "top": [
            [piece, round(float(text[i] / max(total, 1)), 5)] for i, piece in zip(best, t.pieces(best), strict=True)
        ],
    }


def _print(store: Store, found: dict[str, Any]) -> None:
    console = Console()
    for split in ("train", "valid"):
        part = found[split]
        console.print(
            f"[bold]{split}[/]: {counted(part['documents'], 'document')}, {counted(part['tokens'], 'token')} "
            f"({found['dtype']}, {found['vocab']:,} pieces), {part['unknown']:.3%} unknown"
        )
    part = found["train"]
    drawn = Table("tokens in a document", "documents", "", box=None)
    most = max(*part["lengths"].values(), 1)
    for i, (least, many) in enumerate(part["lengths"].items()):
        upto = f"to {EDGES[i + 1] - 1:,}" if i + 1 < len(EDGES) else "or more"
        drawn.add_row(f"{int(least):,} {upto}", f"{many:,}", "█" * round(30 * many / most))
    console.print(drawn)
    console.print(Text("most frequent: " + "  ".join(f"{piece} {share:.2%}" for piece, share in part["top"])))
    tokens = store.tokens("train")
    for start in np.linspace(0, max(len(tokens) - ROW, 0), ROWS).astype(int):
        ids = tokens[np.arange(start, min(start + ROW, len(tokens)))]
        console.print(Text(f"at {start:,}: {store.tokenizer.decode(ids.tolist())}"), soft_wrap=True)
