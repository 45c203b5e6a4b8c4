"""Words about success, only where a paired test carries them."""

import numpy as np
import pytest

from lerobot_rlft.evaluation.paired import success_change


def test_mcnemar_by_hand():
    # 6 gained, none lost: p = 2 / 2^6 = .031; 5 gained: 2 / 2^5 = .0625.
    assert success_change(10, 16, 40, gained=6) == "rose"
    assert success_change(16, 10, 40, gained=0) == "fell"
    assert success_change(10, 15, 40, gained=5) is None
    # 8 gained, 1 lost: p = 2 * (1 + 9) / 2^9 = .039; 8 gained, 2 lost: 2 * (1 + 10 + 45) / 2^10 = .109.
    assert success_change(10, 17, 40, gained=8) == "rose" and success_change(10, 16, 40, gained=8) is None


def test_without_pairs_the_pairing_that_says_least_is_assumed():
    assert success_change(135, 136, 200) is None  # .675 -> .680
    assert success_change(48, 216, 240) == "rose" and success_change(216, 48, 240) == "fell"
    assert success_change(0, 0, 10) is None and success_change(10, 10, 10) is None
    for base, tuned in ((20, 40), (40, 20), (90, 99), (3, 60)):
        words = {
            success_change(base, tuned, 100, gained)
            for gained in range(max(0, tuned - base), min(tuned, 100 - base) + 1)
        }
        assert success_change(base, tuned, 100) in (words if len(words) == 1 else {None})


def test_equal_policies_seldom_differ():
    rng, said = np.random.default_rng(0), 0
    for _ in range(1000):
        base, tuned = rng.random((2, 100)) < 0.7
        said += success_change(base.sum(), tuned.sum(), 100, (tuned & ~base).sum()) is not None
    assert said <= 50


def test_an_impossible_pairing_is_refused():
    with pytest.raises(ValueError, match="gained=3 must lie between 5 and 15"):
        success_change(10, 15, 40, gained=3)
