"""Config of `rlft_guided`. LeRobot imports it at start-up, so it imports nothing heavy."""

from dataclasses import dataclass

from lerobot.configs import PreTrainedConfig

from ..wrapped.configuration_wrapped import WrappedConfig


@PreTrainedConfig.register_subclass("rlft_guided")
@dataclass
class RLFTGuidedConfig(WrappedConfig):
    """A conditioned policy that acts by guidance: untold + guidance_weight * (told "positive" - untold).

    Raises:
        ValueError: the weight is negative.
    """

    # Weight of the label "positive" when acting: 0 acts as unlabelled, 1 as labelled; above 1 sharpens.
    guidance_weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.guidance_weight < 0:
            raise ValueError(f"policy.guidance_weight={self.guidance_weight} must not be negative")
