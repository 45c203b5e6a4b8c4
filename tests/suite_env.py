"""A small suite: tasks with differing success, LIBERO's keys, or one that is broken."""

from dataclasses import dataclass, field
from functools import partial

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.envs.configs import EnvConfig
from lerobot.envs.utils import freeze_after_episode_end
from lerobot.utils.constants import ACTION, OBS_ENV_STATE, OBS_STATE

SEEDS = 10  # successes repeat after so many seeds
RATES = (0.2, 0.5, 0.9)  # share of the seeds that task 0, 1, 2 succeeds on
MODES = 2
LENGTHS = (3, 4, 5)  # steps of an episode
BROKEN = "the simulator crashed"


class SuiteTask(gym.Env):
    """Task t succeeds on the first `RATES[t]` of every `SEEDS` seeds, in mode seed mod 2, whatever is done.

    `agent_pos` is (seed mod SEEDS, step), `environment_state` (task). An autoreset without a seed goes on
    with others. Where modes are not named, the first observation does not tell the seed: an atlas takes
    away what it explains.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012
    render_mode = "rgb_array"
    action_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    num_modes = MODES

    def __init__(
        self, number: int, names_modes: bool = True, fail_at: int | None = None, state: str = "agent_pos"
    ):
        self.state = state
        self.number, self.names_modes, self.fail_at = number, names_modes, fail_at
        self.task, self.task_description = f"task{number}", f"do thing {number}"
        self._max_episode_steps = LENGTHS[number]
        self.observation_space = gym.spaces.Dict(
            {
                state: gym.spaces.Box(-1000, 1000, (4,), np.float64),
                "environment_state": gym.spaces.Box(-1000, 1000, (9,), np.float64),
            }
        )
        self.seed, self.t = 7, 0

    def reset(self, *, seed=None, options=None):
        self.seed, self.t = (self.seed + 7 if seed is None else seed), 0
        return self._observe(), {"is_success": False}

    def step(self, action):
        self.t += 1
        if self.t == self.fail_at:
            raise RuntimeError(BROKEN)
        over = self.t >= LENGTHS[self.number]
        success = over and self.seed % SEEDS < RATES[self.number] * SEEDS
        info = {"is_success": success}
        if self.names_modes:
            info["mode"] = self.seed % MODES if success else -1
        return self._observe(), float(success), success, over and not success, info

    def _observe(self):
        state = np.zeros(4)
        state[:3] = self.seed % SEEDS * (self.names_modes or self.t > 0), self.t, self.seed % MODES * self.t
        return {self.state: state, "environment_state": np.full(9, float(self.number))}

    def render(self):
        return np.full((16, 16, 3), self.number, np.uint8)


@EnvConfig.register_subclass("small_suite")
@dataclass
class SmallSuiteConfig(EnvConfig):
    """Task `broken` fails at its third step; `modes`: whether they are named; `state`: name of the state."""

    n_tasks: int = 3
    broken: int | None = None
    modes: bool = True
    next_step: bool = True
    state: str = "agent_pos"
    fps: int = 10
    features: dict[str, PolicyFeature] = field(
        default_factory=lambda: {
            ACTION: PolicyFeature(FeatureType.ACTION, (2,)),
            "agent_pos": PolicyFeature(FeatureType.STATE, (4,)),
            "environment_state": PolicyFeature(FeatureType.ENV, (9,)),
        }
    )
    features_map: dict[str, str] = field(
        default_factory=lambda: {
            ACTION: ACTION, "agent_pos": OBS_STATE, "environment_state": OBS_ENV_STATE
        }
    )  # fmt: skip

    @property
    def gym_kwargs(self) -> dict:
        return {}

    def create_envs(self, n_envs: int, use_async_envs: bool = False):
        mode = AutoresetMode.NEXT_STEP if self.next_step else AutoresetMode.SAME_STEP
        suites: dict = {"small": {}}
        for t in range(self.n_tasks):
            make = partial(SuiteTask, t, self.modes, 3 if t == self.broken else None, self.state)
            makers = [freeze_after_episode_end(make) if self.next_step else make] * n_envs
            if use_async_envs and n_envs > 1:
                vector = AsyncVectorEnv(makers, autoreset_mode=mode, context="forkserver")
            else:
                vector = SyncVectorEnv(makers, autoreset_mode=mode)
            suites["small"][t] = vector
        return suites
