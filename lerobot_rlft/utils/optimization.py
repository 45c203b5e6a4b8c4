"""Gradient steps that never write a NaN into weights."""

import math
from collections.abc import Callable

import torch
from torch import Tensor


def descend(
    loss: Tensor,
    optimizer: torch.optim.Optimizer,
    backward: Callable[[Tensor], None],
    max_grad_norm: float | None,
    what: str,
    advice: str,
) -> float:
    """One gradient step; returns the norm of the gradient before it was clipped.

    Raises:
        FloatingPointError: loss or gradient of `what` is NaN or inf, before weights change.
    """
    check_finite(f"a loss of {what}", loss, advice)
    optimizer.zero_grad(set_to_none=True)
    backward(loss)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm or math.inf)
    check_finite(f"a gradient of {what}", norm, advice)
    optimizer.step()
    return norm.item()


def check_finite(what: str, value: Tensor, advice: str) -> None:
    """Raise a FloatingPointError that says what to do if an element of `value` is NaN or inf."""
    bad = value[~torch.isfinite(value)]
    if len(bad):
        raise FloatingPointError(f"{what} is {bad[0].item()}: {advice}")


class Means:
    """Means of the metrics of minibatches."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {}

    def add(self, **metrics: Tensor | float) -> None:
        for name, value in metrics.items():
            self.values.setdefault(name, []).append(value.item() if isinstance(value, Tensor) else value)

    def result(self) -> dict[str, float]:
        return {name: sum(values) / len(values) for name, values in self.values.items()}
