"""All regularizers of a run as one list: every hook, called in their order. Plain torch.

Coefficients are in units of what a success of the base earns, measured once: rewards in another unit, and
the running scale that rewards are divided by, change nothing about what a coefficient means.
"""

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from .base import Experience, Regularizer, Step, success_value

Log = Callable[..., None]  # takes metrics as keywords


class Holders(dict[str, Regularizer]):
    """The regularizers of a run by name; see `Regularizer` for the hooks and shapes.

    Attributes:
        unit: what a success of the base earns, in the environment's reward; 1 before `begin`.
    """

    def __init__(self, regularizers: dict[str, Regularizer]) -> None:
        super().__init__(regularizers)
        self.coefs = {name: regularizer.coef for name, regularizer in self.items()}
        self.strength, self.unit = 1.0, 1.0

    @property
    def adjustable(self) -> bool:
        return any(regularizer.adjustable for regularizer in self.values())

    def hold(self, strength: float) -> None:
        """Multiply the configured weights of all that can be adjusted by `strength`."""
        self.strength = strength
        for name, regularizer in self.items():
            if regularizer.adjustable:
                regularizer.coef = self.coefs[name] * strength

    def begin(self, reference: Experience, num_modes: int | None) -> None:
        for regularizer in self.values():
            regularizer.begin(reference, num_modes)
        if self:
            self.unit = success_value(reference)

    def reward(
        self, data: Experience, steps: Callable[[], Iterator[tuple[Tensor, Step]]], log: Log
    ) -> Tensor:
        """(T, E) what is earned, with what each adds to it, after each has observed the data."""
        reward = data.reward
        for name, regularizer in self.items():
            regularizer.observe(data)
            extra = regularizer.reward(data, steps)
            if extra is not None:
                unit = self.unit if regularizer.relative else 1.0
                reward = reward + unit * regularizer.coef * extra
                log(**{f"{name}_reward": (extra * data.valid).sum(0).mean()})
        return reward

    def advantage(
        self, advantage: Tensor, data: Experience, features: Tensor, reward_scale: float, log: Log
    ) -> Tensor:
        """(T, E); logs what each says of the iteration, too."""
        for regularizer in self.values():
            advantage = regularizer.advantage(advantage, data, features, reward_scale)
            log(**regularizer.log)
        return advantage

    def learn(self, features: Tensor, rows: Tensor) -> dict[str, float]:
        metrics: dict[str, float] = {}
        for regularizer in self.values():
            metrics |= regularizer.learn(features, rows)
        return metrics

    def loss(self, step: Step, loss: Tensor, reward_scale: float, log: Log) -> Tensor:
        """The loss of a minibatch with the term of each; one whose weight is 0 is not computed.

        Args:
            loss: on advantages of rewards divided by `reward_scale`.
        """
        for name, regularizer in self.items():
            term = regularizer.loss(step) if regularizer.coef else None
            if term is not None:
                log(**{f"{name}_loss": term})
                loss = loss + self.unit / reward_scale * regularizer.coef * term
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {name: regularizer.state_dict() for name, regularizer in self.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` gave.

        Raises:
            ValueError: one was not there, and keeps what it has seen.
        """
        for name, regularizer in self.items():
            try:
                regularizer.load_state_dict(state.get(name, {}))
            except KeyError as error:
                if name in state:
                    raise
                raise ValueError(
                    f"{name} needs the base's episodes, which this run has not played"
                ) from error
