"""Scores: known values, undefined cases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxmlm.tasks import metrics


def test_log_probability_is_log_softmax_and_survives_padded_vocabularies():
    logits = jnp.array([[1.0, 2.0, -3.0, -jnp.inf], [400.0, 0.0, 0.0, -jnp.inf]])
    labels = jnp.array([1, 2])
    expected = jax.nn.log_softmax(logits)[jnp.arange(2), labels]
    np.testing.assert_allclose(metrics.log_probability(logits, labels), expected, rtol=1e-6)
    assert metrics.log_probability(logits.astype(jnp.bfloat16), labels).dtype == jnp.float32


def test_known_values():
    labels, said = np.array([1, 1, 1, 0, 0, 0, 0, 0]), np.array([1, 1, 0, 1, 0, 0, 0, 0])
    assert metrics.accuracy(labels, said) == 6 / 8
    assert metrics.f1(labels, said) == pytest.approx(2 / 3)
    assert metrics.matthews(labels, said) == pytest.approx((2 * 4 - 1) / (3 * 3 * 5 * 5) ** 0.5)
    assert metrics.matthews(labels, 1 - labels) == -1.0


@pytest.mark.parametrize("seed", range(3))
def test_correlations_are_scipys(seed):
    random = np.random.default_rng(seed)
    x, y = random.integers(0, 6, 50) / 2, random.normal(size=50).astype(np.float32)
    assert metrics.pearson(x, y) == pytest.approx(scipy.stats.pearsonr(x, y).statistic, abs=1e-12)
    assert metrics.spearman(x, y) == pytest.approx(scipy.stats.spearmanr(x, y).statistic, abs=1e-12)


@pytest.mark.parametrize("name", ["pearson", "spearman", "matthews", "f1"])
@pytest.mark.parametrize("constant", [0.0, 3.0, 1e30, float("nan"), float("inf")])
def test_undefined_scores_are_zero_without_a_warning(name, constant):
    labels = np.array([0.0, 1.0, 1.0, 0.0])
    if name in ("matthews", "f1"):
        labels = labels.astype(int)
    assert metrics.METRICS[name](labels, np.full(4, constant)) == 0.0
    assert metrics.METRICS[name](labels[:0], labels[:0]) == 0.0


def test_values_that_differ_by_rounding_only_are_constant():
    assert metrics.pearson(np.arange(3.0), 0.1 + np.array([0.0, 1e-17, 2e-17])) == 0.0
