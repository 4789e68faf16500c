"""The same training step in PyTorch with `transformers`, for `jaxmlm bench --peer transformers`.

In a process of its own, so that the threads and the allocator of neither are in the way of the other:
`python -m jaxmlm.tools.peer` reads a run, makes a step for each line that follows, and answers with its seconds.
"""

import base64
import importlib.util
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from jaxmlm.data import Batches, Vocabulary, open_rows
from jaxmlm.data.opening import open_store
from jaxmlm.errors import InputError
from jaxmlm.runs.run import Run
from jaxmlm.tools.aot import packed
from jaxmlm.tools.stand_ins import BlankStore
from jaxmlm.training import AdamW
from jaxmlm.wording import install_command

REST = 0.3
"""Seconds before and after a step in which the threads of a process fall asleep: OpenMP's spin for 0.2."""


class PeerProcess:
    """The peer of a run, in a process of its own.

    Args:
        run: what is trained.
        text: whether on the run's text, whose store is there; if not, on random tokens.

    Raises:
        InputError: PyTorch or `transformers` is missing.

    """

    def __init__(self, run: Run, text: bool):
        if missing := [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]:
            raise InputError(f"--peer transformers needs {missing[0]}: {install_command('parity')}")
        words = [sys.executable, "-m", "jaxmlm.tools.peer"]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.name = self._ask(base64.b64encode(packed((run, text))).decode())

    def step(self) -> float:
        """Make one training step; its seconds."""
        time.sleep(REST)
        seconds = float(self._ask("step"))
        time.sleep(REST)
        return seconds

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _ask(self, line: str) -> str:
        questions: Any = self._process.stdin
        answers: Any = self._process.stdout
        print(line, file=questions, flush=True)
        if not (answer := answers.readline()):
            raise RuntimeError(f"the peer's process ended with code {self._process.wait()}: see above")
        return answer.rstrip()


class Peer:
    """RoBERTa of the same size, batch, rate and dropout; its own attention, AdamW and, where it works, compiled."""

    def __init__(self, run: Run, tokenizer: Vocabulary, batches: Batches):
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        import torch
        import transformers

        c = run.model
        self.torch = torch
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.bf16 = c.dtype == "bfloat16"
        kind: Any = transformers.RobertaPreLayerNormForMaskedLM if c.norm == "pre" else transformers.RobertaForMaskedLM
        config = (transformers.RobertaPreLayerNormConfig if c.norm == "pre" else transformers.RobertaConfig)(
            vocab_size=tokenizer.size,
            hidden_size=c.width,
            num_hidden_layers=c.layers,
            num_attention_heads=c.heads,
            intermediate_size=c.mlp or 4 * c.width,
            hidden_dropout_prob=c.dropout,
            attention_probs_dropout_prob=c.attention_dropout,
            max_position_embeddings=max(c.max_positions, run.data.length) + 2,
        )
        torch.manual_seed(run.loop.seed)
        try:
            model = kind._from_config(config, attn_implementation="sdpa")
            self.attention = "sdpa"
        except (ValueError, TypeError):  # this architecture has no other than its own
            model = kind(config)
            self.attention = "eager"
        self.model = model.to(self.device).train()
        cuda = self.device.type == "cuda"
        ours = run.optim.optimizer if isinstance(run.optim.optimizer, AdamW) else AdamW()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, betas=(ours.b1, ours.b2), fused=cuda)
        self.called, self.compiled = self._compiled(
            self.model, (run.loop.batch // run.loop.accumulate * run.masking.views, run.data.length)
        )
        self.run = run
        self.tokenizer = tokenizer
        self.batches = batches
        self.at = 0
        self.draw = np.random.default_rng(run.loop.seed)

    @property
    def name(self) -> str:
        """What it is called beside its numbers."""
        how = "compiled" if self.compiled else "not compiled"
        return f"transformers ({type(self.model).__name__}, {self.attention}, {how})"

    def step(self) -> None:
        """One training step, waited for."""
        torch = self.torch
        run = self.run
        rows = np.repeat(self.batches.at(self.at)["ids"], run.masking.views, 0)
        # As its data collators mask: each token by itself.
        rate = run.masking.mean_predicted / run.masking.views
        chosen = (self.draw.random(rows.shape) < rate) & ~self.tokenizer.special[rows]
        inputs = np.where(chosen, self.tokenizer.mask_id, rows)
        labels = np.where(chosen, rows, -100)
        parts = zip(*(np.split(x, run.loop.accumulate) for x in (inputs, labels)), strict=True)
        self.optimizer.zero_grad(set_to_none=True)
        for ids, wanted in parts:
            ids, wanted = (torch.from_numpy(x.astype(np.int64)).to(self.device) for x in (ids, wanted))
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                loss = self.called(input_ids=ids, labels=wanted).loss
            (loss / run.loop.accumulate).backward()
        self.optimizer.step()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        self.at += 1

    def _compiled(self, model: Any, shape: tuple[int, int]) -> tuple[Any, bool]:
        """The model compiled for rows of this shape; as it is where the compiler fails."""
        torch = self.torch
        called = torch.compile(model, dynamic=False)
        try:
            ids = torch.full(shape, 5, device=self.device)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                called(input_ids=ids, labels=ids).loss.backward()
            model.zero_grad(set_to_none=True)
        except Exception:  # whatever a compiler throws, the peer runs as it is
            return model, False
        return called, True


def main() -> None:
    """Read a run from the first line, make a step for each further line."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is not an answer
    sys.dont_write_bytecode = True  # beside a config file
    run, text = pickle.loads(base64.b64decode(sys.stdin.readline()))
    if text:
        store = open_store(run.text, Path(run.workdir), "bench: peer", run.needs_phrases)
    else:
        store = BlankStore(run.data, 4 * run.loop.batch, run.loop.seed)
    rows = open_rows(store, "train", run.data.length, phrases=run.needs_phrases)
    peer = Peer(run, store.tokenizer, Batches(rows, run.loop.batch, run.loop.seed))
    print(peer.name, file=answers, flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        peer.step()
        print(time.perf_counter() - started, file=answers, flush=True)


if __name__ == "__main__":
    main()
