"""The diversity guard: readings, its dual ascent, and when it says something."""

import math

import numpy as np
import pytest

from lerobot_rlft.diversity.guard import DiversityGuard, GuardConfig, retained

EVEN = np.array([40, 40, 40, 40])


def guard(base=EVEN, **fields):
    return DiversityGuard(GuardConfig(enable=True, **fields), np.array(base))


def test_the_three_readings_by_hand():
    base, now = np.array([50, 30, 19, 1]), np.array([60, 30, 10, 0])

    def nats(counts):  # with the correction of Miller & Madow
        p = counts[counts > 0] / counts.sum()
        return -(p * np.log(p)).sum() + (len(p) - 1) / (2 * counts.sum())

    assert retained("entropy", now, base) == pytest.approx(nats(now) / nats(base))
    assert retained("effective_modes", now, base) == pytest.approx(math.exp(nats(now)) / math.exp(nats(base)))
    # 60 / 50, 30 / 30, 10 / 19; the last mode has 1 % of the base and does not count
    assert retained("smallest_share", now, base) == pytest.approx(10 / 19)
    assert retained("smallest_share", np.array([60, 0, 40, 0]), base) == 0
    for metric in ("entropy", "effective_modes", "smallest_share"):
        assert retained(metric, base, base) == pytest.approx(1)
        assert retained(metric, 0.25 * now, base) == pytest.approx(retained(metric, now, base), abs=0.05)
        assert retained(metric, 0 * now, base) == 0


def test_where_all_modes_are_rare_all_count():
    base = np.ones(60)
    assert retained("smallest_share", np.r_[0.5, np.ones(59)], base) == pytest.approx(0.5 * 60 / 59.5)


def test_dual_ascent_by_hand():
    g = guard(metric="smallest_share", floor=0.9, rate=2)
    out = g.update([16, 24, 20, 20], 100)  # smallest share .2 of .25
    assert out["guard_ratio"] == pytest.approx(0.8)
    assert out["guard_strength"] == g.strength == pytest.approx(1 + 2 * 0.1)
    # (1 - 96 / 960) (16, 24, 20, 20) + (40, 30, 26, 20) = (54.4, 51.6, 44, 38)
    out = g.update([40, 30, 26, 20], 96)
    ratio = 38 / 188 / 0.25
    assert out["guard_ratio"] == pytest.approx(ratio)
    assert g.strength == pytest.approx(1.2 + 2 * (0.9 - ratio))


def test_the_strength_stays_between_its_ends():
    g = guard(metric="smallest_share", floor=0.5, rate=1.5, least=0.2, most=3)
    assert g.update([20, 20, 20, 20], 960)["guard_strength"] == pytest.approx(0.25)
    assert g.update([20, 20, 20, 20], 960)["guard_strength"] == 0.2
    for expected in (0.95, 1.7, 2.45, 3, 3):
        assert g.update([20, 20, 20, 0], 960)["guard_strength"] == pytest.approx(expected)
    assert g.update([20, 20, 20, 20], 960)["guard_strength"] == pytest.approx(2.25)  # comes down at once


def test_counts_decay_over_960_episodes():
    g = guard(base=[40, 40])
    for _ in range(96):
        g.update([100, 0], 100)
    # a geometric series with ratio 1 - 100 / 960 has the sum 960 / 100
    assert g.counts.tolist() == pytest.approx([960, 0], rel=1e-3)
    assert g.episodes == pytest.approx(960, rel=1e-3)
    g.update([0, 50], 480)
    assert g.counts.tolist() == pytest.approx([480, 50], rel=1e-3)
    g.update([7, 9], 2000)  # more than it remembers
    assert (g.counts.tolist(), g.episodes) == ([7, 9], 2000)


def test_without_successes_it_waits():
    g = guard()
    for counts in ([0, 0, 0, 0], [0, 1, 0, 0]):
        assert g.update(counts, 10) == {"guard_strength": 1}
    assert "guard_ratio" in g.update([0, 2, 0, 0], 10)


