"""A training step beside PyTorch: python benchmarks/training.py [base mini]            # needs the extra `parity`

float32, dropout 0.1, masking rate 0.40, AdamW, on random token ids. The programs take turns, each in a process of its
own. The peer is the RobertaPreLayerNorm of transformers, its own best attention, compiled where
torch.compile finds a compiler: with logits at the masked positions only, as ours, and as users run it, `labels=` and
logits everywhere. `--draws` times dropout alone, beside what jax.random draws; `--parts` tells where our step's time
goes, by kinds of XLA's operations; `--checks` times our step beside one without the norms that are logged, and one that
does not look whether gradients are finite.
"""

import argparse
import json
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from turns import in_turns, jax_product, serve, torch_product

from jaxmlm.malloc import keep_freed_memory
from jaxmlm.masking import Masked, Masking, Tokens, Vocab, mask_batch
from jaxmlm.models import Encoder, MaskedLM, layers, preset
from jaxmlm.parallel import make_mesh, spec
from jaxmlm.tasks.mlm import predictions
from jaxmlm.training import Mean, Optim, Task
from jaxmlm.training import step as training_step
from jaxmlm.training.step import init_state, make_step

SIZES = {"base": (30_522, 8, 128), "mini": (8192, 32, 128)}
"""Vocabulary, rows and their length."""
RATE = 0.40
PROGRAMS = ("jaxmlm", "peer", "peer as users run it")
UNCHECKED = ("jaxmlm without norms", "jaxmlm without finiteness")


