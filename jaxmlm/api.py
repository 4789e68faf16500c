"""The Python interface: `jaxmlm.load(path)` gives a model that fills masks, embeds, classifies, answers and tags."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmlm import forward
from jaxmlm.data.buckets import by_length, edges_to, pad
from jaxmlm.data.inputs import Inputs, with_special_tokens
from jaxmlm.errors import InputError
from jaxmlm.parallel import make_mesh
from jaxmlm.rng import make_key
from jaxmlm.runs import loading
from jaxmlm.tasks import sampling
from jaxmlm.tasks.bound import likelihood_bound
from jaxmlm.tasks.entities import Tagged, tagged
from jaxmlm.tasks.likelihood import rows_of_documents
from jaxmlm.tasks.squad_windows import spaced
from jaxmlm.training import evaluate

MASKS = ("[MASK]", "<mask>")
"""How a masked word may be written in a text, whatever the tokenizer calls it."""


class Filled(NamedTuple):
    """A prediction for a mask: the text of its piece, its id and its probability."""

    token: str
    id: int
    probability: float


class Answer(NamedTuple):
    """A part of a context, where it begins and ends in it, and its score (the sum of the two logits)."""

    text: str
    begin: int
    end: int
    score: float


class PretrainedModel:
    """A pre-trained model with its tokenizer.

    One class for all heads: which head a checkpoint has is known when it is read, so a class of its own for each would
    leave `load` without a type that editors can complete. A method that needs another head says so.

    Attributes:
        model: the encoder with its head.
        kind: what the head is for: mlm, classify, answer, tokens, or encoder (none).
        labels: the names of the outputs of `classify` and `tag`.
        about: what the run's run.json says, or which architecture was read.

    Text is text: what spells a special token is not one. `fill_mask`, `logits` and `sample` alone read the mask token,
    written [MASK] or <mask>. `types`: the second text of a pair gets the second token type.

    Inputs are padded to a few lengths and batches to powers of two, so that few programs are compiled.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        kind: str,
        labels: tuple[str, ...],
        about: dict[str, Any],
        types: bool = False,
        source: str | Path | None = None,
    ):
        self.tokenizer = tokenizer
        self.kind = kind
        self.labels = labels
        self.about = about
        self.types = types
        self.source = source
        self.encoder = model if kind == "encoder" else model.encoder
        if jax.default_backend() == "cpu":
            self.encoder = self.encoder.unstacked()
        self.model = self.encoder if kind == "encoder" else jax.tree.map(lambda x: x, model)
        if kind != "encoder":
            self.model.encoder = self.encoder
        self.longest = loading.longest_input(self.encoder.config)
        self._mesh = make_mesh(devices=jax.devices()[:1])

    def __repr__(self) -> str:
        """What was loaded: what it is for, its sizes, its tokenizer, where it is from."""
        c = self.encoder.config
        origin = self.about.get("architecture") or f"{c.positions} positions"
        labels = f", labels {', '.join(self.labels)}" if self.labels else ""
        return (
            f"<{type(self).__name__} {self.kind}: {c.layers} x {c.width}, {c.heads} heads, {origin}{labels}; "
            f"{type(self.tokenizer).__name__}, {self.tokenizer.size:,} pieces; reads {self.longest:,} tokens; "
            f"from {self.source or 'memory'}>"
        )

    def fill_mask(self, text: str, top: int = 5) -> list[list[Filled]]:
        """The `top` predictions for each mask of a text, best first; a mask is written [MASK] or <mask>.

        Probabilities are normalised over the tokens that are not special.
        """
        self._needs("mlm", "fill_mask")
        _at_least("top", top, 1)
        ids = self._ids(text, masks=True)
        places = [i for i, token in enumerate(ids) if token == self.tokenizer.mask_id]
        if not places:
            raise InputError(f"the text {text[:60]!r} has no {MASKS[0]}: write one where a word is to be filled in")
        logits = self._logits_of_row(ids, places)
        filled = []
        for row in logits:
            row = row[: len(self.tokenizer.special)].copy()
            row[self.tokenizer.special[: len(row)]] = -np.inf
            shares = np.exp(row - np.logaddexp.reduce(row.astype(np.float64)))
            best = np.argsort(-row, kind="stable")[: min(top, int(np.isfinite(row).sum()))]
            filled.append([Filled(self._word(int(i)), int(i), float(shares[i])) for i in best])
        return filled

    def score(self, text: str) -> float:
        """The pseudo-log-likelihood of a text in nats: each token masked in turn (Salazar et al. 2020)."""
        self._needs("mlm", "score")
        ids = self._ids(text)
        places = [i for i in range(1, len(ids) - 1)]
        rows = [[*ids[:i], self.tokenizer.mask_id, *ids[i + 1 :]] for i in places]
        if not rows:
            return 0.0
        logits = self._masked_logits(rows, places).astype(np.float64)
        return float(sum(row[ids[i]] - np.logaddexp.reduce(row) for row, i in zip(logits, places, strict=True)))

    def bound(self, texts: Sequence[str], length: int = 128, draws: int = 1, seed: int = 0) -> dict[str, float]:
        """The likelihood bound of texts: an upper bound of their negative log-likelihood, averaged over masking rates.

        Args:
            texts: documents; a longer one is cut into several rows.
            length: most tokens of a row, special tokens included.
            draws: how often each row is masked, each time another number of its tokens.
            seed: of the masks.

        Returns:
            "bound" (nats per token), "bits_per_word", "bits_per_byte", each with its standard error over the rows
            ("bound_se") where there are four rows or more; the parts and the curve of `jaxmlm.tasks.bound.estimate`.

        """
        self._needs("mlm", "bound")
        _at_least("draws", draws, 1)
        _at_least("length", length, 3)
        rows = rows_of_documents(map(_text, _several(texts)), self.tokenizer, min(length, self.longest), None)
        batch = min(32, 1 << math.ceil(math.log2(len(rows.ids) * draws)))
        with jax.set_mesh(self._mesh):
            return evaluate(likelihood_bound(rows, self.tokenizer, batch, draws, seed), self.model, self._mesh)

    def sample(
        self,
        template: str | int,
        steps: int | None = None,
        key: jax.Array | None = None,
        order: sampling.Order = "certain",
        temperature: float = 1.0,
    ) -> str:
        """Write text: fill in what is masked, step by step.

        Args:
            template: a text with masks, written [MASK] or <mask>; or a number of tokens, of which all are masked.
            steps: passes of the model; None: one for each mask.
            key: of the draws; None: the key of seed 0.
            order: "certain": a step keeps the tokens that the model is most certain of; "random": any.
            temperature: tokens are drawn from the probabilities to the power 1 / temperature; 0: the most probable.

        Returns:
            the text, as the tokenizer writes it.

        """
        self._needs("mlm", "sample")
        t = self.tokenizer
        if isinstance(template, str):
            ids = self._ids(template, masks=True)
        else:
            _at_least("template", template, 1)
            self._check_length(template + 2)
            ids = with_special_tokens(t, [t.mask_id] * template).ids
        with jax.set_mesh(self._mesh):
            row, segments, _ = self._batch([ids], None)
            filled = sampling.fill_in(
                self.model,
                row,
                segments,
                t.mask_id,
                t.special,
                make_key(0) if key is None else key,
                steps,
                order,
                temperature,
            )
        return t.decode(filled[0, 1 : len(ids) - 1].tolist()).strip()

    def embed(self, texts: Sequence[str], pool: str = "mean") -> np.ndarray:
        """One vector [B, D] for each text: the mean over its tokens, or that of the first token (pool="first")."""
        if pool not in ("mean", "first"):
            raise InputError(f"pool is {pool!r}: mean or first")
        run = forward.mean if pool == "mean" else forward.first
        rows = [self._ids(text) for text in _several(texts)]
        return self._over(rows, lambda ids, segments, _: run(self.encoder, ids, segments), self.encoder.config.width)

    def logits(self, text: str) -> np.ndarray:
        """Logits [L, V] over the vocabulary at every token of a text, first and last special tokens included.

        A mask in the text is written [MASK] or <mask>.
        """
        self._needs("mlm", "logits")
        ids = self._ids(text, masks=True)
        return self._logits_of_row(ids, list(range(len(ids))))

    def classify(self, texts: Sequence[str | tuple[str, str]]) -> list[dict[str, float]]:
        """For each text, or pair of texts, the probability of every label; of one label (regression) its number."""
        self._needs("classify", "classify")
        pairs = [self._pair(text) for text in _several(texts)]
        rows = [ids for ids, _ in pairs]
        types = [kinds for _, kinds in pairs]
        outputs = self._over(rows, partial(forward.called, self.model), len(self.labels), types)
        if len(self.labels) > 1:
            outputs = np.exp(outputs - np.logaddexp.reduce(outputs, axis=-1, keepdims=True))
        return [{name: float(value) for name, value in zip(self.labels, row, strict=True)} for row in outputs]

    def answer(self, question: str, context: str, longest: int = 30) -> Answer:
        """The best span of at most `longest` tokens of the context; the context is cut to what the model reads.

        InputError if the question or the context is empty, or if the question leaves no room for a context.
        """
        self._needs("answer", "answer")
        _at_least("longest", longest, 1)
        asked = self._tokens(spaced(_text(question)))
        ids, offsets = self.tokenizer.encode_offsets(_text(context))
        for what, size in (("question", len(asked)), ("context", len(ids))):
            if not size:
                raise InputError(f"the {what} is empty: give a text with at least one token")
        first = 1 + len(asked) + len(self.tokenizer.pair_separator_ids)
        ids = ids[: max(self.longest - first - 1, 0)]
        if not ids:
            raise InputError(
                f"the question has {len(asked)} tokens and the model reads {self.longest}, which leaves none for "
                "the context: shorten it"
            )
        row, types = self._with_types(with_special_tokens(self.tokenizer, asked, ids))
        with jax.set_mesh(self._mesh):
            batch = self._batch([row], [types])
            outputs = np.asarray(forward.called(self.model, *batch))[0, first : first + len(ids)]
        scores = outputs[:, None, 0] + outputs[None, :, 1]
        at = np.arange(len(ids))
        allowed = (at[None] >= at[:, None]) & (at[None] < at[:, None] + longest)
        start, end = np.unravel_index(np.where(allowed, scores, -np.inf).argmax(), scores.shape)
        begin = offsets[start][0]
        stop = offsets[end][1]
        return Answer(context[begin:stop], begin, stop, float(scores[start, end]))

    def tag(self, text: str) -> list[Tagged]:
        """The entities of a text with their characters in it; with other tags than BIO, every word with its tag."""
        self._needs("tokens", "tag")
        ids, offsets = self.tokenizer.encode_offsets(_text(text))
        row = with_special_tokens(self.tokenizer, ids).ids
        with jax.set_mesh(self._mesh):
            logits = np.asarray(forward.called(self.model, *self._batch([row], None)))[0, 1 : len(row) - 1]
        return tagged(text, offsets, logits, self.labels)

    def _needs(self, kind: str, method: str) -> None:
        if self.kind != kind:
            raise InputError(f"{method} needs a model of kind {kind!r}, and this one is {self.kind!r}: load another")

    def _ids(self, text: str, masks: bool = False) -> list[int]:
        """The ids of a text with its special tokens; with `masks` those that it spells become the mask token."""
        return with_special_tokens(self.tokenizer, self._tokens(text, masks)).ids

    def _tokens(self, text: str, masks: bool = False) -> list[int]:
        t = self.tokenizer
        text = _text(text)
        if masks:
            for name in MASKS:
                text = text.replace(name, t.pieces([t.mask_id])[0])
        ids = t.encode_masked(text) if masks else t.encode(text)
        self._check_length(len(ids) + 2)
        return ids

    def _check_length(self, tokens: int) -> None:
        if tokens > self.longest:
            raise InputError(f"the text has {tokens} tokens, the model reads {self.longest}: shorten it")

    def _pair(self, text: str | Sequence[str]) -> tuple[list[int], list[int]]:
        if isinstance(text, str):
            ids = self._ids(text)
            return ids, [0] * len(ids)
        if not isinstance(text, Sequence) or len(text) != 2:
            raise InputError(f"{text!r} is neither a text nor a pair of texts: give a string, or two in a tuple")
        first, second = map(self._tokens, text)
        return self._with_types(with_special_tokens(self.tokenizer, first, second))

    def _with_types(self, inputs: Inputs) -> tuple[list[int], list[int]]:
        """Ids and token types, which are 0 where the model has one type only."""
        return inputs.ids, inputs.types if self.types else [0] * len(inputs.ids)

    def _word(self, i: int) -> str:
        return self.tokenizer.decode([i]).strip() or "▁"  # the space that begins a word is a piece too

    def _logits_of_row(self, ids: list[int], places: list[int]) -> np.ndarray:
        """Logits [P, V] at these places of one row, in one pass."""
        with jax.set_mesh(self._mesh):
            row, segments, _ = self._batch([ids], None)
            at = pad([places], 1 << math.ceil(math.log2(len(places))), 0)
            return np.asarray(forward.logits(self.model, row, segments, at))[0, : len(places), : self.encoder.vocab]

    def _masked_logits(self, rows: list[list[int]], places: list[int]) -> np.ndarray:
        marks = [[int(i == at) for i in range(len(row))] for row, at in zip(rows, places, strict=True)]
        return self._over(rows, partial(forward.marked, self.model), self.encoder.vocab, marks)

    def _over(self, rows: list[list[int]], run: Any, width: int, extra: list[list[int]] | None = None) -> np.ndarray:
        """`run` on batches of rows of similar length; its outputs [B, width] in order."""
        outputs = np.zeros((len(rows), width), np.float32)
        with jax.set_mesh(self._mesh):
            for some in by_length([len(row) for row in rows]):
                batch = self._batch([rows[i] for i in some], [extra[i] for i in some] if extra else None)
                outputs[some] = np.asarray(run(*batch))[: len(some), :width]
        return outputs

    def _batch(self, rows: list[list[int]], extra: list[list[int]] | None) -> tuple[Any, Any, Any]:
        size = 1 << math.ceil(math.log2(len(rows)))
        full = [*rows, *rows[:1] * (size - len(rows))]
        most = max(map(len, rows))
        if most > self.longest:
            raise InputError(f"an input has {most} tokens, the model reads {self.longest}: shorten it")
        length = next(edge for edge in edges_to(self.longest) if edge >= most)
        ids = pad(full, length, self.tokenizer.pad_id)
        segments = pad([[1] * len(row) for row in full], length, 0)
        more = [*extra, *extra[:1] * (size - len(rows))] if extra else [[0]] * size
        return ids, segments, pad(more, length, 0)


