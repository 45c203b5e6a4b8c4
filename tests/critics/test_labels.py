"""Returns, advantages and labels against numbers computed by hand."""

import numpy as np
import pytest

from lerobot_rlft.critics.labels import (
    advantages,
    label_frames,
    returns,
    scaled_rewards,
    step_rewards,
    steps_left,
)
from lerobot_rlft.policies.conditioning import NEGATIVE, POSITIVE, UNKNOWN

# Episodes of 3, 2 and 4 frames; the first two are of one task, the last of another.
EPISODE = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2])
TASK = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1])
SUCCESS = np.array([True, False, True])
ZERO = np.zeros(9)


def test_steps_left():
    assert steps_left(EPISODE).tolist() == [2, 1, 0, 1, 0, 3, 2, 1, 0]


def test_returns_of_the_paper():
    """Task 0: longest episode 3, C 3, so everything is divided by 6; task 1: 4 + 4."""
    reward = step_rewards(EPISODE, SUCCESS, TASK, fail_cost=None)
    assert (reward[:5] * 6).tolist() == pytest.approx([-1, -1, 0, -1, -3])
    assert (reward[5:] * 8).tolist() == pytest.approx([-1, -1, -1, 0])
    total = returns(EPISODE, reward, ZERO)
    assert (total[:5] * 6).tolist() == pytest.approx([-2, -1, 0, -4, -3])
    assert (total[5:] * 8).tolist() == pytest.approx([-3, -2, -1, 0])
    assert total.min() >= -1 and total.max() <= 0
    # C = 0 is the division by the longest episode alone.
    free = returns(EPISODE, step_rewards(EPISODE, SUCCESS, TASK, fail_cost=0.0), ZERO)
    assert (free[:5] * 3).tolist() == pytest.approx([-2, -1, 0, -1, 0])


def test_a_long_failure_is_worse_than_a_short_one_and_any_success_better():
    episode = np.repeat([0, 1, 2], [10, 3, 10])
    reward = step_rewards(episode, np.array([False, False, True]), np.zeros(23, int), None)
    total = returns(episode, reward, np.zeros(23))
    assert total[0] < total[10] < total[13] and total.min() >= -1


def test_rewards_of_the_environment_in_units_of_the_range():
    reward = np.array([0, 0, 2.0, 0, 0, 1.0, 0, 0, 1.05])
    scaled, over = scaled_rewards(EPISODE, reward, TASK)
    total = returns(EPISODE, scaled, over)
    # Task 0 earns 2 or 0; of task 1 (1 + 1.05) 2.05 is the most.
    assert total[:5].tolist() == pytest.approx([0, 0, 0, -1, -1])
    assert total[5:].tolist() == pytest.approx([0, -1 / 2.05, -1 / 2.05, -1 / 2.05])
    assert over[[0, 8]].tolist() == pytest.approx([-1, -1])
    flat, end = scaled_rewards(EPISODE, ZERO, TASK)
    assert not flat.any() and not end.any()


def test_n_step_advantages_by_hand():
    reward = np.array([-1.0, -1, 0, -1, -3, -1, -1, -1, 0]) / 10
    value = np.array([-0.5, -0.4, -0.1, -0.2, -0.3, -0.6, -0.5, -0.2, -0.1])
    two = advantages(EPISODE, reward, ZERO, value, n_steps=2)
    # Frame 0: r0 + r1 + V2 - V0; frame 1: r1 + r2 - V1, cut at the end; never across episodes.
    expected = [
        -0.2 - 0.1 + 0.5, -0.1 + 0.4, 0 + 0.1,
        -0.4 + 0.2, -0.3 + 0.3,
        -0.2 - 0.2 + 0.6, -0.2 - 0.1 + 0.5, -0.1 + 0.2, 0 + 0.1,
    ]  # fmt: skip
    assert two.tolist() == pytest.approx(expected)
    whole = advantages(EPISODE, reward, ZERO, value, n_steps=None)
    assert whole.tolist() == pytest.approx((returns(EPISODE, reward, ZERO) - value).tolist())
    assert advantages(EPISODE, reward, ZERO, value, n_steps=4).tolist() == pytest.approx(whole.tolist())
    over = np.full(9, -0.25)
    assert advantages(EPISODE, reward, over, value, 2)[[0, 1]].tolist() == pytest.approx([0.2, 0.05])


def labelled(labeling, advantage, fraction=0.5, **fields):
    count = len(advantage)
    defaults = {
        "success": np.ones(count),
        "task": np.zeros(count, int),
        "mode": np.zeros(count, int),
        "forced": np.zeros(count, bool),
    }
    return label_frames(
        labeling, advantage=np.array(advantage, float), positive_fraction=fraction, **(defaults | fields)
    ).tolist()


def test_quantiles_of_each_task():
    advantage = [1, 2, 3, 4, 5, 10, 20, 30, 40, 50]
    tasks = np.repeat([0, 1], 5)
    found = labelled("quantile", advantage, fraction=0.4, task=tasks)
    assert found == [NEGATIVE] * 3 + [POSITIVE] * 2 + [NEGATIVE] * 3 + [POSITIVE] * 2
    assert labelled("quantile", advantage, fraction=0.4) == [NEGATIVE] * 6 + [POSITIVE] * 4


def test_a_slightly_worse_mode_is_dropped_by_a_global_quantile_and_kept_by_its_own():
    advantage, modes = [1.0, 1.1, 1.2, 1.3, 2.0, 2.1, 2.2, 2.3], np.repeat([0, 1], 4)
    assert labelled("quantile", advantage) == [NEGATIVE] * 4 + [POSITIVE] * 4
    half = [NEGATIVE] * 2 + [POSITIVE] * 2
    assert labelled("per_mode_quantile", advantage, mode=modes) == half * 2


def test_demonstrations_are_positive_and_do_not_shift_the_quantile():
    forced = np.array([True, True, False, False])
    for labeling in ("quantile", "per_mode_quantile"):
        found = labelled(labeling, [-9, -9, 1, 2], forced=forced)
        assert found == [POSITIVE, POSITIVE, NEGATIVE, POSITIVE]


def test_success_of_the_episode():
    success, forced = np.array([1, 0, np.nan, 0, np.nan]), np.array([False, False, False, True, True])
    found = labelled("episode_success", [np.nan] * 5, success=success, forced=forced)
    assert found == [POSITIVE, NEGATIVE, UNKNOWN, POSITIVE, POSITIVE]


def test_without_an_outcome_a_frame_is_unknown():
    assert labelled("quantile", [np.nan, 1, 2]) == [UNKNOWN, NEGATIVE, POSITIVE]


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5])
def test_a_fraction_out_of_range(fraction):
    with pytest.raises(ValueError, match=rf"positive_fraction={fraction} is out of range, choose a"):
        labelled("quantile", [1, 2], fraction=fraction)


def test_an_unknown_labeling():
    with pytest.raises(ValueError, match="label='best' is unknown, choose quantile, per_mode_quantile"):
        labelled("best", [1, 2])
