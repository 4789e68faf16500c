"""The same training step in PyTorch with `transformers`, for `jaxmlm bench --peer transformers`."""

import importlib.util
import os
from typing import Any

import numpy as np

from jaxmlm.data import Batches, Vocabulary
from jaxmlm.errors import InputError
from jaxmlm.runs.run import Run
from jaxmlm.training import AdamW


class Peer:
    """RoBERTa of the same size, batch, rate and dropout; its own attention, AdamW and, where it works, compiled."""

    def __init__(self, run: Run, tokenizer: Vocabulary, batches: Batches):
        if missing := [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]:
            raise InputError(f"--peer transformers needs {missing[0]}: pip install 'jaxmlm[parity]'")
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
