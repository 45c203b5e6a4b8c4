"""The ways ratio on pairs that can be counted by hand."""

import numpy as np
import pytest

from lerobot_rlft.metrics.ways import ways_ratio


def start(*counts: int) -> np.ndarray:
    """Paths of one number, as many as are asked for of each way; ways lie 100 apart, their paths 1."""
    return np.concatenate([100.0 * way + np.arange(count) for way, count in enumerate(counts)])[:, None]


def test_the_ratio_of_close_pairs():
    # Of the base's 28 pairs the 12 within a way are at most 3 apart, and the next ones 97. A policy that
    # goes one way only has 7 + 6 + 5 of its 28 pairs within 3.
    base, tuned = [start(4, 4)] * 20, [start(8)] * 20
    ways = ways_ratio(tuned, base, close=0.42)
    assert ways.ratio == pytest.approx(12 / 18) and ways.low == pytest.approx(ways.high)
    assert ways.starts == 20


def test_the_same_policy_has_all_ways():
    rng = np.random.default_rng(0)
    base = [10 * rng.integers(0, 4, (16, 1)) + rng.standard_normal((16, 1)) for _ in range(40)]
    tuned = [10 * rng.integers(0, 4, (16, 1)) + rng.standard_normal((16, 1)) for _ in range(40)]
    ways = ways_ratio(tuned, base)
    assert ways.low < 1 < ways.high and 0.8 < ways.ratio < 1.25
    one = ways_ratio([rng.standard_normal((16, 1)) for _ in range(40)], base)
    assert one.ratio == pytest.approx(0.25, abs=0.05) and one.low < 0.25 < one.high


def test_a_policy_whose_paths_are_never_close_has_a_finite_ratio():
    rng = np.random.default_rng(0)
    base = [rng.standard_normal((8, 1)) for _ in range(20)]
    apart = [1e6 * np.arange(8.0)[:, None]] * 20
    assert ways_ratio(apart, base).ratio == pytest.approx(0.08 / (0.5 / (28 * 20)), rel=0.05)


@pytest.mark.parametrize(
    "tuned, base, words",
    [
        ([start(8)] * 3, [start(8)] * 3, r"3 initial states .* needs 8: .*--n_initial_states"),
        ([start(3)] * 9, [start(8)] * 9, r"0 initial states"),
        ([start(4)] * 9, [start(8)] * 9, r"54 pairs of successes from the same start, .* needs 400"),
        ([start(8)] * 20, [np.zeros((8, 1))] * 20, r"same: .*--base.noise_scheduler_type=DDPM"),
    ],
)
def test_what_cannot_carry_it(tuned, base, words):
    with pytest.raises(ValueError, match=words):
        ways_ratio(tuned, base)
