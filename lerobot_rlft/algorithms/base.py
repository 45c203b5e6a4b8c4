"""What the trainer asks of an algorithm. Plain torch; the verbs are those of `lerobot.rl.RLAlgorithm`."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import draccus


@dataclass
class AlgorithmConfig(draccus.ChoiceRegistry):
    """Options of one algorithm. Subclasses register themselves under the name used as `--algorithm.type`."""

    # What one iteration consumes: "rollouts" of the environment, or a "batch" of a dataset.
    consumes: ClassVar[str]

    @property
    def papers(self) -> list[tuple[str, str]]:
        """(title, address) of what it implements, for cards."""
        return []

    @property
    def type(self) -> str:
        return self.get_choice_name(type(self))


class Algorithm(ABC):
    """Improves a policy from data."""

    @abstractmethod
    def update(self, data: Any) -> dict[str, Any]:
        """Learn from one iteration's data (what `AlgorithmConfig.consumes` names) and return metrics: numbers
        or lists of numbers."""

    # Whether `begin` wants episodes of the base.
    needs_reference: bool = False

    def begin(self, reference: Any, num_modes: int | None) -> None:
        """Take episodes of the base, once before the first iteration; `num_modes` M, None without modes."""
        return  # only called where `needs_reference`

    def hold(self, strength: float) -> None:
        """Multiply everything that holds diversity by `strength`; 1 is what the configuration says."""
        return  # an algorithm may hold nothing

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """All that a bit-equal resume needs beyond the weights: nested dicts of tensors and JSON values."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None: ...

    @contextmanager
    def deployed_weights(self) -> Iterator[None]:
        """While open, the policy holds the weights that are evaluated and exported."""
        yield
