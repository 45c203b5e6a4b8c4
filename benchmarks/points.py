"""An environment for `chaos` whose copies are processes: a point is moved, and may not go far."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from lerobot.envs.configs import EnvConfig

from lerobot_rlft.envs.array_config import FEATURES_MAP, vector_features

STEPS = 8


class Point(gym.Env):
    """Success is to have gone to the right in the end."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012
    render_mode = "rgb_array"
    _max_episode_steps = STEPS
    observation_space = gym.spaces.Dict(
        {
            "agent_pos": gym.spaces.Box(-1, 1, (4,), np.float32),
            "environment_state": gym.spaces.Box(-1, 1, (9,), np.float32),
        }
    )
    action_space = gym.spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict, dict]:
        super().reset(seed=seed)
        self.t, self.x = 0, self.np_random.uniform(-0.01, 0.01, 4).astype(np.float32)
        return self._observe(), {"is_success": False}

    def step(self, action: np.ndarray) -> tuple[dict, float, bool, bool, dict]:
        self.t += 1
        self.x = np.clip(self.x + np.tile(action, 2), -1, 1).astype(np.float32)
        success = self.t == STEPS and bool(self.x[0] > 0)
        return self._observe(), float(success), success, self.t == STEPS, {"is_success": success}

    def render(self) -> np.ndarray:
        return np.zeros((16, 16, 3), np.uint8)

    def _observe(self) -> dict[str, np.ndarray]:
        return {"agent_pos": self.x, "environment_state": np.zeros(9, np.float32)}


@EnvConfig.register_subclass("chaos_points")
@dataclass
class PointsConfig(EnvConfig):
    task: str | None = "go to the right"
    fps: int = 10
    features: dict = field(default_factory=partial(vector_features, state=4, environment_state=9, action=2))
    features_map: dict = field(default_factory=FEATURES_MAP.copy)

    @property
    def gym_kwargs(self) -> dict:
        return {}

    def create_envs(self, n_envs: int, use_async_envs: bool = False) -> dict[str, dict[int, Any]]:
        kind = partial(AsyncVectorEnv, context="fork") if use_async_envs else SyncVectorEnv
        return {self.type: {0: kind([Point] * n_envs, autoreset_mode=AutoresetMode.SAME_STEP)}}
