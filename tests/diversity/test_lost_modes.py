"""Modes that are gone are not counted as seen."""

import numpy as np
import pytest

from lerobot_rlft.diversity.guard import DiversityGuard, GuardConfig, retained


def test_modes_of_which_only_faded_counts_are_left_are_not_seen():
    base = np.full(24, 20.0)
    one_left = np.r_[57.6, np.full(23, 1e-3)]  # success 6 % of 960 remembered episodes
    for metric, right in (("entropy", 0), ("effective_modes", 1 / np.exp(np.log(24) + 23 / 960))):
        assert retained(metric, one_left, base) == pytest.approx(right, abs=1e-12)
    # Two of them, 3 to 1: .5623 nats and (2 - 1) / (2 * 40), of log 24 + 23 / 960.
    two_left = np.r_[30, 10, np.full(22, 0.4)]
    assert retained("entropy", two_left, base) == pytest.approx((0.562335 + 1 / 80) / (np.log(24) + 23 / 960))


def test_the_guard_reads_0_when_one_mode_is_left():
    guard = DiversityGuard(GuardConfig(enable=True), np.full(24, 20.0))
    guard.update(np.full(24, 4.0), 100)
    for _ in range(40):  # (1 - 100 / 960)^40 = .012
        out = guard.update(np.r_[6.0, np.zeros(23)], 100)
    assert out["guard_ratio"] == 0


def test_of_very_many_modes_faded_counts_are_all_there_is():
    base = np.ones(60)
    assert retained("entropy", np.full(60, 0.3), base) > 0.9
