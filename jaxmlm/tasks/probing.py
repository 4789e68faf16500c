"""What the layers of a frozen encoder know: linear probes of words and sentences of a CoNLL-U treebank.

Each probe is a multinomial logistic regression on the hidden states of one layer (0: the embeddings), fitted on the
treebank's train part and scored on its dev part. Beside it stand the accuracy of always saying train's most frequent
class, and the same probes on an untrained encoder of the same sizes: what the words and their places alone give away.
The sentence probes are after Conneau et al. 2018 (arXiv 1805.01070).

The regression is scipy's L-BFGS on a gradient of our own: the core depends on scipy and not on scikit-learn, whose
solver is the same one.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import scipy.optimize
from threadpoolctl import threadpool_limits

from jaxmlm.data import Tokenizer
from jaxmlm.data.buckets import Buckets, chosen, edges_to, filled, pad
from jaxmlm.data.inputs import token_span, with_special_tokens
from jaxmlm.directories import expanded
from jaxmlm.models import Encoder
from jaxmlm.parallel import place
from jaxmlm.preemption import raise_if_all_hosts_stop
from jaxmlm.tasks.conllu import Sentence, depth, files_of, read

L2 = (1.0, 0.1, 0.01, 0.001)
"""Weights to choose from: of half the squared norm of a probe's weights, beside the mean loss in nats, on standardised
features. Few sentences want a large one, many words a small one."""
HELD_OUT = 5
"""The last of so many parts of the training examples is put aside to choose by."""
FARTHEST = 5
DEEPEST = 7
LENGTHS = 6
"""Heads farther away than this and trees deeper than this are one class each; so many classes of sentence length."""
BATCH = 32


@dataclass(frozen=True)
class Sizes:
    """How much of a treebank is read, and how a word's vector is made of its tokens'."""

    sentences: int | None = 2000
    """Of the train part; a quarter as many of the dev part; None is all."""
    words: int = 10_000
    """Of the train part, for the probes of words; a quarter as many of the dev part."""
    pool: Literal["mean", "first"] = "mean"
    """A word is the mean of its tokens and a sentence the mean of its own; or the first token and <cls>."""
    length: int = 128
    """Sentences of more tokens are left out."""


class Treebank(NamedTuple):
    """The sentences to fit probes on and those to score them on."""

    train: list[Sentence]
    dev: list[Sentence]


def treebank(directory: str | Path) -> Treebank:
    """The sentences of the train and the dev part (`*train*.conllu`, `*dev*.conllu`) in a treebank's directory."""
    directory = expanded(directory)
    return Treebank(*([s for path in files_of(directory, part) for s in read(path)] for part in ("train", "dev")))


class WordExamples(NamedTuple):
    """Rows of token ids, the vectors wanted of them, and the examples of each probe.

    A vector is (row, first token, one past the last). Per probe: the numbers of the vectors, and their labels.
    """

    rows: list[list[int]]
    vectors: list[tuple[int, int, int]]
    probes: dict[str, tuple[np.ndarray, np.ndarray]]


WORD: Mapping[str, Callable[[Sentence, int], str | None]] = {
    "part of speech": lambda s, i: s.words[i].upos,
    "relation": lambda s, i: s.words[i].relation.split(":")[0],
    "head distance": lambda s, i: _distance(s, i),
}
"""What a probe of words asks: the label of word i of a sentence, None where it has none."""
SENTENCE: Mapping[str, Callable[[Sentence], str | None]] = {
    "tree depth": lambda s: None if (found := depth(s)) < 0 else str(min(found, DEEPEST)),
    "tense": lambda s: _tense(s),
    "number": lambda s: _number(s),
}
"""What a probe of sentences asks. Two more are made in `examples`: "sentence length" and "bigram shift"."""


def _distance(sentence: Sentence, i: int) -> str:
    head = sentence.words[i].head
    return "root" if head == 0 else str(int(np.clip(head - 1 - i, -FARTHEST, FARTHEST)))


