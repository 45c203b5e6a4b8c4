"""Counts, entropy and intervals by hand."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from lerobot_rlft.metrics.modes import (
    bootstrap_interval,
    claim_refusal,
    conditional_entropy,
    effective_counts,
    effective_modes,
    entropy,
    entropy_ratio,
    jensen_shannon,
    min_retention,
    mode_counts,
    modes_covered,
    nats,
    success_at_n,
    success_at_n_interval,
)


def test_only_successes_with_a_mode_are_counted():
    mode = np.array([0, 2, 2, -1, 1, 2])
    success = np.array([True, True, True, True, False, False])
    assert mode_counts(mode, success, 4).tolist() == [1, 0, 2, 0]
    assert mode_counts(mode, np.zeros(6, bool), 4).tolist() == [0, 0, 0, 0]
    weight = np.array([0.5, 1, 0.25, 9, 9, 9])
    assert mode_counts(mode, success, 4, weight).tolist() == [0.5, 0, 1.25, 0]


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


def test_entropy_in_nats_by_hand_and_by_row():
    counts = np.array([[2, 2, 0, 0], [6, 2, 0, 0], [4, 0, 0, 0], [0, 0, 0, 0]])
    three_quarters = -0.75 * math.log(0.75) - 0.25 * math.log(0.25)
    plug_in = [math.log(2), three_quarters, 0, math.nan]
    assert nats(counts, miller_madow=False) == pytest.approx(plug_in, nan_ok=True)
    assert nats(counts) == pytest.approx(
        [math.log(2) + 1 / 8, three_quarters + 1 / 16, 0, math.nan], nan_ok=True
    )


@pytest.mark.parametrize("successes, plug_in, corrected", [(100, 0.962, 0.9975), (480, 0.992, 1.0)])
def test_miller_madow_removes_the_bias_of_24_uniform_modes(successes, plug_in, corrected):
    draws = np.random.default_rng(0).multinomial(successes, np.full(24, 1 / 24), size=2000)
    assert nats(draws, miller_madow=False).mean() / math.log(24) == pytest.approx(plug_in, abs=0.001)
    assert nats(draws).mean() / math.log(24) == pytest.approx(corrected, abs=0.001)


def test_effective_modes_by_hand():
    assert effective_modes(np.array([7, 0, 0])) == 1
    assert effective_modes(np.array([3, 3, 3])) == 3  # the correction would lead beyond M
    assert effective_modes(np.array([2, 2, 0, 0])) == pytest.approx(2 * math.exp(1 / 8))
    assert modes_covered(np.array([2, 0, 1, 0])) == 2


def test_min_retention_by_hand():
    # Mode 3 has a share of .02 and is left out; of the others mode 2 keeps least: .1 / .28.
    kept = min_retention(np.array([50, 40, 10, 0]), np.array([40, 30, 28, 2]))
    assert (kept.mode, kept.ratio) == (2, pytest.approx(0.1 / 0.28))
    # MOVER as printed, from Wilson's limits (.05523, .17437) of 10 / 100 and (.20140, .37488) of 28 / 100.
    # Low: (.028 - sqrt(.028^2 - .0079956 * .069398)) / .069398; high: with .0044691 and .072222, and a plus.
    assert (kept.low, kept.high) == pytest.approx((0.18535, 0.68506), abs=1e-4)
    assert min_retention(np.array([50, 0]), np.array([25, 25])).ratio == 0
    lost = min_retention(np.array([50, 0]), np.array([25, 25]))
    assert lost.low == 0 < lost.high < 0.25


def test_min_retention_interval_covers_the_truth():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        kept = min_retention(rng.multinomial(200, (0.04, 0.96)), rng.multinomial(200, (0.1, 0.9)), 0.005)
        if kept.mode == 0:
            covered += kept.low <= 0.4 <= kept.high
    assert 0.92 <= covered / 400 <= 0.98


def test_jensen_shannon_by_hand():
    assert jensen_shannon(np.array([5, 0]), np.array([0, 3])) == pytest.approx(1)
    assert jensen_shannon(np.array([2, 4]), np.array([1, 2])) == pytest.approx(0, abs=1e-12)
    # Mixture (.75, .25): its entropy less half of 1 bit.
    assert jensen_shannon(np.array([4, 0]), np.array([1, 1])) == pytest.approx(0.8112781 - 0.5)
    # (.375, .375, .25): 1.5612781 bits, less the mean of 1 and of 1.5.
    assert jensen_shannon(np.array([1, 1, 0]), np.array([1, 1, 2])) == pytest.approx(1.5612781 - 1.25)


def test_entropy_ratio_by_hand():
    same = entropy_ratio(np.array([30, 30, 0]), np.array([30, 30, 0]))
    assert (same.ratio, same.successes) == (1, 60)
    assert same.low < 1 < same.high
    halved = entropy_ratio(np.array([30, 30, 0, 0]), np.array([15, 15, 15, 15]))
    assert halved.ratio == pytest.approx((math.log(2) + 1 / 120) / (math.log(4) + 3 / 120))
    collapsed = entropy_ratio(np.array([60, 0]), np.array([30, 30]))
    assert (collapsed.ratio, collapsed.low, collapsed.high) == (0, 0, 0)


def test_entropy_ratio_compares_at_equal_successes():
    base = np.array([1] * 10)  # entropy log 10, and 9 / 20 for Miller-Madow
    large = entropy_ratio(np.full(10, 100), base)
    # Mean corrected entropy of 10 of 1000 episodes, about that of 10 draws from 10 uniform modes.
    draws = np.random.default_rng(1).multinomial(10, np.full(10, 0.1), size=20000)
    assert large.successes == 10
    assert large.ratio == pytest.approx(nats(draws).mean() / (math.log(10) + 0.45), abs=0.01)
    assert entropy_ratio(np.full(10, 100.0), base) == large  # same seed, same numbers
    assert entropy_ratio(base, np.full(10, 100)).ratio == pytest.approx(1 / large.ratio, abs=0.02)


def test_entropy_ratio_interval_covers_the_truth():
    rng = np.random.default_rng(0)
    half, zipf = np.repeat((1 / 6, 0), (6, 18)), 1 / np.arange(1, 25) ** 1.2
    zipf /= zipf.sum()
    truth = math.log(6) / -(zipf * np.log(zipf)).sum()
    intervals = [
        entropy_ratio(rng.multinomial(480, half), rng.multinomial(480, zipf), resamples=300)
        for _ in range(150)
    ]
    assert 0.9 <= np.mean([interval.low <= truth <= interval.high for interval in intervals]) <= 0.99
    assert np.mean([interval.ratio for interval in intervals]) == pytest.approx(truth, abs=0.005)


@pytest.mark.parametrize("power, ratio", [(1, 1), (1.3, 0.937), (6, 0.099)])
def test_the_lower_bound_of_the_entropy_ratio_can_be_quoted(power, ratio):
    """At the successes of 4,800 episodes each: nominal 97.5 %, less three standard errors of 200 pairs."""
    rng = np.random.default_rng(3)
    base = 1 / np.arange(1, 25) ** 0.7
    base /= base.sum()
    tuned = base**power / (base**power).sum()
    truth = (tuned * np.log(tuned)).sum() / (base * np.log(base)).sum()
    lows = [
        entropy_ratio(rng.multinomial(4780, tuned), rng.multinomial(3330, base), resamples=300)
        for _ in range(200)
    ]
    assert truth == pytest.approx(ratio, abs=0.001)
    assert np.mean([low.low <= truth for low in lows]) >= 0.975 - 3 * (0.975 * 0.025 / 200) ** 0.5
    assert {low.successes for low in lows} == {3330}


def test_conditional_entropy_by_hand():
    lookup = np.array([[4, 0], [0, 4]])
    assert conditional_entropy(lookup) == (0, 2)
    assert conditional_entropy(np.array([[40, 40], [40, 40]])) == (1, 2)
    # 4 successes in both modes and 8 in one; the state with one success says nothing.
    mixed = conditional_entropy(np.array([[2, 2], [8, 0], [1, 0]]))
    assert mixed.states == 2
    assert mixed.value == pytest.approx((4 * (math.log(2) + 1 / 8) + 8 * 0) / 12 / math.log(2))


def test_success_at_n_by_hand():
    # 1 of 4: misses with 2 draws of C(3, 2) / C(4, 2) = 1 / 2; 4 of 4 never misses.
    assert success_at_n(np.array([1, 4]), 4, 2) == pytest.approx((0.5 + 1) / 2)
    assert success_at_n(np.array([1, 3]), 4, 1) == pytest.approx(0.5)
    assert success_at_n(np.array([0, 1]), 4, 4) == pytest.approx(0.5)


def test_success_at_n_is_unbiased():
    successes = np.random.default_rng(0).binomial(32, 0.1, size=20000)
    for n in (1, 4, 16):
        assert success_at_n(successes, 32, n) == pytest.approx(1 - 0.9**n, abs=0.004)


def test_claims_are_refused_in_one_sentence():
    enough = np.array([30, 30, 0])
    assert claim_refusal(enough, np.array([20, 20, 20])) is None
    assert claim_refusal(np.array([60, 0, 0]), np.array([20, 20, 20])) is None  # a lost mode is a finding
    few = claim_refusal(np.array([59, 0, 0]), np.array([20, 20, 20]))
    assert "tuned policy has 59 successes, 60 are needed" in few
    assert "base has 39 successes, 40 are needed" in claim_refusal(enough, np.array([20, 19, 0]))
    assert "tuned policy has 0 successes" in claim_refusal(np.zeros(3, int), np.array([20, 20, 20]))
    assert "0 successes, 20 are needed" in claim_refusal(np.zeros(3, int), np.zeros(3, int))
    single = claim_refusal(np.array([30, 30]), np.array([95, 5]))
    assert single == "Nothing to retain: the base has 1.23 effective modes, fewer than 1.5."


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: effective_modes(np.array([0, 0])), r"counts=\[0, 0\] holds no successes: play more"),
        (lambda: effective_modes(np.array([1.0, np.nan])), "give whole numbers"),
        (lambda: effective_modes(np.array([1, -1])), "give whole numbers"),
        (lambda: effective_modes(np.array([0.5, 0.5])), "give whole numbers"),
        (lambda: effective_modes(np.array([[1, 1]])), "one for each mode"),
        (lambda: jensen_shannon(np.array([1, 2]), np.array([1, 2, 3])), "counts has 2 and base_counts has 3"),
        (lambda: jensen_shannon(np.array([1, 2]), np.array([0, 0])), "base_counts=.* no successes"),
        (lambda: entropy_ratio(np.array([1, 0]), np.array([5, 5])), "at least 2: play more"),
        (lambda: entropy_ratio(np.array([5, 5]), np.array([9, 0])), "base_counts=.*one mode only"),
        (lambda: min_retention(np.array([5, 5]), np.array([5, 5]), 0.5), "min_share=0.5 leaves no mode"),
        (lambda: conditional_entropy(np.array([1, 2])), r"give \(S, M\)"),
        (lambda: conditional_entropy(np.array([[3], [2]])), "M >= 2"),
        (lambda: conditional_entropy(np.array([[1, 0], [0, 1]])), "no state with 2 successes"),
        (lambda: success_at_n(np.array([1]), 8, 16), "n=16 must lie between 1 and the 8 episodes"),
        (lambda: success_at_n(np.array([9]), 8, 1), "give 0 to 8"),
        (lambda: success_at_n(np.array([np.nan, 1]), 8, 1), "give 0 to 8"),
        (lambda: success_at_n(np.array([], int), 8, 1), "at least one state"),
        (lambda: claim_refusal(np.array([1, 2]), np.array([1, 2, 3])), "count both with the same modes"),
    ],
)
def test_bad_counts_name_the_argument_and_the_fix(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_bootstrap_interval_holds_the_estimate_and_has_the_width_of_theory():
    counts = np.array([300, 100])
    low, high = bootstrap_interval(counts)
    h = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    # The delta method: Var(H) = (sum p log(p)^2 - H^2) / n.
    variance = (0.75 * math.log(0.75) ** 2 + 0.25 * math.log(0.25) ** 2 - h**2) / 400
    assert high - low == pytest.approx(2 * 1.96 * variance**0.5, rel=0.1)
    assert low < float(nats(counts)) < high
    assert bootstrap_interval(np.array([50, 0])) == (0.0, 0.0)
    with pytest.raises(ValueError, match="holds no successes"):
        bootstrap_interval(np.array([0, 0]))


def test_interval_of_success_at_n():
    # One state, one attempt: the Clopper-Pearson interval of 32 of 64.
    exact = binomtest(32, 64).proportion_ci(method="exact")
    assert success_at_n_interval(np.array([32]), 64, 1, resamples=50_000) == pytest.approx(
        tuple(exact), abs=0.003
    )
    # A state without successes is not taken for an impossible one: 1 - .025 ** (1 / 64) is its upper limit.
    low, high = success_at_n_interval(np.array([0]), 64, 16, resamples=50_000)
    assert low == 0 and high == pytest.approx(1 - 0.025 ** (16 / 64), abs=0.01)
    assert success_at_n_interval(np.array([64]), 64, 16)[1] == 1
    low, high = success_at_n_interval(np.array([64, 0, 30]), 64, 4)
    assert low < success_at_n(np.array([64, 0, 30]), 64, 4) < high


def test_weighted_episodes_count_for_what_they_are_worth():
    mode, success = np.array([0, 0, 1, -1, 1]), np.array([True, True, True, True, False])
    # Weights 3, 1, 2 in known modes: (3 + 1 + 2)^2 / (9 + 1 + 4) = 36 / 14 episodes, two thirds in mode 0.
    counts = effective_counts(mode, success, 2, np.array([3.0, 1.0, 2.0, 7.0, 7.0]))
    assert counts == pytest.approx([24 / 14, 12 / 14])
    assert effective_counts(mode, success, 2, np.ones(5)).tolist() == [2, 1]
    assert effective_counts(mode, success, 2, None).tolist() == [2, 1]
    assert effective_counts(mode, ~success[:1].repeat(5), 2, np.ones(5)).tolist() == [0, 0]


def test_the_interval_of_weighted_counts_covers_the_truth():
    """Four modes; a tenth of the episodes counts for most."""
    rng, truth = np.random.default_rng(0), entropy_of((0.4, 0.3, 0.2, 0.1))
    covered = {effective_counts: 0, mode_counts: 0}
    for seed in range(200):
        mode, weight = rng.choice(4, 400, p=(0.4, 0.3, 0.2, 0.1)), rng.choice((0.2, 1.8), 400)
        weight[rng.random(400) < 0.9] *= 0.05
        for count in covered:
            counts = np.rint(count(mode, np.ones(400, bool), 4, weight * 400 / weight.sum())).astype(int)
            low, high = bootstrap_interval(counts, resamples=300, seed=seed)
            covered[count] += low <= truth <= high
    assert covered[effective_counts] / 200 >= 0.9 > covered[mode_counts] / 200


def entropy_of(p) -> float:
    return -float(np.dot(p, np.log(p)))
