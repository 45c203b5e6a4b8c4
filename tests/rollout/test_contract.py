"""What an environment must give: each way to break it is a sentence that names it."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from lerobot_rlft.envs.avoiding.avoiding import AvoidingVectorEnv
from lerobot_rlft.envs.grasps.grasps import GraspsVectorEnv
from lerobot_rlft.rollout.contract import (
    check_contract,
    check_modes,
    middle,
    mode_number,
    number_of_modes,
    shape_problems,
)
from lerobot_rlft.utils.errors import EnvironmentFailure, UserError

STATE, IMAGE = spaces.Box(-1, 1, (3,), np.float32), spaces.Box(0, 255, (8, 10, 3), np.uint8)
STEPS = 4


class Kept(gym.Env):
    """Keeps the contract; each argument breaks one part of it."""

    def __init__(self, observations=None, actions=None, steps=STEPS, told=None, num_modes=2, zeros=None):
        self.observation_space = spaces.Dict(observations or {"agent_pos": STATE, "pixels": IMAGE})
        self.action_space = spaces.Box(-1, 1, (2,), np.float32) if actions is None else actions
        if steps is not None:
            self._max_episode_steps = steps
        if num_modes is not None:
            self.num_modes = num_modes
        self.told = (lambda t: {"is_success": False}) if told is None else told
        self.zeros = zeros

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return self._observe(), {}

    def step(self, action):
        self.t += 1
        return self._observe(), 0.0, False, self.t == STEPS, self.told(self.t)

    def _observe(self):
        if self.zeros is not None:
            return self.zeros(self.t)
        return {key: np.zeros(space.shape, space.dtype) for key, space in self.observation_space.items()}


def check(mode=AutoresetMode.SAME_STEP, **broken):
    check_contract(SyncVectorEnv([lambda: Kept(**broken)] * 2, autoreset_mode=mode), "mine")


def at_the_end(info):
    return lambda t: info if t == STEPS else {}


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
@pytest.mark.parametrize(
    "kept",
    [
        {},
        {"told": at_the_end({"is_success": True, "mode": 1})},
        {"told": lambda t: {"is_success": np.bool_(True), "mode": np.int64(-1)}},
        {"told": lambda t: {"is_success": False}, "num_modes": None},
        {"observations": {"pixels": spaces.Dict({"top": IMAGE}), "counts": spaces.MultiDiscrete([3, 3])},
         "zeros": lambda t: {"pixels": {"top": np.zeros((8, 10, 3), np.uint8)}, "counts": np.zeros(2, int)}},
    ],
    ids=["plain", "success at the end", "numpy scalars", "no modes", "nested"],
)  # fmt: skip
def test_what_keeps_the_contract(kept, mode):
    check(mode, **kept)


@pytest.mark.parametrize("envs", [AvoidingVectorEnv(3), GraspsVectorEnv(3)])
def test_environments_here_keep_it(envs):
    check_contract(envs, "ours")


@pytest.mark.parametrize(
    "broken, answer",
    [
        ({"observations": {"pixels": spaces.Box(0, 1, (8, 10, 3), np.float32)}},
         "image pixels is float32: give uint8"),
        ({"observations": {"pixels": spaces.Box(0, 255, (3, 8, 10), np.uint8)}},
         r"image pixels is \(3, 8, 10\): give \(height, width, channels\)"),
        ({"observations": {"pixels": spaces.Dict({"top": spaces.Box(0, 1, (3, 8, 10), np.float32)})}},
         r"image pixels/top is float32.*; image pixels/top is \(3, 8, 10\)"),
        ({"observations": {"agent_pos": STATE, "words": spaces.Text(9)}},
         "observation words is Text: give numbers or images; .* task_description"),
        ({"actions": spaces.Discrete(4)}, r"its actions are Discrete\(4\): give a Box of floats"),
        ({"actions": spaces.Box(0, 4, (2,), np.int64)}, "its actions are Box.*int64.*: give a Box of floats"),
        ({"actions": spaces.Box(-1, 1, (2, 3), np.float32)}, r"shape \(2, 3\): give one row"),
        ({"steps": None}, "it has no attribute _max_episode_steps, .* registered with max_episode_steps"),
        ({"steps": "many"}, "'many' is no attribute _max_episode_steps"),
        ({"steps": 0}, "0 is no attribute _max_episode_steps"),
        ({"told": lambda t: {}}, r"never says whether an episode succeeded: put info\['is_success'\]"),
        ({"told": lambda t: {"task": {"is_success": True}}}, "never says whether an episode succeeded"),
        ({"told": lambda t: {"is_success": "no"}}, r"info\['is_success'\] is 'no': give true or false"),
        ({"told": lambda t: {"is_success": True, "mode": "left"}},
         r"info\['mode'\] is 'left': give the mode's number"),
        ({"told": at_the_end({"is_success": True, "mode": "left"})},
         r"info\['mode'\] is 'left': give the mode's number"),
        ({"told": lambda t: {"is_success": True, "mode": 1}, "num_modes": None},
         "names modes .* not how many there are: give it an attribute num_modes"),
        ({"told": lambda t: {"is_success": True, "mode": 1}, "num_modes": "two"},
         "num_modes is 'two': give a whole number above 0"),
    ],
)  # fmt: skip
def test_what_breaks_it(broken, answer):
    with pytest.raises(UserError, match=rf"^env.type=mine cannot be used: .*{answer}.*own_environment.md$"):
        check(**broken)


def test_all_that_is_wrong_is_named_at_once():
    with pytest.raises(UserError, match=r"give a Box of floats.*; it has no attribute _max_episode_steps"):
        check(actions=spaces.Discrete(4), steps=None)


def test_bare_arrays_are_named_by_another_choice_of_observations():
    envs = SyncVectorEnv([Bare] * 2)
    with pytest.raises(UserError, match=r"bare arrays .*--env.obs_type=pixels_agent_pos"):
        check_contract(envs, "mine")


class Bare(Kept):
    def __init__(self):
        super().__init__()
        self.observation_space = STATE


def test_shapes_that_change_are_said_to_be_the_environments():
    later = lambda t: {"agent_pos": np.zeros(3 + t, np.float32)}  # noqa: E731
    with pytest.raises(EnvironmentFailure, match=r"raised ValueError in step 1: .*keep the shapes of the"):
        check(observations={"agent_pos": STATE}, zeros=later)


def test_observations_are_compared_with_their_space():
    space = spaces.Dict({"agent_pos": STATE, "pixels": spaces.Dict({"top": IMAGE})})
    images = np.zeros((2, 8, 10, 3), np.uint8)
    right = {"agent_pos": np.zeros((2, 3)), "pixels": {"top": images}, "more": np.zeros(2)}
    assert list(shape_problems(right, space)) == []
    wrong = {"agent_pos": np.zeros((2, 4)), "pixels": {"top": images.astype(np.float32)}}
    assert list(shape_problems(wrong, space)) == [
        "observation agent_pos has shape (4,), the observation space says (3,): keep to it always",
        "image pixels/top is float32: give uint8, 0 to 255",
    ]
    assert list(shape_problems({"pixels": {"top": images}}, space)) == [
        "observation agent_pos is missing, the observation space says (3,): keep to it always"
    ]


class SaysAtReset(Kept):
    def reset(self, **options):
        return super().reset(**options)[0], {"is_success": False}


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_success_of_the_next_episode_is_not_that_of_the_last(mode):
    envs = SyncVectorEnv([lambda: SaysAtReset(told=lambda t: {})] * 2, autoreset_mode=mode)
    with pytest.raises(UserError, match="never says whether an episode succeeded"):
        check_contract(envs, "mine")


def test_what_is_raised_names_where():
    def crash(t):
        raise RuntimeError("the simulator crashed")

    with pytest.raises(EnvironmentFailure, match="raised RuntimeError in step 1: the simulator crashed"):
        check(told=crash)


@pytest.mark.parametrize("value, mode", [(0, 0), (-1, -1), (np.int64(3), 3), (2.0, 2)])
def test_numbers_of_modes(value, mode):
    assert mode_number(value) == mode


@pytest.mark.parametrize("value", ["left", None, 1.5, -2, float("nan"), np.zeros(2)])
def test_what_is_no_number_of_a_mode(value):
    with pytest.raises(EnvironmentFailure, match=r"info\['mode'\] is .*: give the mode's number"):
        mode_number(value)


def test_a_mode_beyond_their_number():
    assert number_of_modes(GraspsVectorEnv(2)) == 5
    check_modes(np.array([0, 4, -1]), 5)
    check_modes(np.array([], int), 5)
    with pytest.raises(
        EnvironmentFailure, match=r"info\['mode'\] is 5 and .*num_modes is 5: number .* 0 to 4"
    ):
        check_modes(np.array([0, 5]), 5)


def test_the_middle_of_an_action_space():
    space = spaces.Box(np.array([0, -1, -np.inf], np.float32), np.array([4, np.inf, np.inf], np.float32))
    assert middle(space).tolist() == [2, 0, 0]
    assert middle(space).dtype == np.float32
