"""Base of the tasks here: N copies behind the gymnasium vector API.

All copies live in one set of arrays, so a step of 50 costs little more than a step of one.
"""

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space


class ArrayVectorEnv(VectorEnv):
    """N copies of a task with labelled modes, autoreset SAME_STEP.

    `info["mode"]` (-1: none yet) and `info["is_success"]` belong to the step just made, and where an episode
    ends `final_info` repeats them. A `SyncVectorEnv` shows the next episode's there, so code for both reads
    `final_info`; keys, nesting and masks are the same in both.

    Args:
        num_envs: number of copies N.
        observation_space, action_space: of one copy.
        max_episode_steps: horizon.
        render_size: height and width of rendered frames, pixels.
        task: the sentence that language-conditioned policies are given.
    """

    metadata: ClassVar = {"render_modes": ["rgb_array"], "autoreset_mode": AutoresetMode.SAME_STEP}
    render_mode = "rgb_array"
    spec = None

    def __init__(
        self,
        num_envs: int,
        observation_space: spaces.Dict,
        action_space: spaces.Box,
        max_episode_steps: int,
        render_size: int,
        task: str,
    ):
        self.num_envs = num_envs
        self.task = self.task_description = task
        self._max_episode_steps, self.render_size = max_episode_steps, render_size
        self.single_observation_space, self.single_action_space = observation_space, action_space
        self.observation_space = batch_space(observation_space, num_envs)
        self.action_space = batch_space(action_space, num_envs)
        self._mode, self._success = np.full(num_envs, -1, np.int64), np.zeros(num_envs, bool)

    @abstractmethod
    def _clear(self, who: slice | np.ndarray) -> None:
        """Put the copies `who` at the start of an episode."""

    @abstractmethod
    def _observe(self) -> dict[str, np.ndarray]:
        """Observation name -> (N, S) float32, in arrays that later steps leave alone."""

    def _info(self, who: np.ndarray) -> dict[str, np.ndarray]:
        """Info dicts, as gymnasium gives them, of the copies `who` (N,) alone."""
        return {
            "mode": np.where(who, self._mode, -1),
            "_mode": who,
            "is_success": self._success & who,
            "_is_success": who,
        }

    def reset(self, *, seed=None, options: dict[str, Any] | None = None):
        """Put every copy at the start. The tasks have no randomness of their own: `seed` changes nothing."""
        self._clear(slice(None))
        return self._observe(), self._info(np.ones(self.num_envs, bool))

    def _checked(self, actions: np.ndarray) -> np.ndarray:
        actions = np.asarray(actions)
        if actions.shape != self.action_space.shape:
            raise ValueError(
                f"actions have shape {actions.shape}, give {self.action_space.shape}: one action per env"
            )
        return actions

    def _end_step(self, reward: np.ndarray, terminated: np.ndarray, truncated: np.ndarray):
        """The values that `step` returns, all (N,); copies whose episode is over begin the next one."""
        info: dict[str, Any] = self._info(np.ones(self.num_envs, bool))
        obs, done = self._observe(), terminated | truncated
        if done.any():
            info["final_obs"], info["_final_obs"] = np.full(self.num_envs, None, object), done
            for i in np.flatnonzero(done):
                info["final_obs"][i] = {name: value[i] for name, value in obs.items()}
            info["final_info"], info["_final_info"] = self._info(done), done
            self._clear(done)
            obs = self._observe()
        return obs, reward, terminated, truncated, info

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Call as in `SyncVectorEnv`: the attribute, or the method's result, once per copy."""
        if name == "render":
            return self.render()
        value = getattr(self, name)
        return (value(*args, **kwargs) if callable(value) else value,) * self.num_envs

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """The attribute, once per copy."""
        return self.call(name)
