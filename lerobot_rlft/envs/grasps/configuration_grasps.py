"""`--env.type=grasps` for every LeRobot command."""

import math
from dataclasses import dataclass, field, replace
from functools import partial

from lerobot.configs import PolicyFeature
from lerobot.envs.configs import EnvConfig

from ..array_config import FEATURES_MAP, vector_features
from .grasps import RADIUS, TASK, GraspsVectorEnv


@EnvConfig.register_subclass("grasps")
@dataclass
class GraspsEnvConfig(EnvConfig):
    """One decision between a few grasps, one of them worth a little more (`envs/grasps.py` describes it).

    Raises:
        ValueError: a field is out of its range.
    """

    # Instruction that policies which read language are given.
    task: str | None = TASK
    # Control steps in a second.
    fps: int = 1
    # Number of grasps to choose from.
    n_grasps: int = 5
    # Distance from its point at which a grasp still succeeds; the points lie on a circle of radius 0.7.
    tolerance: float = 0.15
    # Reward of grasp 0; the others earn 1.
    best_reward: float = 1.01
    # Grasp that always misses, without being shown to the policy; null = none.
    blocked_grasp: int | None = None
    # Width and height of rendered images, in pixels.
    render_size: int = 256
    features: dict[str, PolicyFeature] = field(
        default_factory=partial(vector_features, state=2, environment_state=2, action=2)
    )
    features_map: dict[str, str] = field(default_factory=FEATURES_MAP.copy)

    def __post_init__(self) -> None:
        if self.n_grasps < 2:
            raise ValueError(f"env.n_grasps={self.n_grasps} leaves nothing to choose, give at least 2")
        # Half the way to the next point, rounded down.
        most = math.floor(1000 * RADIUS * math.sin(math.pi / self.n_grasps)) / 1000
        if not 0 < self.tolerance <= most:
            raise ValueError(
                f"env.tolerance={self.tolerance} must be above 0 and at most {most}: "
                f"beyond that env.n_grasps={self.n_grasps} grasps overlap"
            )
        if not (math.isfinite(self.best_reward) and self.best_reward > 0):
            raise ValueError(f"env.best_reward={self.best_reward} must be a number above 0")
        if self.blocked_grasp is not None and not 0 <= self.blocked_grasp < self.n_grasps:
            raise ValueError(
                f"env.blocked_grasp={self.blocked_grasp} is no grasp, choose 0 to {self.n_grasps - 1} or null"
            )
        if self.render_size < 16:
            raise ValueError(f"env.render_size={self.render_size} must be at least 16 pixels")

    @property
    def gym_kwargs(self) -> dict:
        return {
            "n_grasps": self.n_grasps,
            "tolerance": self.tolerance,
            "best_reward": self.best_reward,
            "blocked_grasp": self.blocked_grasp,
            "render_size": self.render_size,
            "task": self.task or "",
        }

    def blocked(self) -> dict[str, "GraspsEnvConfig"]:
        """The same task with one grasp closed, for each grasp; this is not shown to the policy."""
        return {f"grasp {i}": replace(self, blocked_grasp=i) for i in range(self.n_grasps)}

    def create_envs(self, n_envs: int, use_async_envs: bool = False):
        """`use_async_envs` changes nothing: all copies are arrays in this process."""
        return {self.type: {0: GraspsVectorEnv(n_envs, **self.gym_kwargs)}}
