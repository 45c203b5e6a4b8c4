"""`--env.type=avoiding` for every LeRobot command."""

from dataclasses import dataclass, field, replace
from functools import partial

from lerobot.configs import PolicyFeature
from lerobot.envs.configs import EnvConfig

from ..array_config import FEATURES_MAP, vector_features
from .avoiding import GAPS, REWARDS, TASK, AvoidingVectorEnv


@EnvConfig.register_subclass("avoiding")
@dataclass
class AvoidingEnvConfig(EnvConfig):
    """Avoiding-Lite, 24 ways past six pillars (`envs/avoiding.py` describes the task).

    Raises:
        ValueError: a field is out of its range.
    """

    # Instruction that policies which read language are given.
    task: str | None = TASK
    # Control steps in a second.
    fps: int = 28  # 35 ms control period
    # Reward: "binary" pays success, "graded" pays some modes slightly more, "dppo_m5" is that of the DPPO
    # paper, "blocked" walls one gap off.
    reward: str = "binary"
    # Extra pay of the best mode under reward=graded: it earns 1 + graded_bonus, the worst earns 1.
    graded_bonus: float = 0.05
    # Gap that is walled off under reward=blocked, counted from the left: 0-1 are in the first, 2-4 in the
    # second, 5-8 in the third row of pillars.
    blocked_gap: int = 0
    # Whether observation.environment_state shows the wall under reward=blocked.
    show_block: bool = False
    # Share of the tracking error of the controller that is left after one step.
    lag: float = 0.25
    # Longest episode, in steps.
    episode_length: int = 150
    # Width and height of rendered images, in pixels.
    render_size: int = 256
    features: dict[str, PolicyFeature] = field(
        default_factory=partial(vector_features, state=4, environment_state=9, action=2)
    )
    features_map: dict[str, str] = field(default_factory=FEATURES_MAP.copy)

    def __post_init__(self) -> None:
        if self.reward not in REWARDS:
            raise ValueError(f"env.reward={self.reward!r} is unknown, choose one of {', '.join(REWARDS)}")
        if not 0 <= self.blocked_gap < len(GAPS):
            raise ValueError(f"env.blocked_gap={self.blocked_gap} is no gap, choose 0 to {len(GAPS) - 1}")
        if not 0 <= self.lag <= 0.5:
            raise ValueError(f"env.lag={self.lag} is out of range, choose 0 to 0.5")
        if self.episode_length < 1:
            raise ValueError(f"env.episode_length={self.episode_length} must be at least 1 step")
        if self.graded_bonus < 0:
            raise ValueError(f"env.graded_bonus={self.graded_bonus} must not be negative")
        if self.render_size < 16:
            raise ValueError(f"env.render_size={self.render_size} must be at least 16 pixels")

    @property
    def gym_kwargs(self) -> dict:
        return {
            "reward": self.reward,
            "graded_bonus": self.graded_bonus,
            "blocked_gap": self.blocked_gap,
            "show_block": self.show_block,
            "lag": self.lag,
            "max_episode_steps": self.episode_length,
            "render_size": self.render_size,
            "task": self.task or "",
        }

    def blocked(self) -> dict[str, "AvoidingEnvConfig"]:
        """The same task with one gap walled off, for each gap; the wall is not shown to the policy."""
        return {f"gap {i}": replace(self, reward="blocked", blocked_gap=i) for i in range(len(GAPS))}

    def create_envs(self, n_envs: int, use_async_envs: bool = False):
        """`use_async_envs` changes nothing: all copies are arrays in this process."""
        return {self.type: {0: AvoidingVectorEnv(n_envs, **self.gym_kwargs)}}