def main() -> None:
    """Print one JSON object a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", nargs="*", default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--no-compile", action="store_true", help="the peer without torch.compile")
    parser.add_argument("--alone", action="store_true", help="without the peer")
    parser.add_argument("--only", choices=[*PROGRAMS, *UNCHECKED], help=argparse.SUPPRESS)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--draws", action="store_true", help="dropout alone")
    parser.add_argument("--parts", action="store_true", help="milliseconds of our step by kinds of operations")
    parser.add_argument("--checks", action="store_true", help="what norms and finiteness cost our step")
    asked = parser.parse_args()
    if asked.parts:
        print(json.dumps({size: parts(ours(size, asked.dropout), asked.rounds) for size in asked.sizes}))
        return
    if asked.draws:
        print(json.dumps(draws(asked.rounds)))
        return
    if asked.only in ("jaxmlm", *UNCHECKED):
        keep_freed_memory()  # as the command does
        leave_out(asked.only)
        serve(ours(asked.sizes[0], asked.dropout), jax_product())
    elif asked.only:
        at_masked = asked.only == "peer"
        serve(theirs(asked.sizes[0], asked.dropout, not asked.no_compile, at_masked), torch_product())
    else:
        names = ("jaxmlm", *UNCHECKED) if asked.checks else PROGRAMS[:1] if asked.alone else PROGRAMS
        options = ["--dropout", str(asked.dropout), *(["--no-compile"] if asked.no_compile else [])]
        for size in asked.sizes:
            found = in_turns(__file__, names, [size, *options], asked.rounds)
            for name in names:
                found[name]["tokens/s"] = round(int(np.prod(SIZES[size][1:])) / found[name]["seconds"])
            print(json.dumps({size: found}), flush=True)


def draws(rounds: int) -> dict[str, Any]:
    """Least milliseconds of dropout, forward and backward, on the attention shares of a base layer and its output."""

    def plain(key: Any, rate: float, x: Any) -> Any:
        return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0.0)

    found: dict[str, Any] = {}
    with jax.set_mesh(make_mesh(devices=jax.devices()[:1])):
        for shape in ((8, 12, 128, 128), (8, 128, 768)):
            x, key, times = jnp.ones(shape), jax.random.key(0), {}
            for name, drop in {"jax.random.bernoulli": plain, "ours": layers.dropout}.items():
                call = jax.jit(jax.grad(lambda x, key, drop=drop: jnp.square(drop(key, 0.1, x)).sum()))
                jax.block_until_ready(call(x, key))
                times[name] = []
                for _ in range(rounds):
                    started = time.perf_counter()
                    jax.block_until_ready(call(x, key))
                    times[name].append(1000 * (time.perf_counter() - started))
            found[str(shape)] = {name: round(min(t), 2) for name, t in times.items()}
    return found


def leave_out(program: str) -> None:
    """Compile steps without the norms that are logged, or without looking whether gradients are finite."""
    norms, finiteness = UNCHECKED
    if program == norms:
        training_step._finite_norm = lambda tree: Mean(jnp.zeros(()), jnp.ones(()))
    elif program == finiteness:
        optax.apply_if_finite = lambda update, max_consecutive_errors: update


def parts(step: Callable[[], None], rounds: int) -> dict[str, float]:
    """Milliseconds of the operations of a step, the numbers that XLA gives them left out; the largest first."""
    spent: dict[str, float] = {}
    step()
    step()
    with tempfile.TemporaryDirectory() as directory:
        with jax.profiler.trace(directory):
            for _ in range(rounds):
                step()
        (file,) = Path(directory).rglob("*.xplane.pb")
        for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
            for event in (event for line in plane.lines for event in line.events):
                if "hlo_op" in dict(event.stats):
                    kind = re.sub(r"[.\d]+$", "", event.name)
                    spent[kind] = spent.get(kind, 0.0) + event.duration_ns / 1e6 / rounds
    return {kind: round(spent[kind], 1) for kind in sorted(spent, key=lambda kind: -spent[kind])[:20]}


def ours(size: str, dropout: float) -> Callable[[], None]:
    """A step of the real `make_step`; ids are new each time."""
    vocab, rows, length = SIZES[size]
    config = preset(size, dropout=dropout, attention_dropout=dropout)
    words = Vocab(vocab, 4, 0, np.arange(5, vocab, dtype=np.int32))
    mesh = make_mesh(devices=jax.devices()[:1])

    def corrupt(batch: Any, key: jax.Array, step: jax.Array) -> Any:
        def local(key: Any, ids: Any, example: Any, step: Any) -> Masked:
            tokens = Tokens(ids, ids > 4, jnp.ones(ids.shape, jnp.uint8))
            return mask_batch(Masking(RATE), key, example, tokens, words, step)

        row: Any = spec("batch", None)
        mask_sharded: Any = jax.sharding.auto_axes(local, out_sharding=Masked(row, row, row, row))
        return mask_sharded(key, batch["ids"], batch["example"], step)._asdict()

    def loss(model: Any, batch: Any, key: jax.Array, step: jax.Array) -> tuple[Mean, dict[str, Mean]]:
        nats, right = predictions(model, Masked(**batch), None, key)
        count = batch["weights"].sum()
        return Mean(nats.sum(), count), {"accuracy": Mean(right.sum(), count)}

    init = jax.jit(lambda key: MaskedLM(Encoder(config, vocab, key), key))
    rng = np.random.default_rng(0)
    with jax.set_mesh(mesh):
        task = Task(init, loss, lambda step: {}, {}, 1, corrupt)
        optimizer = Optim(1e-4).transformation(1000)
        step, key = make_step(task, optimizer), jax.random.key(0)
        held = [init_state(task, optimizer, key)]

    def run() -> None:
        ids = rng.integers(5, vocab, (rows, length)).astype(np.int32)
        with jax.set_mesh(mesh):
            held[0], metrics = step(held[0], {"ids": ids, "example": np.arange(rows, dtype=np.int32)}, key)
            jax.block_until_ready((held[0], metrics))

    return run


def theirs(size: str, dropout: float, compiled: bool, at_masked: bool) -> Callable[[], None]:
    """A step of PyTorch: forward, backward, AdamW."""
    import torch
    import transformers

    vocab, rows, length = SIZES[size]
    ours = preset(size)
    config = transformers.RobertaPreLayerNormConfig(
        vocab_size=vocab, hidden_size=ours.width, num_hidden_layers=ours.layers, num_attention_heads=ours.heads,
        intermediate_size=4 * ours.width, max_position_embeddings=514, hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout, pad_token_id=1,
    )  # fmt: skip
    model = transformers.RobertaPreLayerNormForMaskedLM(config).train()
    decayed = [p for name, p in model.named_parameters() if p.ndim > 1]
    rest = [p for name, p in model.named_parameters() if p.ndim == 1]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-4, betas=(0.9, 0.98), eps=1e-6, fused=True)
    masked = round(RATE * (length - 2))
    every = torch.arange(rows)[:, None]

    def loss(ids: Any, at: Any, targets: Any) -> Any:
        if at_masked:
            hidden = model.roberta_prelayernorm(ids)[0]
            logits = model.lm_head(hidden[every, at])
            return torch.nn.functional.cross_entropy(logits.view(-1, vocab), targets.reshape(-1))
        labels = torch.full_like(ids, -100).scatter(1, at, targets)
        return model(ids, labels=labels).loss

    called = torch.compile(loss) if compiled else loss
    rng = np.random.default_rng(0)

    def run() -> None:
        ids = torch.from_numpy(rng.integers(5, vocab, (rows, length)))
        at = torch.argsort(torch.rand(rows, length), dim=1)[:, :masked]
        targets = torch.gather(ids, 1, at)
        ids = ids.scatter(1, at, 4)
        optimizer.zero_grad()
        called(ids, at, targets).backward()
        optimizer.step()

    return run


if __name__ == "__main__":
    main()
