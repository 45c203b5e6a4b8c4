"""What is said of the base before anything is learnt."""

import numpy as np
import pytest

from lerobot_rlft.rollout.episodes import Episodes
from lerobot_rlft.training.evaluator import warn_of_reward


def episodes(success, reward):
    count = len(success)
    return Episodes(np.array(success), None, np.array(reward), np.zeros(count), np.ones(count, int))


def test_a_reward_that_pays_for_failing_is_warned_of(capsys):
    """Push-T's reward is a level: hovering near the goal to the end earns more than reaching it."""
    warn_of_reward("env", episodes([True, False, True, False], [110.0, 160.0, 120.0, 170.0]))
    said = capsys.readouterr().out
    assert "failures of the base earn more than its successes (165 and 115" in said
    assert "--rollout.reward=success" in said


@pytest.mark.parametrize(
    "reward, success, earned",
    [
        ("success", [True, False], [1.0, 2.0]),  # not what is learned
        ("env", [True, False], [2.0, 1.0]),
        ("env", [True, True], [1.0, 2.0]),
        ("env", [False, False], [1.0, 2.0]),
    ],
)
def test_other_rewards_are_not(reward, success, earned, capsys):
    warn_of_reward(reward, episodes(success, earned))
    assert capsys.readouterr().out == ""
