"""How success is read and actions are sent: as stock lerobot-eval does."""

from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from lerobot.processor import PolicyProcessorPipeline
from lerobot.processor.env_processor import LiberoProcessorStep
from torch import nn

from lerobot_rlft.chains.chain import Chain
from lerobot_rlft.rollout.runner import EpisodeRunner
from lerobot_rlft.utils.errors import EnvironmentFailure

STEPS = 4


class Told(gym.Env):
    """Four steps; `told` (seed, step) is the info of each; the state is (step, last action)."""

    _max_episode_steps = STEPS
    observation_space = gym.spaces.Dict({"agent_pos": gym.spaces.Box(-9, 9, (2,), np.float64)})

    def __init__(self, told, action_space=None):
        self.told = told
        self.action_space = gym.spaces.Box(-9, 9, (1,), np.float32) if action_space is None else action_space

    def reset(self, *, seed=None, options=None):
        self.seed, self.t = (9 if seed is None else seed), 0
        return self._observe(0), {}

    def step(self, action):
        self.t += 1
        return self._observe(action[0]), 0.0, self.t == STEPS, False, self.told(self.seed, self.t)

    def _observe(self, action):
        return {"agent_pos": np.array([self.t, action], float)}


class Robot(Told):
    """States as LIBERO gives them: the gripper is at `step`, and points along the axes."""

    observation_space = gym.spaces.Dict(
        {
            "robot_state": gym.spaces.Dict(
                {
                    "eef": gym.spaces.Dict(
                        {
                            "pos": gym.spaces.Box(-9, 9, (3,), np.float64),
                            "quat": gym.spaces.Box(-1, 1, (4,), np.float64),
                        }
                    ),
                    "gripper": gym.spaces.Dict({"qpos": gym.spaces.Box(-9, 9, (2,), np.float64)}),
                }
            )
        }
    )

    def _observe(self, action):
        eef = {"pos": np.array([self.t, 0.0, 1.0]), "quat": np.array([0, 0, 0, 1.0])}
        return {"robot_state": {"eef": eef, "gripper": {"qpos": np.array([0.5, -0.5])}}}


def runner(told, n_envs=2, mode=AutoresetMode.SAME_STEP, kind=Told, processor=lambda obs: obs, **options):
    envs = SyncVectorEnv([lambda: kind(told, **options)] * n_envs, autoreset_mode=mode)
    policy = SimpleNamespace(
        module=nn.Identity(),
        n_obs_steps=1,
        n_action_steps=STEPS,
        draw=lambda count, deployed: None,
        encode=lambda obs: obs["observation.state"][:, -1],
        to_action=lambda chunk: chunk,
    )
    return EpisodeRunner(envs, policy, processor, lambda actions: actions)


def always(value):
    """Every number of every chunk is `value`."""

    def decide(condition):
        chunk = torch.full((len(condition), STEPS, 1), value)
        return Chain(chunk[:, None], chunk.new_zeros(len(chunk), 0))

    return decide


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_success_in_the_middle_of_an_episode_counts(mode):
    told = lambda seed, t: {"is_success": seed == 1 and t == 2}  # noqa: E731
    assert runner(told, 3, mode).evaluate(3, np.arange(3), always(0.0)).success.tolist() == [0, 1, 0]


def test_what_begins_after_an_autoreset_does_not_count():
    told = lambda seed, t: {"is_success": seed == 9}  # noqa: E731
    for mode in (AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP):
        assert not runner(told, 2, mode).evaluate(2, np.arange(2), always(0.0)).success.any()


@pytest.mark.parametrize(
    "info", [{}, {"success": True}, {"task": {"is_success": True}}], ids=["none", "another key", "nested"]
)
def test_an_environment_that_names_no_success_is_refused(info):
    with pytest.raises(
        EnvironmentFailure, match=r"never says whether .* succeeded: put info\['is_success'\]"
    ):
        runner(lambda seed, t: info).evaluate(2, np.arange(2), always(0.0))


def test_whole_numbers_are_rounded_by_the_environment_and_not_cut_off_before():
    space = gym.spaces.MultiDiscrete([9])
    env = runner(lambda seed, t: {"is_success": False}, action_space=space)
    states = env.evaluate(2, np.arange(2), always(2.75)).states["observation.state"]
    assert states[:, 1:, 1].tolist() == [[2.75] * STEPS] * 2


def test_paths_are_those_of_the_state_that_the_policy_is_shown():
    pipeline = PolicyProcessorPipeline(steps=[LiberoProcessorStep()])
    told = lambda seed, t: {"is_success": False}  # noqa: E731
    env = runner(told, kind=Robot, processor=pipeline)
    assert env.vector_sizes == {"observation.state": 8}
    episodes = env.evaluate(2, np.arange(2), always(0.0))
    # Position, no rotation, gripper; the last one from before the autoreset.
    path = [[t, 0, 1, 0, 0, 0, 0.5, -0.5] for t in range(STEPS + 1)]
    assert episodes.states["observation.state"].tolist() == [path, path]


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_success_under_the_name_of_gym_hil(mode):
    said = lambda seed, t: {"succeed": seed == 1 and t == STEPS}  # noqa: E731
    assert runner(said, 2, mode).evaluate(2, np.arange(2), always(0.0)).success.tolist() == [False, True]
    both = lambda seed, t: {"succeed": True, "is_success": False}  # noqa: E731
    assert not runner(both, 2, mode).evaluate(2, np.arange(2), always(0.0)).success.any()
