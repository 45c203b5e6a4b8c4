"""Groups of options of a training run: demonstrations, collection of experience, evaluations."""

from dataclasses import dataclass
from pathlib import Path

from .check import check_seed


@dataclass
class DatasetConfig:
    """Demonstrations, for algorithms that learn from a dataset."""

    # Id of the dataset on the Hub, or any name together with root.
    repo_id: str = ""
    # Folder of a local dataset.
    root: Path | None = None
    # Numbers of the episodes to use; null = all.
    episodes: list[int] | None = None


@dataclass
class RolloutConfig:
    """Collection of experience."""

    # Environments that run side by side.
    n_envs: int = 50
    # Whole episodes of one iteration, a multiple of n_envs.
    n_episodes: int = 100
    # Episodes of the base that are played first where the balance of modes, a regularizer or the guard needs
    # the modes and paths of the base.
    n_reference: int = 1000
    # Whether each environment runs in a process of its own, also in evaluations; for slow simulators.
    use_async_envs: bool = False
    # Reward to learn from: "env", that of the environment; "success", 1 where an episode ends with success
    # and 0 before; or "best", every increase of the best reward of the episode. The last two are for tasks
    # like Push-T whose reward says at each step how near the goal is: its sum would pay for never finishing.
    reward: str = "env"
    # Reward that is added when an episode ends with success.
    success_bonus: float = 0.0
    # Value of what an episode could still earn when its time runs out: "bootstrap", the estimate of the
    # critic, or "failure", nothing (for tasks that must succeed in time, above all with sparse rewards).
    time_limit: str = "bootstrap"

    def __post_init__(self) -> None:
        if self.reward not in ("env", "success", "best"):
            raise ValueError(f"rollout.reward={self.reward!r} is unknown, choose env, success or best")
        if self.time_limit not in ("bootstrap", "failure"):
            raise ValueError(
                f"rollout.time_limit={self.time_limit!r} is unknown, choose bootstrap or failure"
            )
        if self.success_bonus < 0:
            raise ValueError(f"rollout.success_bonus={self.success_bonus} must not be negative")
        if self.n_reference < 1:
            raise ValueError(f"rollout.n_reference={self.n_reference} must be at least 1")
        if self.n_envs < 1:
            raise ValueError(f"rollout.n_envs={self.n_envs} must be at least 1")
        if self.n_episodes < self.n_envs or self.n_episodes % self.n_envs:
            raise ValueError(
                f"rollout.n_episodes={self.n_episodes} must be a multiple of rollout.n_envs={self.n_envs}, "
                f"for example {max(1, round(self.n_episodes / self.n_envs)) * self.n_envs}"
            )


@dataclass
class EvalConfig:
    """Evaluations during training, with the sampler that is deployed and always on the same seeds."""

    # Episodes of the first and the last evaluation.
    n_episodes: int = 240
    # Episodes of each evaluation in between.
    n_episodes_during: int = 120
    # Environments that run side by side.
    batch_size: int = 120
    # First random seed of the episodes: episode i is reset with seed + i. Evaluations in between begin
    # 500,000 seeds later, so that no episode both chooses a checkpoint and reports on it.
    seed: int = 1_000_000
    # Episodes that are filmed at the first and the last evaluation; 0 = none.
    n_videos: int = 4

    def __post_init__(self) -> None:
        for name in ("n_episodes", "n_episodes_during", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"eval.{name}={getattr(self, name)} must be at least 1")
        if self.n_videos < 0:
            raise ValueError(f"eval.n_videos={self.n_videos} must not be negative")
        check_seed("eval.seed", self.seed)