def test_successes_of_many_modes_may_fade():
    """Each mode's decayed count rounds to 0: there is a reading, and no interval of it."""
    g = guard(base=[40] * 24)
    g.update([1] * 23 + [0], 100)
    for _ in range(8):
        out = g.update([0] * 24, 100)
    assert np.round(g.counts).sum() == 0 and g.counts.sum() > 2
    assert out["guard_ratio"] > 0 and "alarm" not in out


def test_words_below_the_floor_and_back_once_each():
    g = guard(base=[400] * 4, floor=0.95, rate=0.2)
    said = [
        g.update(counts, 960).get("alarm")
        for counts in ([400, 400, 0, 0], [400, 400, 0, 0], [200] * 4, [200] * 4, [400, 400, 0, 0])
    ]
    assert said[0] == (
        "guard: entropy of successes fell to 0.50 of the base, below the floor 0.95; strength 1.09 and rising"
    )
    assert said[1] is None
    assert said[2] == "guard: entropy is back at 1.00 of the base"
    assert said[3] is None
    assert said[4].startswith("guard: entropy of successes fell to 0.50")


def test_a_commanded_policy_has_no_strength_to_move():
    g = DiversityGuard(GuardConfig(floor=0.95), np.array([400] * 4), commanded=True)
    out = g.update([400, 400, 0, 0], 960)
    assert out["guard_ratio"] == pytest.approx(0.5, abs=0.01) and "guard_strength" not in out
    assert out["alarm"].endswith("raise --algorithm.commands.practice or lower --algorithm.actor_lr")
    assert g.strength == 1
    again = DiversityGuard.from_state(g.config, g.state_dict(), commanded=True)
    assert again.update([400, 0, 0, 0], 960) == g.update([400, 0, 0, 0], 960)


def test_a_fall_that_may_be_noise_is_not_said():
    few, many = guard(floor=1.0, rate=0.1), guard(floor=1.0, rate=0.1)
    assert "alarm" not in few.update([9, 5, 4, 1], 100)
    assert few.strength > 1  # it acts all the same
    assert "alarm" in many.update([900, 500, 400, 100], 9600)


def test_words_at_the_cap_once():
    g = guard(metric="effective_modes", rate=10, most=2)
    one = [400, 0, 0, 0]
    said = [g.update(counts, 960).get("alarm") for counts in (one, one, EVEN, one, one)]
    assert said[0].startswith("guard: strength is at its cap 2 and effective modes still is 0.2")
    assert "the run goes on. Raise --rollout.n_episodes, lower --algorithm.actor_lr" in said[0]
    assert said[1] is None
    assert said[2] == "guard: effective modes is back at 1.00 of the base"
    assert said[3].startswith("guard: strength is at its cap") and said[4] is None


def test_state_comes_back():
    g = guard(floor=0.95, rate=10)
    g.update([400, 0, 0, 0], 500)
    again = DiversityGuard.from_state(g.config, g.state_dict())
    for counts in ([300, 0, 0, 0], [80] * 4, [80, 0, 80, 3]):
        assert again.update(counts, 400) == g.update(counts, 400)
    assert again.state_dict() == g.state_dict()


@pytest.mark.parametrize("base, modes", [([0, 9, 0], "1 mode"), ([0, 0, 0], "0 modes")])
def test_a_base_with_nothing_to_hold_is_refused(base, modes):
    with pytest.raises(ValueError, match=f"successes use {modes}: there is nothing to hold.*n_reference"):
        guard(base=base)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"floor": 0.0}, r"guard.floor=0.0 is out of range, choose a ratio in \(0, 1\]"),
        ({"floor": 1.5}, r"guard.floor=1.5 is out of range"),
        ({"floor": math.nan}, r"guard.floor=nan is out of range"),
        ({"metric": "modes"}, r"guard.metric='modes' is unknown, choose entropy, effective_modes, smallest"),
        ({"rate": 0.0}, r"guard.rate=0.0 must be positive"),
        ({"most": 0.5}, r"guard.least=1.0 and guard.most=0.5 must enclose 1"),
        ({"least": 1.5}, r"guard.least=1.5 and guard.most=4.0 must enclose 1"),
    ],
)
def test_values_out_of_range_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        GuardConfig(**fields)