def _root(sentence: Sentence) -> tuple[int, list[Any]]:
    """The number of the root, counted from 1, and the words that hang on it."""
    root = next((i for i, word in enumerate(sentence.words, 1) if word.head == 0), 0)
    return root, [word for word in sentence.words if word.head == root != 0]


def _tense(sentence: Sentence) -> str | None:
    """The tense of the main clause: of the root if it is a finite verb, else of its finite auxiliary or copula."""
    root, below = _root(sentence)
    helpers = [word for word in below if word.relation.split(":")[0] in ("aux", "cop")]
    verbs = [word for word in (*([sentence.words[root - 1]] if root else []), *helpers) if "Tense" in word.features]
    return next((verb.features["Tense"] for verb in verbs if verb.features.get("VerbForm") == "Fin"), None)


def _number(sentence: Sentence) -> str | None:
    """The number of the root's subject."""
    subjects = [word for word in _root(sentence)[1] if word.relation.split(":")[0] == "nsubj"]
    return next((word.features["Number"] for word in subjects if "Number" in word.features), None)


def length_edges(sentences: Sequence[Sentence]) -> np.ndarray:
    """Where the classes of sentence length end, in words: about as many sentences in each."""
    return np.unique(np.quantile([len(s.words) for s in sentences], np.arange(1, LENGTHS) / LENGTHS))


def examples(
    sentences: Sequence[Sentence], tokenizer: Tokenizer, sizes: Sizes, words: int, edges: np.ndarray, seed: int = 0
) -> WordExamples:
    """The examples of every probe; at most `words` for those of words. Sentences that are too long are left out.

    Words get the tokens that share a character with them. In half of the sentences of "bigram shift" two neighbouring
    words of different form have changed places.
    """
    random = np.random.Generator(np.random.Philox(seed))
    rows: list[list[int]] = []
    vectors: dict[tuple[int, int, int], int] = {}
    of_words: list[tuple[int, tuple[str | None, ...]]] = []
    of: dict[str, list[tuple[int, str]]] = {name: [] for name in (*SENTENCE, "sentence length", "bigram shift")}

    def row(text: str) -> tuple[int, int, list[tuple[int, int]]] | None:
        """A new row: its number, that of its own vector, the characters of its tokens; None if it is too long."""
        ids, offsets = tokenizer.encode_offsets(text)
        if not ids or len(ids) > sizes.length - 2:
            return None
        rows.append(with_special_tokens(tokenizer, ids).ids)
        at = (len(rows) - 1, 0, 1) if sizes.pool == "first" else (len(rows) - 1, 1, len(ids) + 1)
        return len(rows) - 1, vectors.setdefault(at, len(vectors)), offsets

    for sentence in sentences:
        if (made := row(sentence.text)) is None:
            continue
        number, whole, offsets = made
        for name, label in SENTENCE.items():
            if (found := label(sentence)) is not None:
                of[name].append((whole, found))
        of["sentence length"].append((whole, str(np.searchsorted(edges, len(sentence.words)))))
        shifts = [i for i in range(len(sentence.tokens) - 1) if _differ(sentence, i)]
        if shifts and random.random() < 0.5:
            other = row(shifted(sentence, int(random.choice(shifts))))
            of["bigram shift"] += [] if other is None else [(other[1], "shifted")]
        elif shifts:
            of["bigram shift"].append((whole, "as written"))
        for i, word in enumerate(sentence.words):
            first, stop = token_span(offsets, word.begin, word.end)
            if first < stop:
                stop = first + 1 if sizes.pool == "first" else stop
                vector = vectors.setdefault((number, first + 1, stop + 1), len(vectors))  # [CLS] stands before them
                of_words.append((vector, tuple(ask(sentence, i) for ask in WORD.values())))
    keep = [of_words[i] for i in np.sort(chosen(len(of_words), words))]
    for k, name in enumerate(WORD):
        of[name] = [(vector, label) for vector, labels in keep if (label := labels[k]) is not None]
    asked = sorted({vector for pairs in of.values() for vector, _ in pairs})
    new = {vector: i for i, vector in enumerate(asked)}
    places = list(vectors)
    probes = {
        name: (np.array([new[v] for v, _ in of[name]], int), np.array([label for _, label in of[name]], str))
        for name in (*WORD, *SENTENCE, "sentence length", "bigram shift")
    }
    return WordExamples(rows, [places[i] for i in asked], probes)


