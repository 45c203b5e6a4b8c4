"""Intervals of rates."""

import pytest

from lerobot_rlft.metrics.intervals import wilson_interval


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
