"""Preparing a token store, and reading batches of one, beside `datasets` and Grain in the same run.

    python benchmarks/data.py batches                        # needs the package `datasets` with PyTorch
    python benchmarks/data.py sparse                         # a store of 100 GB that takes no space
    python benchmarks/data.py prepare wiki.train.txt.xz      # the whole command, and its encoding alone
    python benchmarks/data.py growth wiki.train.txt.xz       # 1, 4, 16 and 64 million words

Ours and the peers' calls alternate, so that a busy machine slows both; each line is a median. Memory is the largest
resident set of a process of its own.
"""

import argparse
import hashlib
import itertools
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jaxmlm.data import Batches, Data, SentencePieceTokenizer, Store, build, open_rows
from jaxmlm.data import store as store_module
from jaxmlm.data.manifest import FORMAT, write_manifest
from jaxmlm.data.rows import DocumentRows, PackedRows, SentenceRows
from jaxmlm.data.sources import documents, text_source
from jaxmlm.data.store import Stream

LENGTH, ROWS = 128, 400_000
SHARD = 1 << 26  # tokens of a shard of the sparse store


def medians(calls: dict[str, Callable[[int], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each call, taken in turns."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for step in range(repeats):
        for name, call in calls.items():
            started = time.perf_counter()
            call(step)
            taken[name].append(time.perf_counter() - started)
    return {name: statistics.median(times) for name, times in taken.items()}


def batches(repeats: int) -> dict[str, Any]:
    """Tokens/s of `at(step)` on one thread, of shuffled rows held in memory."""
    import datasets  # pyright: ignore[reportMissingImports]
    import grain

    tokens = np.random.default_rng(0).integers(5, 30_000, ROWS * (LENGTH - 1)).astype(np.uint16)
    shards = Stream(np.array_split(tokens, 40))
    counts = np.random.default_rng(1).geometric(1 / 300, len(tokens) // 300)
    counts = counts[: np.searchsorted(np.cumsum(counts), len(tokens))]
    special = (2, 3, 0)
    ours = {
        "packed, 256 x 128": Batches(PackedRows(tokens, 2, LENGTH), 256),
        "packed, 256 x 128, 40 shards": Batches(PackedRows(shards, 2, LENGTH), 256),
        "packed, 4096 x 128, one of 8 hosts": Batches(PackedRows(tokens, 2, LENGTH), 4096, hosts=8),
        "packed, 4096 x 128, one of 8 hosts, 40 shards": Batches(PackedRows(shards, 2, LENGTH), 4096, hosts=8),
        "documents, 256 x 128": Batches(DocumentRows(tokens, counts, special, LENGTH, None), 256),
        "sentences, 256 x 128": Batches(SentenceRows(tokens, counts, special, LENGTH, None), 256),
    }
    table = np.zeros((ROWS, LENGTH), np.uint16)
    table[:, 1:] = tokens.reshape(ROWS, -1)
    held = datasets.Dataset.from_dict({"input_ids": table[:100_000].astype(np.int32)}).with_format("torch")
    order = np.random.default_rng(0).permutation(100_000)
    source: Any = table
    rows = grain.MapDataset.source(source).shuffle(0).map(lambda row: {"ids": row.astype(np.int32)}).repeat().batch(256)
    stream = iter(rows.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)))  # one thread, as ours
    peers: dict[str, Callable[[int], Any]] = {
        "datasets with PyTorch formatting, 256 x 128": lambda step: held[order[step * 256 % 90_000 :][:256]],
        "Grain per record, 256 x 128": lambda step: next(stream),
    }
    taken = medians({name: b.at for name, b in ours.items()} | peers, repeats)
    sizes = {name: b.at(0)["ids"].size for name, b in ours.items()} | dict.fromkeys(peers, 256 * LENGTH)
    return {name: round(sizes[name] / seconds / 1e6, 1) for name, seconds in taken.items()}


def sparse(repeats: int) -> dict[str, Any]:
    """A store of 100 GB: what opening it takes, and a batch at step 0 and at step 10**9."""
    with tempfile.TemporaryDirectory() as name:
        directory, tokens = Path(name), 50_000_000_000
        tokenizer = SentencePieceTokenizer.train(["a few words to train on, again and again"] * 50, 20)
        tokenizer.save(directory)
        shards = []
        for i in range(-(-tokens // SHARD)):
            size = min(SHARD, tokens - i * SHARD)
            unread = {"documents": 1, "sha256": "0" * 64, "documents_sha256": "0" * 64}
            shards.append({"file": f"train-{i:05d}.bin", "tokens": size, **unread})
            with open(directory / shards[-1]["file"], "wb") as file:
                file.truncate(2 * size)
        manifest = {
            "format": FORMAT,
            "dtype": "uint16",
            "vocab": tokenizer.size,
            "tokenizer": [{"file": "tokenizer.model", "sha256": hashlib.sha256(tokenizer.model).hexdigest()}],
            "data": {},
            "source": [],
            "train": {"documents": len(shards), "tokens": tokens, "shards": shards},
            "valid": {"documents": 0, "tokens": 0, "shards": []},
        }
        write_manifest(directory, manifest)
        store_module.verify = lambda *_: None  # which would read 100 GB, once
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.perf_counter()
        b = Batches(open_rows(Store(directory), "train", LENGTH), 256)
        b.at(0)
        opened = time.perf_counter() - started
        steps = {"step 0": 0, "step 10**9": 10**9}
        taken = medians({name: lambda step, at=at: b.at(at + step) for name, at in steps.items()}, repeats)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {
            "rows": b.rows,
            "shards": len(shards),
            "open and first batch, s": round(opened, 3),
            "resident, MiB": round(after / 1024),
            "more than before opening, MiB": round((after - before) / 1024),
            **{f"a batch at {name}, ms": round(1000 * seconds, 2) for name, seconds in taken.items()},
        }


def prepare(text: str, words: int | None, tokenizer_words: int, vocab: int) -> dict[str, Any]:
    """Seconds, tokens and memory of preparing (the first `words` of) a text, in this process."""
    with tempfile.TemporaryDirectory() as name:
        source = text_source([Path(text)])
        if words is not None:
            first = partial(_first, text, words)
            source = source._replace(groups=[g._replace(documents=first) for g in source.groups])
        data = Data(text=text, vocab=vocab, tokenizer_words=tokenizer_words)
        marks: dict[str, float] = {"start": time.perf_counter()}

        def progress(at: Any) -> None:
            marks.setdefault(at.stage, time.perf_counter())

        store = build(Path(name) / "store", data, [source], progress)
        done = time.perf_counter()
        assert store is not None
        tokens = sum(store.manifest[split]["tokens"] for split in ("train", "valid"))
        return {
            "tokens": tokens,
            "seconds": round(done - marks["start"], 1),
            "tokens/s while encoding": round(tokens / (done - marks["tokens"])),
            "resident, MiB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        }


def _first(text: str, words: int) -> Any:
    """The documents of a file, over and over, until they have so many words."""
    left = words
    for document in itertools.chain.from_iterable(documents([Path(text)]) for _ in itertools.count()):
        yield document
        left -= document.text.count(" ") + 1
        if left <= 0:
            return


def growth(text: str) -> dict[str, Any]:
    """`prepare` of more and more words, each in a process of its own, with one tokenizer's settings."""
    found = {}
    for millions in (1, 4, 16, 64):
        words = ["prepare", text, "--words", str(millions * 10**6), "--vocab", "8000", "--tokenizer-words", "500000"]
        done = subprocess.run([sys.executable, __file__, *words], check=True, capture_output=True, text=True)
        found[f"{millions} M words"] = json.loads(done.stdout.splitlines()[-1])
        print(f"{millions} M words: {found[f'{millions} M words']}", file=sys.stderr)
    return found


def main() -> None:
    """Print what was measured as one JSON object on the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["batches", "sparse", "prepare", "growth"])
    parser.add_argument("text", nargs="?")
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--words", type=int)
    parser.add_argument("--tokenizer-words", type=int, default=10_000_000)
    parser.add_argument("--vocab", type=int, default=32_000)
    args = parser.parse_args()
    if args.what in ("prepare", "growth") and not args.text:
        parser.error(f"{args.what} needs a text file")
    if args.what == "prepare":
        found = prepare(args.text, args.words, args.tokenizer_words, args.vocab)
    else:
        found = growth(args.text) if args.what == "growth" else globals()[args.what](args.repeats)
    for name, value in found.items():
        print(f"{name:50} {value}", file=sys.stderr)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
