"""Exponential moving average of weights, for evaluation and export."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """`average <- decay average + (1 - decay) weights` after each optimizer step.

    Args:
        parameters: averaged in this order.
        decay: None keeps no average.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], decay: float | None) -> None:
        self.parameters, self.decay = list(parameters), decay
        self.average = [p.detach().clone() for p in self.parameters] if decay else None

    @torch.no_grad()
    def update(self) -> None:
        if self.average is not None:
            # Its second list may be anything that is no module; the third is not read.
            get_ema_multi_avg_fn(self.decay)(self.average, self.parameters, None)

    @contextmanager
    def deployed(self) -> Iterator[None]:
        """While open, the parameters hold the average."""
        if self.average is None:
            yield
            return
        trained = [p.detach().clone() for p in self.parameters]
        try:
            assign(self.parameters, self.average)
            yield
        finally:
            assign(self.parameters, trained)

    def state_dict(self) -> dict[int, Tensor] | None:
        return None if self.average is None else dict(enumerate(self.average))

    def load_state_dict(self, state: dict[int, Tensor] | None) -> None:
        """Continue; an average that was switched on by a resume starts at the weights."""
        if self.average is None:
            return
        values: list[Any] = self.parameters if state is None else [state[i] for i in range(len(self.average))]
        assign(self.average, values)


@torch.no_grad()
def assign(targets: list[Any], values: list[Any]) -> None:
    for target, value in zip(targets, values, strict=True):
        target.copy_(value)
