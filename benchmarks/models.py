"""An imported encoder beside PyTorch: python benchmarks/models.py            # needs the extra `parity`

Random weights of RoBERTa's base and large size, float32. The forward passes on 8 x 128 tokens take turns, each in a
process of its own. The import of the large one is timed in a process of its own too, for its peak of memory.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from turns import in_turns, jax_product, serve, torch_product

import jaxmlm
from jaxmlm.models import interchange
from jaxmlm.parallel import make_mesh

SIZES = {"base": (12, 768, 12), "large": (24, 1024, 16)}
IDS = np.random.default_rng(0).integers(5, 50_265, (8, 128)).astype(np.int32)


def main() -> None:
    """Print one JSON object a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--import-only", metavar="DIRECTORY", help=argparse.SUPPRESS)
    parser.add_argument("--only", choices=PASSES, help=argparse.SUPPRESS)
    parser.add_argument("--directory", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.only:
        PASSES[asked.only](asked.directory)
        return
    if asked.import_only:
        print(json.dumps(imported(asked.import_only)))
        return
    with tempfile.TemporaryDirectory() as directory:
        saved("base", Path(directory))
        found = in_turns(__file__, list(PASSES), ["--directory", directory], asked.rounds)
        print(json.dumps({"forward 8 x 128": found}))
        print(json.dumps({"fill_mask, base, one sentence": fill(directory, asked.rounds)}))
    with tempfile.TemporaryDirectory() as directory:
        saved("large", Path(directory))
        command = [sys.executable, __file__, "--import-only", directory]
        print(subprocess.run(command, check=True, capture_output=True, text=True).stdout, end="")


def saved(size: str, directory: Path) -> None:
    """Write a RobertaForMaskedLM with random weights, and a tokenizer of two words into a directory."""
    import tokenizers
    import torch
    import transformers

    torch.manual_seed(0)
    layers, width, heads = SIZES[size]
    config = transformers.RobertaConfig(
        vocab_size=50_265,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        max_position_embeddings=514,
    )
    model = transformers.RobertaForMaskedLM(config).eval()
    model.save_pretrained(directory)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    made = tokenizers.ByteLevelBPETokenizer()
    made.train_from_iterator(["a small city by the river"] * 9, vocab_size=300, special_tokens=special)
    transformers.RobertaTokenizerFast(tokenizer_object=made._tokenizer).save_pretrained(directory)


def forward(directory: str) -> None:
    """Make forward passes of our bare encoder."""
    with jax.set_mesh(make_mesh(devices=jax.devices()[:1])):
        encoder = jaxmlm.load(directory).encoder
        called = jax.jit(lambda encoder, ids, segments: encoder(ids, segments))
        serve(lambda: jax.block_until_ready(called(encoder, IDS, np.ones_like(IDS))), jax_product())


def their_forward(directory: str) -> None:
    """Make forward passes of PyTorch's."""
    import torch
    import transformers

    encoder = transformers.RobertaForMaskedLM.from_pretrained(directory).eval().roberta
    ids = torch.tensor(IDS).long()
    with torch.inference_mode():
        serve(lambda: encoder(ids), torch_product())


PASSES = {"jaxmlm": forward, "transformers": their_forward}


def fill(directory: str, rounds: int) -> dict[str, float]:
    """Milliseconds of fill_mask, the first call apart."""
    model, times = jaxmlm.load(directory), []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        model.fill_mask("a small [MASK] by the river")
        times.append(1000 * (time.perf_counter() - started))
    return {"first ms": round(times[0], 1), "then ms": round(statistics.median(times[1:]), 1)}


def imported(directory: str) -> dict[str, Any]:
    """Seconds and peak of memory of reading the large model, beside the bytes of its weights."""
    started = time.perf_counter()
    with jax.set_mesh(make_mesh(devices=jax.devices()[:1])):
        model = jax.block_until_ready(interchange.read(directory).model)
    seconds = time.perf_counter() - started
    # Not getrusage, which a child begins with the peak of its parent.
    peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 2**20
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(model)) / 2**30
    number = sum(leaf.size for leaf in jax.tree.leaves(model))
    return {
        "import": {"parameters": number, "seconds": round(seconds, 2), "weights GiB": round(weights, 2),
                   "peak GiB of the process": round(peak, 2), "peak / weights": round(peak / weights, 2)}
    }  # fmt: skip


if __name__ == "__main__":
    main()
