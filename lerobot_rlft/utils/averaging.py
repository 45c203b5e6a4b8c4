"""An exponential moving average of weights."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """Average of tensors that change in place; whole numbers, such as counters, are copied.

    Args:
        weights: what is averaged, such as parameters and the running statistics of batch normalisation.
        decay: weight of the past in one update.
    """

    def __init__(self, weights: Iterable[Tensor], decay: float) -> None:
        self.weights = list(weights)
        self.values = [weight.detach().clone() for weight in self.weights]
        self._floats = [i for i, value in enumerate(self.values) if value.is_floating_point()]
        self._move = get_ema_multi_avg_fn(decay)

    @torch.no_grad()
    def update(self) -> None:
        """`values = decay * values + (1 - decay) * weights`."""
        self._move([self.values[i] for i in self._floats], [self.weights[i] for i in self._floats], None)
        for i in set(range(len(self.values))) - set(self._floats):
            self.values[i].copy_(self.weights[i])

    @torch.no_grad()
    def deploy(self) -> None:
        """Put the average in the place of the weights."""
        for weight, value in zip(self.weights, self.values, strict=True):
            weight.copy_(value)

    @contextmanager
    def deployed(self) -> Iterator[None]:
        """The average lies in the place of the weights while this is open."""
        weights = [weight.detach().clone() for weight in self.weights]
        try:
            self.deploy()
            yield
        finally:
            with torch.no_grad():
                for weight, value in zip(self.weights, weights, strict=True):
                    weight.copy_(value)

    def state_dict(self) -> dict[int, Tensor]:
        return dict(enumerate(self.values))

    @torch.no_grad()
    def load_state_dict(self, state: dict[int, Tensor]) -> None:
        """A weight that the state does not know begins at its own value: earlier averages had no buffers."""
        for i, (value, weight) in enumerate(zip(self.values, self.weights, strict=True)):
            value.copy_(state.get(i, weight))
