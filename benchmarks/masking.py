"""Masking against the collator of `transformers` in one run: tokens/s on 256 x 128 tokens, and growth with length.

    python benchmarks/masking.py            # needs the extra `parity`

Each line is the median of `--repeats` calls; ours and the peer's calls alternate, so that a busy machine slows both.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmlm.masking import Masking, PhraseUnits, SpanUnits, Tokens, TokenUnits, Vocab, WordUnits, mask_batch
from jaxmlm.models import Encoder, EncoderConfig, MaskedLM
from jaxmlm.parallel import make_mesh
from jaxmlm.rng import step_key

OURS = {
    "uniform": Masking(0.15, units=TokenUnits()),
    "words": Masking(0.15, units=WordUnits()),
    "spans": Masking(0.15, units=SpanUnits()),
    "phrases": Masking(0.15, units=PhraseUnits()),
}
COLLATOR = "transformers' collator, uniform"
WORDS = 4000
VOCAB = Vocab(WORDS + 5, 4, 0, np.arange(5, WORDS + 5, dtype=np.int32))


def rows(batch: int, length: int) -> Tokens:
    """Random tokens, of which 70 % start a word and 40 % a phrase."""
    random = np.random.default_rng(0)
    ids = random.integers(5, WORDS + 5, (batch, length)).astype(np.int32)
    word = random.random(ids.shape) < 0.7
    phrase = word & (random.random(ids.shape) < 0.6)
    maskable = np.arange(length)[None].repeat(batch, 0) > 0
    return Tokens(jnp.asarray(ids), jnp.asarray(maskable), jnp.asarray((word + 2 * phrase).astype(np.uint8)))


def ours(masking: Masking, tokens: Tokens) -> Callable[[int], Any]:
    """A call that masks the rows at a step; what it takes to compile is told by its first call."""
    ids = jnp.arange(len(tokens.ids), dtype=jnp.int32)
    masked = jax.jit(lambda tokens, step: mask_batch(masking, step_key(0, step), ids, tokens, VOCAB, step))
    return lambda step: jax.block_until_ready(masked(tokens, jnp.int32(step)))


def peers(tokens: Tokens) -> dict[str, Callable[[int], Any]]:
    """DataCollatorForLanguageModeling as a DataLoader calls it, on a list of examples; and its masking alone.

    The examples say which tokens are special, as those of its run_mlm.py do: else it looks for them on every call.
    """
    import torch
    from tokenizers import Tokenizer, models
    from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerFast

    words = {f"w{i}": i for i in range(WORDS + 5)}
    names = {"pad_token": "w0", "unk_token": "w1", "cls_token": "w2", "sep_token": "w3", "mask_token": "w4"}
    fast = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="w1")), **names)
    collate: Any = DataCollatorForLanguageModeling(fast, mlm_probability=0.15)
    rows, marks = np.asarray(tokens.ids).tolist(), (~np.asarray(tokens.maskable)).astype(int).tolist()
    examples = [{"input_ids": row, "special_tokens_mask": mark} for row, mark in zip(rows, marks, strict=True)]
    ids = torch.tensor(np.asarray(tokens.ids), dtype=torch.long)
    special = torch.tensor(~np.asarray(tokens.maskable))
    return {
        COLLATOR: lambda step: collate(examples),
        "its masking alone, on tensors": lambda step: collate.torch_mask_tokens(ids.clone(), special.clone()),
    }


def median_seconds(calls: dict[str, Callable[[int], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each call, taken in turns."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for step in range(repeats):
        for name, call in calls.items():
            started = time.perf_counter()
            call(step)
            taken[name].append(time.perf_counter() - started)
    return {name: statistics.median(times) for name, times in taken.items()}


def training_step(rows: int = 32) -> float:
    """Seconds that forward and backward of the 4x256 encoder take for 256 x 128 tokens, of which 15 % are predicted.

    Measured on fewer rows and multiplied: the optimiser, whose cost does not grow with rows, is left out.
    """
    config = EncoderConfig(layers=4, width=256, heads=4, positions="rope")
    with jax.set_mesh(make_mesh(devices=jax.devices()[:1])):
        model = MaskedLM(Encoder(config, WORDS + 5, jax.random.key(0)), jax.random.key(1))
        ids = jnp.zeros((rows, 128), jnp.int32)
        positions = jnp.arange(20)[None].repeat(rows, 0)

        def loss(model: MaskedLM) -> jax.Array:
            return jax.nn.logsumexp(model.logits(model.encoder(ids, jnp.ones_like(ids)), positions), -1).sum()

        gradient = jax.jit(jax.grad(loss))
        call = {"step": lambda _: jax.block_until_ready(gradient(model))}
        call["step"](0)
        return median_seconds(call, 3)["step"] * 256 / rows


def main() -> None:
    """Print one JSON object a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=30)
    repeats = parser.parse_args().repeats
    tokens = rows(256, 128)
    calls = peers(tokens)
    for name, masking in OURS.items():
        calls[name] = ours(masking, tokens)
        started = time.perf_counter()
        calls[name](0)
        print(json.dumps({"masking": name, "seconds to compile and run once": round(time.perf_counter() - started, 2)}))
    seconds = median_seconds(calls, repeats)
    peer = seconds[COLLATOR]
    for name, taken in seconds.items():
        print(json.dumps({"masking": name, "tokens": "256 x 128", "million tokens/s": round(256 * 128 / taken / 1e6, 2),
                          "times the collator": round(peer / taken, 2)}))  # fmt: skip
    step = training_step()
    for name in OURS:
        print(json.dumps({"masking": name, "share of a 4x256 training step": f"{seconds[name] / step:.2%}"}))
    for length in (128, 512, 2048, 8192):
        grown = rows(16, length)
        for name, taken in median_seconds({k: ours(m, grown) for k, m in OURS.items()}, max(3, repeats // 5)).items():
            print(json.dumps({"masking": name, "tokens": f"16 x {length}",
                              "nanoseconds a token": round(taken / (16 * length) * 1e9, 1)}))  # fmt: skip


if __name__ == "__main__":
    main()
