"""Config of `rlft_commanded`. LeRobot imports it at start-up, so it imports nothing heavy."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import draccus
from lerobot.configs import PreTrainedConfig


@PreTrainedConfig.register_subclass("rlft_commanded")
@dataclass
class RLFTCommandedConfig(PreTrainedConfig):
    """A policy that is told, for each episode, in which mode to act.

    Raises:
        ValueError: the mode is none of those it knows.
    """

    # The config of the policy inside, as in its config.json: a config within a config would let the parser of
    # every command go round in circles.
    inner: dict[str, Any] = field(default_factory=dict)
    # Probability of each mode; empty = nothing is commanded.
    shares: list[float] = field(default_factory=list)
    # Act in this mode always; null = one is drawn by `shares` for each episode.
    mode: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        known = [mode for mode, share in enumerate(self.shares) if share > 0]
        if self.mode is not None and self.mode not in known:
            raise ValueError(f"policy.mode={self.mode} is no mode of this policy, choose one of {known}")
        if self.inner:
            policy = self.policy
            self.n_obs_steps = policy.n_obs_steps
            self.input_features, self.output_features = policy.input_features, policy.output_features

    @cached_property
    def policy(self) -> PreTrainedConfig:
        """The config of the policy inside."""
        return draccus.decode(PreTrainedConfig, {**self.inner, "device": self.device})

    @property
    def n_action_steps(self) -> int:
        return self.policy.n_action_steps

    @property
    def horizon(self) -> int:
        return self.policy.horizon

    @property
    def observation_delta_indices(self) -> list | None:
        return self.policy.observation_delta_indices

    @property
    def action_delta_indices(self) -> list | None:
        return self.policy.action_delta_indices

    @property
    def reward_delta_indices(self) -> list | None:
        return self.policy.reward_delta_indices

    def get_optimizer_preset(self) -> Any:
        return self.policy.get_optimizer_preset()

    def get_scheduler_preset(self) -> Any:
        return self.policy.get_scheduler_preset()

    def validate_features(self) -> None:
        self.policy.validate_features()
