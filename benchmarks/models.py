"""Forward pass of an imported base model beside PyTorch, in one process on the same cores: python benchmarks/models.py

Random weights, RoBERTa base, batch 8 x 128, float32; the better of alternating rounds: both see the same machine.
"""

import json
import tempfile
import time

import jax
import numpy as np
import torch
import transformers

from jaxmlm.models import interchange
from jaxmlm.parallel import make_mesh

ROUNDS = 5


def main() -> None:
    """Print the seconds of both, their ratio, and how long the import took."""
    torch.manual_seed(0)
    theirs = transformers.RobertaModel(transformers.RobertaConfig(max_position_embeddings=514), False).eval()
    ids = np.random.default_rng(0).integers(5, 50_265, (8, 128)).astype(np.int32)
    segments = np.ones_like(ids)
    with tempfile.TemporaryDirectory() as folder, jax.set_mesh(make_mesh(devices=jax.devices()[:1])):
        theirs.save_pretrained(folder)
        started = time.perf_counter()
        ours = jax.block_until_ready(interchange.read(folder).model)
        imported = time.perf_counter() - started
        forward = jax.jit(lambda model, ids, segments: model(ids, segments))
        jax.block_until_ready(forward(ours, ids, segments))
        torch_ids = torch.tensor(ids).long()
        seconds: dict[str, list[float]] = {"jaxmlm": [], "transformers": []}
        for _ in range(ROUNDS):
            started = time.perf_counter()
            jax.block_until_ready(forward(ours, ids, segments))
            seconds["jaxmlm"].append(time.perf_counter() - started)
            started = time.perf_counter()
            with torch.inference_mode():
                theirs(torch_ids)
            seconds["transformers"].append(time.perf_counter() - started)
    best = {name: round(min(values), 4) for name, values in seconds.items()}
    ratio = round(best["transformers"] / best["jaxmlm"], 3)
    print(json.dumps({**best, "ratio": ratio, "import_seconds": round(imported, 2)}))


if __name__ == "__main__":
    main()
