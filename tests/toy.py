"""A vector environment of which every number is known in advance; quick to import for its processes."""

from functools import partial

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

# Steps of the episode that begins with seed 0, 1, ...; those with even seeds end by themselves, the others
# by a limit.
LENGTHS = (2, 3, 7, 5)
MAX_STEPS = 7


class ToyEnv(gym.Env):
    """`agent_pos` is (seed, step), all pixels are 10 seed + step, the reward of step t = 1, 2, ... is t.

    An autoreset, which passes no seed, leads to seeds from 20 up.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012
    render_mode = "rgb_array"
    _max_episode_steps = MAX_STEPS
    observation_space = gym.spaces.Dict(
        {
            "agent_pos": gym.spaces.Box(-1000, 1000, (2,), np.float64),
            "pixels": gym.spaces.Box(0, 255, (4, 4, 3), np.uint8),
        }
    )
    action_space = gym.spaces.Box(-1000, 1000, (2,), np.float32)

    def __init__(
        self,
        rewards: tuple[float, ...] = (1, 2, 3, 4, 5, 6, 7),
        fail_at: int | None = None,
        bad: str | None = None,
        fail_from: int = 0,
    ):
        """At step `fail_at` of seeds from `fail_from` up raise, or give a NaN as `bad` says.

        `bad` is "reward" or "observation".
        """
        self.seed, self.t, self.rewards = 19, 0, rewards
        self.fail_at, self.bad, self.fail_from = fail_at, bad, fail_from

    def reset(self, *, seed=None, options=None):
        self.seed, self.t = (max(self.seed, 19) + 1 if seed is None else seed), 0
        return self._observe(), {"is_success": False}

    def step(self, action):
        self.t += 1
        over = self.t >= LENGTHS[self.seed % len(LENGTHS)]
        terminated = over and self.seed % 2 == 0
        reward, obs = float(self.rewards[self.t - 1]), self._observe()
        if self.t == self.fail_at and self.seed >= self.fail_from:
            if self.bad is None:
                raise RuntimeError("the simulator crashed")
            if self.bad == "reward":
                reward = float("nan")
            else:
                obs["agent_pos"][0] = np.nan
        return obs, reward, terminated, over and not terminated, {"is_success": terminated}

    def _observe(self):
        pixels = np.full((4, 4, 3), 10 * self.seed + self.t, np.uint8)
        return {"agent_pos": np.array([self.seed, self.t], float), "pixels": pixels}

    def render(self):
        return np.full((16, 16, 3), 10 * self.seed + self.t, np.uint8)


def toy_envs(
    n_envs: int, mode: AutoresetMode = AutoresetMode.SAME_STEP, asynchronous: bool = False, **options
) -> gym.vector.VectorEnv:
    makers = [partial(ToyEnv, **options) for _ in range(n_envs)]
    if asynchronous:
        return AsyncVectorEnv(makers, autoreset_mode=mode, context="forkserver")
    return SyncVectorEnv(makers, autoreset_mode=mode)
