from dataclasses import dataclass, field

from lerobot.configs import NormalizationMode, PreTrainedConfig
from lerobot.optim import AdamConfig


@PreTrainedConfig.register_subclass("mlp_flow")
@dataclass
class MLPFlowConfig(PreTrainedConfig):
    n_obs_steps: int = 1
    chunk_size: int = 4
    n_action_steps: int = 3
    num_steps: int = 4
    width: int = 32
    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: {"STATE": NormalizationMode.MEAN_STD, "ACTION": NormalizationMode.MIN_MAX}
    )

    def get_optimizer_preset(self) -> AdamConfig:
        return AdamConfig(lr=1e-3)

    def get_scheduler_preset(self) -> None:
        return None

    def validate_features(self) -> None:
        pass

    observation_delta_indices = None
    reward_delta_indices = None

    @property
    def action_delta_indices(self) -> list[int]:
        return list(range(self.chunk_size))
