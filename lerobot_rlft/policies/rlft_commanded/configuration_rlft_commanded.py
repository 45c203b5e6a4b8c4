"""Config of `rlft_commanded`. LeRobot imports it at start-up, so it imports nothing heavy."""

from dataclasses import dataclass, field

from lerobot.configs import PreTrainedConfig

from ..wrapped.configuration_wrapped import WrappedConfig


@PreTrainedConfig.register_subclass("rlft_commanded")
@dataclass
class RLFTCommandedConfig(WrappedConfig):
    """A policy that is told, for each episode, in which mode to act.

    Raises:
        ValueError: the mode is none of those it knows.
    """

    # Probability of each mode; empty = no mode is told.
    shares: list[float] = field(default_factory=list)
    # Number of the mode in which to act always; null = one is drawn by shares for each episode.
    mode: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        choices = [mode for mode, share in enumerate(self.shares) if share > 0]
        if self.mode is not None and self.mode not in choices:
            raise ValueError(f"policy.mode={self.mode} is no mode of this policy, choose one of {choices}")
