"""Counts, entropy and intervals by hand."""

import math

import numpy as np
import pytest

from lerobot_rlft.diversity.metrics import entropy, mode_counts, wilson_interval


def test_only_successes_with_a_mode_are_counted():
    mode = np.array([0, 2, 2, -1, 1, 2])
    success = np.array([True, True, True, True, False, False])
    assert mode_counts(mode, success, 4).tolist() == [1, 0, 2, 0]
    assert mode_counts(mode, np.zeros(6, bool), 4).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    "counts, expected",
    [
        (
            [2, 2, 0, 0],
            (math.log(2) + 1 / 8) / math.log(4),
        ),  # two modes in four episodes: + (2 - 1) / (2 * 4)
        ([6, 2], (-0.75 * math.log(0.75) - 0.25 * math.log(0.25) + 1 / 16) / math.log(2)),
        ([5, 0, 0], 0.0),
        ([3, 3, 3], 1.0),  # the correction would lead beyond 1
        ([0, 0], 0.0),
        ([7], 0.0),
    ],
)
def test_entropy_by_hand(counts, expected):
    assert entropy(np.array(counts)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    "successes, episodes, low, high",
    [
        # p = .8, z^2 = 3.8416: (.8 + .19208 -+ 1.96 sqrt(.016 + .009604)) / 1.38416
        (8, 10, 0.4901569, 0.9433191),
        (0, 10, 0.0, 0.2775402),  # z^2 / (n + z^2)
        (10, 10, 0.7224598, 1.0),
        (0, 0, 0.0, 1.0),
    ],
)
def test_wilson_interval_by_hand(successes, episodes, low, high):
    assert wilson_interval(successes, episodes) == pytest.approx((low, high), abs=1e-6)


def test_wilson_interval_stays_within_rates():
    for episodes in range(1, 60):
        assert wilson_interval(0, episodes)[0] >= 0
        assert wilson_interval(episodes, episodes)[1] <= 1