def _differ(sentence: Sentence, i: int) -> bool:
    (a, b), (c, d) = sentence.tokens[i : i + 2]
    return sentence.text[a:b].lower() != sentence.text[c:d].lower()


def shifted(sentence: Sentence, i: int) -> str:
    """The sentence with tokens i and i + 1 in each other's place; spaces stay where they are.

    >>> shifted(Sentence("Hens sleep.", [], [(0, 4), (5, 10), (10, 11)]), 1)
    'Hens .sleep'
    """
    (a, b), (c, d), text = *sentence.tokens[i : i + 2], sentence.text
    return text[:a] + text[c:d] + text[b:c] + text[a:b] + text[d:]


def states(encoder: Encoder, found: WordExamples, pad_id: int, mesh: jax.sharding.Mesh) -> np.ndarray:
    """The vectors [N + 1, M, D] of the examples at every layer: means over their tokens."""
    c = encoder.config
    wanted: list[list[tuple[int, int, int]]] = [[] for _ in found.rows]
    for number, (row, first, last) in enumerate(found.vectors):
        wanted[row].append((number, first, last))
    out = np.empty((c.layers + 1, len(found.vectors), c.width), np.float32)
    for rows, hidden in _hiddens(encoder, found.rows, pad_id, mesh):
        for k, row in enumerate(rows):
            for number, first, last in wanted[row] if row >= 0 else ():
                out[:, number] = hidden[:, k, first:last].mean(1)
    return out


@jax.jit
def _run(encoder: Any, ids: Any, segments: Any) -> Any:
    return encoder.all_hidden_states(ids, segments).astype(np.float32)


