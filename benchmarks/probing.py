"""Minimal pairs beside transformers: python benchmarks/probing.py DIRECTORY --checkpoint RUN   # BLiMP; extra `parity`

RUN is a run's directory, one of no steps will do; the peer has its sizes and random weights. `--pairs` of each set are
scored by both in turns, float32. Theirs is the usual loop: the masked copies of 16 sentences make a batch, padded to
its longest, and all logits are computed. `--all` scores all 67,000 pairs with ours alone, as `jaxmlm evaluate --blimp
DIRECTORY --all` does.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxmlm.parallel import make_mesh, place
from jaxmlm.runs.evaluation import fast
from jaxmlm.runs.loading import LoadedModel, load
from jaxmlm.tasks import blimp, likelihood
from jaxmlm.training import evaluate

PAIRS = 67_000
SENTENCES = 16
"""Sentences in a batch of the peer's."""


def main() -> None:
    """Print one JSON object a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory")
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--pairs", type=int, default=5, help="of each set")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=likelihood.BATCH)
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--all", action="store_true")
    asked = parser.parse_args()
    mesh = make_mesh(devices=jax.devices()[:1])
    with jax.set_mesh(mesh):
        loaded = load(asked.checkpoint)
        if asked.all:
            print(json.dumps(everything(loaded, asked, mesh)), flush=True)
        else:
            print(json.dumps(parts(loaded, asked, mesh)), flush=True)
            print(json.dumps(compared(loaded, asked, mesh)), flush=True)


def everything(loaded: LoadedModel, asked: argparse.Namespace, mesh: Any) -> dict[str, Any]:
    """All pairs of all sets, from the files to the scores."""
    started = time.perf_counter()
    judge = blimp.evaluation(asked.directory, loaded.tokenizer, pairs_per_set=None, batch=asked.batch)
    scores = evaluate(judge, fast(loaded), mesh)
    return {"minutes": round((time.perf_counter() - started) / 60, 2), "accuracy": scores["accuracy"]}


def parts(loaded: LoadedModel, asked: argparse.Namespace, mesh: Any) -> dict[str, Any]:
    """Where the time goes: reading, encoding, making batches, the model on each padded length; and its FLOP/s."""
    seconds, model = {}, fast(loaded)
    seconds["read and encode all"], copies = _timed(lambda: _copies(loaded, asked, None))
    few = _copies(loaded, asked, asked.pairs)
    seconds["make batches"], batches = _timed(lambda: list(few.batches()))
    predict = jax.jit(likelihood.predict)
    placed = [place(batch, mesh) for batch in batches]
    for length in {batch["ids"].shape[1] for batch in batches}:
        jax.block_until_ready(predict(model, next(b for b in placed if b["ids"].shape[1] == length)))
    seconds["model"], _ = _timed(lambda: [jax.block_until_ready(predict(model, batch)) for batch in placed])
    padded = sum(batch["ids"].size for batch in batches)
    real = sum(float(batch["weight"].sum()) for batch in batches)
    d, vocab = loaded.config.width, loaded.tokenizer.size
    head = vocab * d + d**2
    flops = 2 * (
        padded * ((loaded.config.layers - 1) * 12 + 2) * d * d + len(batches) * asked.batch * (10 * d * d + head)
    )
    return {
        **{f"{name} s": round(value, 2) for name, value in seconds.items()},
        "masked copies": real, "of all": int(copies.tokens.sum()), "padding": round(1 - _positions(few) / padded, 3),
        "GFLOP/s of the model": round(flops / seconds["model"] / 1e9, 1),
    }  # fmt: skip


def compared(loaded: LoadedModel, asked: argparse.Namespace, mesh: Any) -> dict[str, Any]:
    """Pairs a second of both, medians over rounds, and what all pairs would take by their masked tokens."""
    judge = blimp.evaluation(asked.directory, loaded.tokenizer, pairs_per_set=asked.pairs, batch=asked.batch)
    model, predict = fast(loaded), jax.jit(judge.predict)
    few, every = (_copies(loaded, asked, pairs) for pairs in (asked.pairs, None))
    runs: dict[str, Callable[[], Any]] = {"jaxmlm": lambda: evaluate(judge, model, mesh, predict)}
    runs["jaxmlm"]()  # compiles
    if not asked.no_peer:
        runs["transformers"] = peer(few.rows, loaded)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(asked.rounds):
        for name, run in runs.items():
            seconds[name].append(_timed(run)[0])
    found: dict[str, Any] = {"pairs": len(few.rows) // 2}
    for name, times in seconds.items():
        middle = statistics.median(times)
        found[f"{name}: pairs/s"] = round(len(few.rows) / 2 / middle, 1)
        found[f"{name}: minutes for all {PAIRS:,}"] = round(middle * _positions(every) / _positions(few) / 60, 1)
    if not asked.no_peer:
        ratios = [b / a for a, b in zip(seconds["jaxmlm"], seconds["transformers"], strict=True)]
        found |= {"ratio": round(statistics.median(ratios), 2), "rounds": [round(ratio, 2) for ratio in ratios]}
    return found


def peer(rows: list[np.ndarray], loaded: LoadedModel) -> Callable[[], None]:
    """The loop over batches of sentences in PyTorch."""
    import torch
    import transformers

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    c, tokenizer = loaded.config, loaded.tokenizer
    config = transformers.RobertaConfig(
        vocab_size=tokenizer.size, hidden_size=c.width, num_hidden_layers=c.layers, num_attention_heads=c.heads,
        intermediate_size=c.mlp or 4 * c.width, pad_token_id=tokenizer.pad_id,
    )  # fmt: skip
    model = transformers.RobertaForMaskedLM(config).eval()

    def run() -> None:
        for first in range(0, len(rows), SENTENCES):
            some = rows[first : first + SENTENCES]
            longest = max(map(len, some))
            ids, places = [], []
            for row in some:
                for place_ in range(1, len(row) - 1):
                    ids.append(np.pad(row, (0, longest - len(row)), constant_values=tokenizer.pad_id))
                    places.append(place_)
            batch = torch.tensor(np.array(ids, np.int64))
            at = torch.arange(len(places)), torch.tensor(places)
            truth = batch[at]
            mask = (batch != tokenizer.pad_id).long()
            batch[at] = tokenizer.mask_id
            with torch.inference_mode():
                logits = model(input_ids=batch, attention_mask=mask).logits[at]
                logits.log_softmax(-1)[torch.arange(len(places)), truth].tolist()

    return run


def _copies(loaded: LoadedModel, asked: argparse.Namespace, pairs: int | None) -> likelihood.Copies:
    read = blimp.read(asked.directory, pairs)
    return likelihood.Copies(blimp.rows(read, loaded.tokenizer), loaded.tokenizer, asked.batch)


def _positions(copies: likelihood.Copies) -> int:
    """Tokens in all masked copies, padding not counted."""
    return sum(len(row) * int(tokens) for row, tokens in zip(copies.rows, copies.tokens, strict=True))


def _timed(run: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    found = run()
    return time.perf_counter() - started, found


if __name__ == "__main__":
    main()
