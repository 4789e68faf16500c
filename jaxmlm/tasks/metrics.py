"""Metrics on the host, in numpy; and the one log-probability that losses and probes on the device share.

They are written here and not taken from scikit-learn, which is a large dependency for six formulas, and which warns or
gives nan where a degenerate run needs a number (tests/parity compares the two).

Predictions that leave a score undefined (all one class, all one value, not finite) get 0.0 and no warning.
"""

import re
import string
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


def log_probability(logits: Float[Array, "*B V"], labels: Int[Array, "*B"]) -> Float[Array, "*B"]:
    """The log-probability of each label, in float32.

    Written without a gather, so that V may be sharded.
    """
    logits = logits.astype(jnp.float32)
    classes = jax.lax.broadcasted_iota(labels.dtype, (1,) * labels.ndim + logits.shape[-1:], labels.ndim)
    chosen = labels[..., None] == classes
    return jnp.where(chosen, logits, 0.0).sum(-1) - jax.nn.logsumexp(logits, axis=-1)


def accuracy(labels: np.ndarray, predictions: np.ndarray) -> float:
    """The share of equal labels.

    >>> accuracy(np.array([0, 1, 1, 0]), np.array([0, 1, 0, 0]))
    0.75
    """
    return float(np.mean(labels == predictions)) if len(labels) else 0.0


def perplexity_of(nats: float) -> float:
    """exp(nats): infinite, without a warning, where that is more than a number holds.

    >>> perplexity_of(0.0), perplexity_of(1000.0)
    (1.0, inf)
    """
    with np.errstate(over="ignore"):
        return float(np.exp(nats))


def f1(labels: np.ndarray, predictions: np.ndarray) -> float:
    """F1 of class 1 among classes 0 and 1.

    >>> f1(np.array([0, 1, 1, 0]), np.array([0, 1, 0, 0]))
    0.6666666666666666
    """
    truth = labels == 1
    said = predictions == 1
    right = int(np.count_nonzero(truth & said))
    positives = int(truth.sum()) + int(said.sum())
    return 2 * right / positives if right else 0.0


def matthews(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Matthews correlation, of any number of classes (Gorodkin 2004).

    >>> matthews(np.array([0, 1, 1, 0]), np.array([1, 1, 1, 1]))
    0.0
    """
    classes = np.union1d(labels, predictions)
    truth, said = ([int(np.count_nonzero(a == c)) for c in classes] for a in (labels, predictions))
    rows = len(labels)
    right = int(np.count_nonzero(labels == predictions))
    # Whole numbers of Python's, which do not overflow.
    square = (rows**2 - sum(t * t for t in truth)) * (rows**2 - sum(s * s for s in said))
    return (right * rows - sum(t * s for t, s in zip(truth, said, strict=True))) / square**0.5 if square else 0.0


def pearson(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Pearson's correlation.

    >>> pearson(np.array([0.0, 1.0, 2.0]), np.array([7.0, 7.0, 7.0]))
    0.0
    """
    x, y = (np.asarray(a, np.float64) for a in (labels, predictions))
    if len(x) < 2 or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return 0.0
    x_centred = x - x.mean()
    y_centred = y - y.mean()
    norms = [float(np.linalg.norm(a)) for a in (x_centred, y_centred)]
    # Values that differ by rounding only are constant too (scipy.stats.pearsonr draws the same line).
    if any(norm <= 1e-13 * abs(float(a.mean())) for norm, a in zip(norms, (x, y), strict=True)):
        return 0.0
    return float(np.clip(np.dot(x_centred / norms[0], y_centred / norms[1]), -1.0, 1.0))


def spearman(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Spearman's rank correlation; equal values share their mean rank.

    >>> round(spearman(np.array([0.0, 1.0, 2.0]), np.array([1.0, 3.0, 90.0])), 12)
    1.0
    """
    if not np.isfinite(predictions).all():
        return 0.0
    import scipy.stats  # a sixth of the time that jaxmlm takes to start

    return pearson(scipy.stats.rankdata(labels), scipy.stats.rankdata(predictions))


METRICS: Mapping[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": accuracy,
    "f1": f1,
    "matthews": matthews,
    "pearson": pearson,
    "spearman": spearman,
}

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
    """Lower case, no ASCII punctuation, no articles, single spaces: the rules of SQuAD's evaluate-v1.1.py.

    >>> normalize_answer("The  quick, brown fox!")
    'quick brown fox'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())
