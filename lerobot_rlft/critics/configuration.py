"""Options of the value function that recorded episodes are judged by."""

from dataclasses import dataclass

from ..utils.errors import check

INPUTS = ("features", "state", "images")


@dataclass
class ValueConfig:
    """The value function that advantages are measured against.

    Raises:
        ValueError: a field is out of its range.
    """

    # Input of the value function: "features" of the frozen policy, "state", the vectors of the observation
    # alone, or "images", a copy of the vision encoder that is trained with it.
    input: str = "features"
    # Widths of the hidden layers.
    hidden_dims: tuple[int, ...] = (256, 256)
    # Gradient steps. Long fits learn episodes by heart, and their advantages vanish: see calibration.json.
    steps: int = 2000
    # Frames in a batch.
    batch_size: int = 256
    # Learning rate.
    lr: float = 3e-4
    # Share of episodes that are held out to test the calibration.
    held_out: float = 0.1

    def __post_init__(self) -> None:
        if self.input not in INPUTS:
            raise ValueError(f"algorithm.value.input={self.input!r} is unknown, choose {', '.join(INPUTS)}")
        check("value.hidden_dims", self.hidden_dims, min(self.hidden_dims, default=1) >= 1, "sizes >= 1")
        for name in ("steps", "batch_size"):
            check(f"value.{name}", getattr(self, name), getattr(self, name) >= 1, "at least 1")
        check("value.lr", self.lr, self.lr > 0, "a number > 0")
        check("value.held_out", self.held_out, 0 < self.held_out < 1, "a number in (0, 1), for example 0.1")
