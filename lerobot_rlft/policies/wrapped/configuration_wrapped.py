"""Config of a policy type that holds another policy. LeRobot imports it at start-up: nothing heavy here."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import draccus
from lerobot.configs import PreTrainedConfig


@dataclass
class WrappedConfig(PreTrainedConfig):
    """Sizes, features and presets are those of the policy inside.

    Its config is held as a dict: a config within a config would let the parser of every command go round in
    circles.
    """

    # Config of the policy inside, as in its config.json.
    inner: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.inner:
            policy = self.policy
            self.n_obs_steps = policy.n_obs_steps
            self.input_features, self.output_features = policy.input_features, policy.output_features

    @classmethod
    def around(cls, policy: PreTrainedConfig, **fields: Any) -> "WrappedConfig":
        """The config that wraps the config of a policy."""
        inner = draccus.encode(policy, PreTrainedConfig)
        return cls(inner=inner, device=policy.device, push_to_hub=False, **fields)

    @cached_property
    def policy(self) -> PreTrainedConfig:
        """The config of the policy inside."""
        return draccus.decode(PreTrainedConfig, {**self.inner, "device": self.device})

    @property
    def n_action_steps(self) -> int:
        return self.policy.n_action_steps

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