def _text(text: Any) -> str:
    if not isinstance(text, str):
        raise InputError(f"a text is a string, got {text!r} ({type(text).__name__})")
    return text


def _several(texts: Any) -> Any:
    if isinstance(texts, str):
        raise InputError(f"this takes several texts, got one: give a list, [{texts[:60]!r}]")
    return texts


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise InputError(f"{name} is {value}: it must be at least {least}")


def load(path: str | Path) -> PretrainedModel:
    """Load a model to use it, on the first device.

    Args:
        path: the directory of a run, of which the newest complete checkpoint is read, of one of its steps, of a
            fine-tuned model, or of a model in the `transformers` format; or the name of one on the Hub: hf:org/name,
            or hf:org/name@revision.

    Returns:
        The model with its tokenizer; its `repr` says what it is.

    Raises:
        InputError: there is no checkpoint, or it is not complete or damaged.

    Examples:
        model = load("runs/rate-0.40")
        model.fill_mask("She bought the [MASK] at the market.")[0][0].token

    """
    return _on_one_device(loading.load, path)


def from_transformers(directory: str | Path) -> PretrainedModel:
    """Load a model in the `transformers` format, without its code: BERT, RoBERTa, ESM or ModernBERT, with any head.

    Args:
        directory: a directory with config.json, weights (safetensors or PyTorch's) and a tokenizer, or hf:org/name.

    Returns:
        The model with its tokenizer.

    Raises:
        InputError: a file is missing or damaged, or asks for what jaxmlm does not compute.

    """
    return _on_one_device(loading.from_transformers, directory)


def _on_one_device(read: Callable[..., loading.LoadedModel], path: str | Path) -> PretrainedModel:
    with jax.set_mesh(make_mesh(devices=jax.devices()[:1])):
        found = read(path)
        return PretrainedModel(
            found.model, found.tokenizer, found.kind, found.labels, found.about, found.has_types, found.directory
        )
