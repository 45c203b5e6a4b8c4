"""Recorded episodes: which to read, and the names of their columns."""

from dataclasses import dataclass
from pathlib import Path


@dataclass
class EpisodeData:
    """Recorded episodes: rollouts of the policy, also with human corrections (an `intervention` column, as
    LeRobot's DAgger strategy writes it)."""

    # Id of the dataset on the Hub, or any name together with root.
    repo_id: str = ""
    # Folder of a local dataset.
    root: Path | None = None
    # Numbers of the episodes to use; null = all.
    episodes: list[int] | None = None
    # Numbers of the episodes that succeeded; null = what next.success says, or else next.reward.
    successes: list[int] | None = None
    # Reward that means success once it is reached, where only next.reward tells; null = any above 0.
    success_reward: float | None = None

    def __post_init__(self) -> None:
        if not self.repo_id:
            raise ValueError(
                "algorithm.data: repo_id is missing: give {repo_id: HUB_ID}, or with a root: FOLDER"
            )


MODE = "mode"


INTERVENTION = "intervention"
