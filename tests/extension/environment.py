"""An environment: go far enough to either side, which are its two modes."""

from dataclasses import dataclass, field
from functools import partial

import numpy as np
from gymnasium import spaces
from lerobot.envs.configs import EnvConfig

from lerobot_rlft.envs.array_config import FEATURES_MAP, vector_features
from lerobot_rlft.envs.vector import ArrayVectorEnv


class ToySides(ArrayVectorEnv):
    num_modes = 2

    def __init__(self, num_envs, far):
        plane = spaces.Box(-1, 1, (2,), np.float32)
        observation = spaces.Dict({"agent_pos": plane, "environment_state": plane})
        super().__init__(num_envs, observation, plane, 1, 64, "go to a side")
        self.far, self.x = far, np.zeros((num_envs, 2), np.float32)

    def _clear(self, who):
        self.x[who], self._mode[who], self._success[who] = 0, -1, False

    def _observe(self):
        return {"agent_pos": self.x.copy(), "environment_state": np.zeros_like(self.x)}

    def step(self, actions):
        self.x[:] = self._checked(actions)
        self._success[:] = abs(self.x[:, 0]) > self.far
        self._mode[:] = np.where(self._success, self.x[:, 0] > 0, -1)
        over = np.ones(self.num_envs, bool)
        return self._end_step(self._success.astype(float), over, ~over)


@EnvConfig.register_subclass("toy_sides")
@dataclass
class ToySidesConfig(EnvConfig):
    task: str | None = "go to a side"
    fps: int = 1
    far: float = 0.1
    features: dict = field(default_factory=partial(vector_features, state=2, environment_state=2, action=2))
    features_map: dict = field(default_factory=FEATURES_MAP.copy)

    @property
    def gym_kwargs(self):
        return {}

    def create_envs(self, n_envs, use_async_envs=False):
        return {self.type: {0: ToySides(n_envs, self.far)}}
