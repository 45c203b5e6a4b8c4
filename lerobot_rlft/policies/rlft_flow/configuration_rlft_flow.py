"""Options of `rlft_flow`, a small flow-matching policy on state vectors."""

from dataclasses import dataclass, field

from lerobot.configs import NormalizationMode, PreTrainedConfig
from lerobot.optim import AdamConfig, DiffuserSchedulerConfig
from lerobot.utils.constants import OBS_ENV_STATE, OBS_STATE


@PreTrainedConfig.register_subclass("rlft_flow")
@dataclass
class RLFTFlowConfig(PreTrainedConfig):
    """The U-Net of LeRobot's `diffusion` policy with a velocity target and an Euler sampler.

    Reads observation.state, observation.environment_state, or both. LeRobot's own flow policies need images
    and language.

    Raises:
        ValueError: a field is out of its range.
    """

    # Observations that are read, the current one and those before it.
    n_obs_steps: int = 1
    # Actions that are predicted, from that of the oldest observation on; a multiple of 2 for each entry of
    # down_dims.
    horizon: int = 8
    # Actions that are executed, from the current observation on.
    n_action_steps: int = 8
    # Euler steps of the sampler.
    num_inference_steps: int = 10
    # Last frames of an episode at which no training window starts.
    drop_n_last_frames: int = 0
    # Normalisation of states and actions, by kind of feature.
    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: {
            "STATE": NormalizationMode.MIN_MAX,
            "ENV": NormalizationMode.MIN_MAX,
            "ACTION": NormalizationMode.MIN_MAX,
        }
    )

    # Channels of the U-Net at each resolution.
    down_dims: tuple[int, ...] = (64,)
    # Kernel size of the convolutions of the U-Net.
    kernel_size: int = 3
    # Groups of the group normalisation of the U-Net.
    n_groups: int = 8
    # Size of the embedding of the flow time.
    diffusion_step_embed_dim: int = 32
    # Whether conditions also scale the features of the U-Net, beside shifting them.
    use_film_scale_modulation: bool = True

    # Learning rate for cloning.
    optimizer_lr: float = 2e-3
    # Betas of Adam for cloning.
    optimizer_betas: tuple[float, float] = (0.95, 0.999)
    # Epsilon of Adam for cloning.
    optimizer_eps: float = 1e-8
    # Weight decay of Adam for cloning.
    optimizer_weight_decay: float = 1e-6
    # Learning-rate schedule for cloning, as diffusers calls it.
    scheduler_name: str = "cosine"
    # Warm-up steps of the learning-rate schedule.
    scheduler_warmup_steps: int = 500

    gradient_checkpointing = False  # the U-Net asks; it is too small to gain from it

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_inference_steps < 1:
            raise ValueError(f"num_inference_steps={self.num_inference_steps} must be at least 1")
        if self.horizon % 2 ** len(self.down_dims):
            raise ValueError(
                f"horizon={self.horizon} must be a multiple of {2 ** len(self.down_dims)}, 2 for each of "
                f"down_dims={list(self.down_dims)}"
            )

    def get_optimizer_preset(self) -> AdamConfig:
        return AdamConfig(
            lr=self.optimizer_lr,
            betas=self.optimizer_betas,
            eps=self.optimizer_eps,
            weight_decay=self.optimizer_weight_decay,
        )

    def get_scheduler_preset(self) -> DiffuserSchedulerConfig:
        return DiffuserSchedulerConfig(name=self.scheduler_name, num_warmup_steps=self.scheduler_warmup_steps)

    @property
    def observation_keys(self) -> list[str]:
        """The vectors that are read, in the order in which they enter the network."""
        return [key for key in (OBS_STATE, OBS_ENV_STATE) if key in self.input_features]

    @property
    def condition_dim(self) -> int:
        """C, what the network reads of all observation steps."""
        return self.n_obs_steps * sum(self.input_features[key].shape[0] for key in self.observation_keys)

    def validate_features(self) -> None:
        """Raise a ValueError unless there is a vector and nothing else."""
        others = [key for key in self.input_features if key not in self.observation_keys]
        if others or not self.observation_keys:
            raise ValueError(
                f"rlft_flow reads {OBS_STATE} and {OBS_ENV_STATE}, the inputs are {list(self.input_features)}"
            )

    @property
    def observation_delta_indices(self) -> list[int]:
        return list(range(1 - self.n_obs_steps, 1))

    @property
    def action_delta_indices(self) -> list[int]:
        return list(range(1 - self.n_obs_steps, 1 - self.n_obs_steps + self.horizon))

    @property
    def reward_delta_indices(self) -> None:
        return None
