"""`--env.type=toy_camera`: a point in a picture, moved by a policy that is told what to do."""

from dataclasses import dataclass, field
from functools import partial

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.envs.configs import EnvConfig

SIZE, TASK = 48, "push the block"


class CameraEnv(gym.Env):
    """The state is the point's place and its start; actions move it; right of the middle is success."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012
    render_mode = "rgb_array"
    observation_space = gym.spaces.Dict(
        {
            "agent_pos": gym.spaces.Box(-2, 2, (4,), np.float32),
            "pixels": gym.spaces.Dict(
                {name: gym.spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8) for name in ("top", "wrist")}
            ),
        }
    )
    action_space = gym.spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, max_episode_steps: int, task: str | None):
        self._max_episode_steps = max_episode_steps
        if task is not None:
            self.task = self.task_description = task

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.start = self.np_random.uniform(-1, 1, 2)
        self.place, self.t = self.start.copy(), 0
        return self._observe(), {"is_success": False}

    def step(self, action):
        self.place = np.clip(self.place + 0.1 * np.clip(action, -1, 1), -1, 1)
        self.t += 1
        success = bool(self.place[0] > 0)
        over = self.t >= self._max_episode_steps
        return self._observe(), float(self.place[0]), False, over, {"is_success": success}

    def _observe(self):
        state = np.concatenate([self.place, self.start]).astype(np.float32)
        return {"agent_pos": state, "pixels": {"top": self.render(), "wrist": self.render()[::-1].copy()}}

    def render(self):
        picture = np.zeros((SIZE, SIZE, 3), np.uint8)
        x, y = ((self.place + 1) / 2 * (SIZE - 8)).astype(int)
        picture[y : y + 8, x : x + 8] = (255, 128, 0)
        return picture


@EnvConfig.register_subclass("toy_camera")
@dataclass
class CameraEnvConfig(EnvConfig):
    task: str | None = TASK
    # One instruction for each copy.
    tasks: list[str] | None = None
    fps: int = 10
    episode_length: int = 8
    features: dict[str, PolicyFeature] = field(
        default_factory=lambda: {
            "action": PolicyFeature(FeatureType.ACTION, (2,)),
            "agent_pos": PolicyFeature(FeatureType.STATE, (4,)),
            "pixels/top": PolicyFeature(FeatureType.VISUAL, (SIZE, SIZE, 3)),
            "pixels/wrist": PolicyFeature(FeatureType.VISUAL, (SIZE, SIZE, 3)),
        }
    )
    features_map: dict[str, str] = field(
        default_factory=lambda: {
            "action": "action",
            "agent_pos": "observation.state",
            "pixels/top": "observation.images.top",
            "pixels/wrist": "observation.images.wrist",
        }
    )

    @property
    def gym_kwargs(self) -> dict:
        return {}

    def create_envs(self, n_envs: int, use_async_envs: bool = False):
        tasks = self.tasks or [self.task] * n_envs
        makers = [partial(CameraEnv, self.episode_length, task) for task in tasks[:n_envs]]
        return {self.type: {0: SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP)}}
