"""What a start explains of a path."""

import numpy as np
import pytest

from lerobot_rlft.diversity.start_effect import RIDGE, StartEffect, without_start


def test_the_effect_of_a_start_is_a_ridge_regression():
    # Starts -1 and 1, standard deviation 1; paths are three times the start, and 5 more.
    starts = np.repeat([[-1.0], [1.0]], 6, 0)
    left, effect = without_start(3 * starts + 5, starts, np.array([2.0]))
    slope = 3 * 12 / (12 + RIDGE)
    assert effect.dims.tolist() == [0] and effect.mean.tolist() == [0]
    assert effect.weights == pytest.approx(np.array([[slope]]))
    assert left == pytest.approx(5 + (3 - slope) * starts)


def test_only_dims_that_vary_are_looked_at():
    rng = np.random.default_rng(0)
    starts = np.stack([rng.standard_normal(40), np.full(40, 2.0), 1e-6 * rng.standard_normal(40)], 1)
    features = starts[:, :1] @ np.ones((1, 4))
    effect = StartEffect.fit(starts, features, np.array([4.0, 4.0, 4.0]))
    assert effect.dims.tolist() == [0]
    assert StartEffect.fit(starts[:, 1:], features, np.array([4.0, 4.0])) is None


def test_many_dims_of_few_episodes_do_not_explain_by_chance():
    """Twenty episodes support two dims; twelve of noise would leave a third of the spread."""
    rng = np.random.default_rng(0)
    starts, features = rng.standard_normal((20, 12)), rng.standard_normal((20, 50))
    left, _ = without_start(features, starts, np.full(12, 4.0))
    assert left.var(0).mean() > 0.8 * features.var(0).mean()