def _hiddens(
    encoder: Encoder, rows: list[list[int]], pad_id: int, mesh: jax.sharding.Mesh
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    lengths = [len(row) for row in rows]
    for some, length in Buckets(lengths, BATCH, edges_to(max(lengths))).all():
        raise_if_all_hosts_stop("within the probing of layers")
        ids = pad([rows[i] for i in filled(some)], length, pad_id)
        batch = place({"ids": ids, "segments": (ids != pad_id).astype(np.int32)}, mesh)
        yield some, np.asarray(_run(encoder, batch["ids"], batch["segments"]))


def fit(x: np.ndarray, y: np.ndarray, classes: int, l2: float, start: np.ndarray | None = None) -> np.ndarray:
    """The weights [D + 1, C] of a multinomial logistic regression on x [n, D]; the last row is the bias."""
    x = np.concatenate([x, np.ones((len(x), 1))], 1).astype(np.float32)
    truth = np.eye(classes, dtype=np.float32)[y]
    penalty = np.r_[np.full(x.shape[1] - 1, l2), 0.0][:, None]

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        w = flat.reshape(x.shape[1], classes)
        logits = x @ w.astype(np.float32)
        logits -= logits.max(1, keepdims=True)
        shares = np.exp(logits)
        total = shares.sum(1, keepdims=True)
        nats = float((np.log(total[:, 0]) - (logits * truth).sum(1)).mean(dtype=np.float64))
        slope = x.T @ (shares / total - truth) / len(x)
        return nats + 0.5 * float((penalty * w * w).sum()), (slope + penalty * w).ravel()

    begin = np.zeros(x.shape[1] * classes) if start is None else start.ravel()
    found = scipy.optimize.minimize(objective, begin, jac=True, method="L-BFGS-B", options={"maxiter": 200})
    return found.x.reshape(x.shape[1], classes)


def choose(x: np.ndarray, y: np.ndarray, classes: int) -> float:
    """The weight of L2 under which the most of the last fifth of the examples are said right by the others.

    Of equal ones the largest. The last fifth are other sentences, as examples come in the order of the text.
    """
    kept = len(y) - len(y) // HELD_OUT
    best = L2[0]
    right = -1
    w = None
    for l2 in L2 if kept < len(y) else ():
        raise_if_all_hosts_stop("within the probing of layers")
        w = fit(x[:kept], y[:kept], classes, l2, w)  # the last one is near
        now = int(((x[kept:] @ w[:-1] + w[-1]).argmax(1) == y[kept:]).sum())
        if now > right:
            best = l2
            right = now
    return best


def probe(train: tuple[np.ndarray, np.ndarray], dev: tuple[np.ndarray, np.ndarray]) -> float:
    """The accuracy on dev of a probe fitted on train; each is (vectors [n, D], labels [n])."""
    (x, labels), (dev_x, dev_labels) = train, dev
    classes, y = np.unique(labels, return_inverse=True)
    mean = x.mean(0)
    scale = x.std(0) + 1e-6
    x = (x - mean) / scale
    w = fit(x, y, len(classes), choose(x, y, len(classes)))
    said = classes[((dev_x - mean) / scale @ w[:-1] + w[-1]).argmax(1)]
    return float((said == dev_labels).mean())


def majority(train: np.ndarray, dev: np.ndarray) -> float:
    """The accuracy on dev of train's most frequent label.

    >>> majority(np.array(["a", "b", "a"]), np.array(["a", "b"]))
    0.5
    """
    classes, counts = np.unique(train, return_counts=True)
    return float((dev == classes[counts.argmax()]).mean())


def probes(
    encoders: Mapping[str, Encoder], data: Treebank, tokenizer: Tokenizer, sizes: Sizes, mesh: jax.sharding.Mesh
) -> dict[str, dict[str, float]]:
    """Per probe its scores: "majority", and "<name>/<layer>" for each encoder and layer; "train" and "dev" count."""
    parts = {}
    edges = length_edges(data.train)
    for share, (part, all_) in zip((1, 4), data._asdict().items(), strict=True):
        keep = np.sort(chosen(len(all_), None if sizes.sentences is None else -(-sizes.sentences // share)))
        some = [all_[i] for i in keep]
        parts[part] = examples(some, tokenizer, sizes, -(-sizes.words // share), edges)
    train, dev = (parts[part].probes for part in ("train", "dev"))
    asked = [name for name in train if len(train[name][1]) and len(dev[name][1])]
    scores: dict[str, dict[str, float]] = {
        name: {
            "majority": majority(train[name][1], dev[name][1]),
            "train": float(len(train[name][1])),
            "dev": float(len(dev[name][1])),
        }
        for name in asked
    }
    for which, encoder in encoders.items():
        vectors = {part: states(encoder, found, tokenizer.pad_id, mesh) for part, found in parts.items()}

        def accuracy(name: str, layer: int, vectors: dict[str, np.ndarray] = vectors) -> float:
            (at, labels), (dev_at, dev_labels) = train[name], dev[name]
            return probe((vectors["train"][layer][at], labels), (vectors["dev"][layer][dev_at], dev_labels))

        fits = [(name, layer) for name in asked for layer in range(encoder.config.layers + 1)]
        # A core for each fit. Where other work has the cores, threads of BLAS that share one wait for each other in
        # nearly all of the time: 500 s for 33.
        with threadpool_limits(1, "blas"), ThreadPoolExecutor(os.cpu_count()) as pool:
            for (name, layer), found in zip(fits, pool.map(accuracy, *zip(*fits, strict=True)), strict=True):
                scores[name][f"{which}/{layer}"] = found
    return scores
