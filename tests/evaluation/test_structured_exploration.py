"""The moments that make two kinds of noise equally large, the arms, and what is concluded."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lerobot.utils.constants import OBS_STATE
from torch.distributions import Normal

from lerobot_rlft.evaluation.exploration_report import compare, conclusion, draw, headline, table
from lerobot_rlft.evaluation.structured_exploration import (
    ARMS,
    LEAST_SUCCESSES,
    estimate_moments,
    moments,
    neighbours,
    ratio_interval,
)
from lerobot_rlft.policies.base import DenoisingPolicy
from lerobot_rlft.rollout.episodes import Episodes

FLOOR = 0.1


class TwoModes:
    """Chunks +1 or -1 by the sign of the initial noise; in between, `carry` of what was added survives."""

    horizon = action_dim = 1
    kernel = SimpleNamespace(num_steps=2, stochastic=lambda batch: None)
    sample = DenoisingPolicy.sample

    def __init__(self, carry: float) -> None:
        self.carry = carry

    def transition(self, x, k, condition):
        mean = torch.where(k[:, None, None] == 0, x.sign() + self.carry * (x - x.sign()), x.sign())
        return Normal(mean, torch.zeros_like(mean), validate_args=False)

    def executed(self, x):
        return x

    def deployed_chunk(self, condition):
        return torch.randn(len(condition), 1, 1).sign()


def test_moments_hand_computed():
    deployed = torch.tensor([[1.0, 3.0], [0.0, 10.0]])[:, :, None, None]  # variances 2 and 50
    last = torch.tensor([[0.0, 6.0], [5.0, 5.0]])[:, :, None, None]  # 18 and 0
    found = moments(deployed, Normal(last, torch.full_like(last, 0.5)))
    assert found.mean.flatten().tolist() == [2, 5]
    assert found.around_mean.flatten().tolist() == [(4 + 16) / 2 + 0.25, 0.25]
    assert found.added.flatten().tolist() == [18 + 0.25 - 2, 0]


def test_what_the_last_step_adds_is_found_without_error_from_two_samples():
    before = torch.manual_seed(3).get_state()
    found = estimate_moments(TwoModes(carry=0), torch.zeros(50, 1), FLOOR, samples=2)
    assert torch.allclose(found.added, torch.tensor(FLOOR**2), rtol=1e-4)
    assert len(found.mean.unique()) == 3  # both samples -1, one of each, both 1
    # One number was drawn, so that the next decision has other noise.
    again = estimate_moments(TwoModes(carry=0), torch.zeros(50, 1), FLOOR, samples=2)
    assert not torch.equal(found.mean, again.mean) and not torch.equal(before, torch.get_rng_state())


def test_the_arms_have_the_prescribed_mean_and_variance():
    """Exploration adds floor^2 at the last step and (carry floor)^2 before it."""
    policy, condition, added = TwoModes(carry=0.5), torch.zeros(4000, 1), 1.25 * FLOOR**2
    chunks = {}
    for arm, make in ARMS.items():
        torch.manual_seed(0)
        chunks[arm] = make(policy, FLOOR, 64)(condition).flatten()
    for chunk in chunks.values():
        assert chunk.mean() == pytest.approx(0, abs=0.05)
        assert chunk.square().mean() == pytest.approx(1 + added, rel=0.05)
    for arm in ("denoising", "gaussian_sample"):
        away = chunks[arm] - chunks[arm].sign()
        assert away.square().mean() == pytest.approx(added, rel=0.2)
    # The fourth moment is three times the squared variance in a normal distribution, once in two modes.
    assert chunks["gaussian_mean"].pow(4).mean() == pytest.approx(3, rel=0.2)
    assert chunks["denoising"].pow(4).mean() == pytest.approx(1, rel=0.1)


def test_the_interval_keeps_pairs():
    values = np.random.default_rng(0).exponential(size=400)
    assert ratio_interval(2 * values, values) == pytest.approx((2, 2))
    # Of two equal distributions; without pairs the ratio has a standard deviation of about sqrt(2 / 400).
    low, high = ratio_interval(np.random.default_rng(1).permutation(values), values)
    assert low < 1 < high and high - low == pytest.approx(4 * (2 / 400) ** 0.5, rel=0.2)


def episodes_of(successes: int, failures: int = 3) -> Episodes:
    """Straight paths to ends drawn around (1, 0); failures far away."""
    count = successes + failures
    success, ones = np.arange(count) < successes, np.ones(count)
    ends = np.random.default_rng(successes).normal([1, 0], 0.1, (count, 2)) + 100 * ~success[:, None]
    states = np.stack([np.zeros((count, 2)), ends], 1)
    return Episodes(success, None, ones, ones, ones, {OBS_STATE: states})


def test_neighbours_of_successes_only():
    base = episodes_of(100).states[OBS_STATE][:100]
    found = neighbours(episodes_of(60), base)
    assert found["no_coverage"] is None and found["paths"] == 50
    assert found["coverage"] > 0.85 and found["control_coverage"] > 0.85
    few = neighbours(episodes_of(LEAST_SUCCESSES - 1), base)
    assert few["no_coverage"] == "the arm has 19 successes, 20 are needed" and few["coverage"] is None
    assert few.keys() == found.keys()
    assert "a half of the base has 10 successes" in neighbours(episodes_of(60), base[:20])["no_coverage"]


def measured(arm: str, floor: float, success: float, residual: float) -> dict:
    """Intervals of +-.1 around both; coverage as where successes are few."""
    return {
        "arm": arm, "floor": floor, "noise_rms": floor, "modes": 3, "num_modes": 24,
        "success": success, "success_ci": (success - 0.1, success + 0.1),
        "off_manifold": residual, "off_manifold_ci": (residual - 0.1, residual + 0.1),
        "coverage": 0.9, "recall": 0.9, "control_coverage": 0.95, "control_recall": 0.9,
        "no_coverage": None,
    }  # fmt: skip


def outcome(*floors: tuple[tuple[float, float], ...]) -> dict:
    """(success, residual) of the three arms at the floors 1, 2, ...; the base has (.7, 1)."""
    arms = [
        measured(arm, i + 1, *numbers)
        for i, floor in enumerate(floors)
        for arm, numbers in zip(ARMS, floor, strict=True)
    ]
    return {"base": measured("base", 0, 0.7, 1), "arms": arms}


HOLDS = (0.7, 1.0), (0.1, 5.0), (0.3, 3.0)
EQUAL = (0.7, 2.0), (0.1, 5.0), (0.7, 2.1)
WORSE = (0.2, 5.0), (0.7, 2.0), (0.5, 1.0)


@pytest.mark.parametrize(
    "floors, verdict, words",
    [
        ([HOLDS, HOLDS], "holds here", ["further off the base's manifold than the base's own at 0 of 2"]),
        ([HOLDS, EQUAL], "holds in part here", ["both Gaussian arms at 1 of 2 floors"]),
        ([EQUAL, EQUAL], "fails here", ["at 2 of 2", "at most 2.00 times"]),
        ([WORSE], "fails here", ["at 0 of 1 floors and farther at 1; it succeeds more often at 0 and less"]),
    ],
)  # fmt: skip
def test_the_conclusion_follows_the_numbers(floors, verdict, words):
    said = conclusion(**outcome(*floors))
    assert f"Gaussian noise leaves it {verdict}" in said
    assert all(word in said for word in words)
    assert ("So it is the mean" in said) == (floors == [EQUAL, EQUAL])


def test_a_difference_within_the_intervals_counts_for_nobody():
    close = (0.7, 2.0), (0.6, 2.15), (0.75, 1.85)
    assert set(compare(outcome(close)["arms"])["both"].values()) == {0}
    assert compare(outcome(HOLDS)["arms"])["both"] == {"nearer": 1, "farther": 0, "better": 1, "worse": 0}


def test_numbers_and_picture(tmp_path):
    found = outcome(HOLDS, EQUAL)
    few = {"coverage": None, "control_coverage": None, "no_coverage": "too few"}
    found["arms"][1] |= few
    lines = table(**found).splitlines()
    assert len(lines) == 1 + 1 + 6 and len({line.rindex(" ") for line in lines}) == 1
    numbers = "1      0.700 [0.600, 0.800]  3      0.900 (0.950)       1.000 [0.900, 1.100]  1.000"
    assert lines[2] == f"denoising        {numbers}"
    assert "too few" in lines[3]
    assert "at 2 of 2 noise sizes" in headline(found["arms"])
    draw(tmp_path / "picture.png", **found)
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]
