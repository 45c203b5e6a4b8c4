"""Gradient steps that never write a NaN into weights."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

BY_DEVICE = ("fused", "foreach", "capturable")  # settings of torch's that a resume elsewhere changes


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


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Put an optimizer into a saved state, which torch takes as it is and fails at in the first step.

    Raises:
        ValueError: a setting is of another kind than its own, or what it keeps of a weight is not a number or
            tensor for that weight; see `Optimizer.load_state_dict` for the others.
    """
    own = optimizer.state_dict()["param_groups"]
    for group, own_group in zip(state["param_groups"], own, strict=True):
        for name, value in own_group.items():
            # Earlier versions of torch had fewer switches.
            missing = name not in group and not isinstance(value, bool)
            if missing or (name not in BY_DEVICE and _kind(group.get(name, value)) != _kind(value)):
                raise ValueError(f"{name} of the optimizer is {group.get(name)!r:.40}")
    optimizer.load_state_dict(state)
    names = None
    for weight, entry in optimizer.state.items():
        names = names or entry.keys()
        fits = all(isinstance(v, Tensor) and v.shape in ((), weight.shape) for v in entry.values())
        if entry.keys() != names or not fits:
            raise ValueError(f"the optimizer has no whole {', '.join(names)} of every weight")


def _kind(value: Any) -> Any:
    """What a setting has in common with its own; an int may stand for a float."""
    if isinstance(value, list | tuple):
        return [_kind(item) for item in value]
    return float if type(value) is int else type(value)


class Means:
    """Means of the metrics of minibatches."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {}

    def add(self, **metrics: Tensor | float) -> None:
        for name, value in metrics.items():
            self.values.setdefault(name, []).append(value.item() if isinstance(value, Tensor) else value)

    def result(self) -> dict[str, float]:
        return {name: sum(values) / len(values) for name, values in self.values.items()}
