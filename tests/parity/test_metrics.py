"""Our scores beside scikit-learn's."""

import warnings

import numpy as np
import pytest
import sklearn.metrics

from jaxmlm.tasks import metrics

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 1.0])
def test_scores_are_scikit_learns(seed, share):
    """Random predictions and, at shares 0 and 1, predictions that are all one class."""
    random = np.random.default_rng(seed)
    labels, said = random.integers(0, 2, 40), (random.random(40) < share).astype(int)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = {
            "accuracy": sklearn.metrics.accuracy_score(labels, said),
            "f1": sklearn.metrics.f1_score(labels, said, zero_division=0.0),
            "matthews": sklearn.metrics.matthews_corrcoef(labels, said),
        }
    for name, value in expected.items():
        assert metrics.METRICS[name](labels, said) == pytest.approx(value, abs=1e-12)
