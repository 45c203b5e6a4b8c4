"""Arrays and tensors of several environments, and of several rounds of episodes, put together and apart."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..chains.chain import Chain
from ..utils.errors import EnvironmentFailure
from .episodes import Episodes, Rollout


def finite(obs: dict[str, Tensor], whose: Callable[[int], str] = lambda i: "") -> dict[str, Tensor]:
    """Raise an EnvironmentFailure unless all observations are finite.

    Args:
        whose: the task that row i belongs to, in words.
    """
    for key, value in obs.items():
        if not torch.isfinite(value).all():
            bad = int((~torch.isfinite(value.flatten(1))).any(1).nonzero()[0])
            raise EnvironmentFailure(
                f"the environment returned NaN or inf in {key}{whose(bad)}: fix the observation"
            )
    return obs


def final_observation(raw: dict[str, Any], info: dict[str, Any], i: int) -> dict[str, Any]:
    """Last raw observation of episode i: under SAME_STEP autoreset `raw` already belongs to the next one."""
    if "final_obs" in info and info["final_obs"][i] is not None:
        return info["final_obs"][i]
    return {key: row(value, i) for key, value in raw.items()}


def map_arrays(value: Any, f: Callable[[Any], Any]) -> Any:
    """Apply f to the arrays of a (nested) observation."""
    return {k: map_arrays(v, f) for k, v in value.items()} if isinstance(value, dict) else f(value)


def alone(obs: dict[str, Any]) -> dict[str, Any]:
    """The observation of one environment as a batch of one."""
    return {key: map_arrays(value, lambda array: np.asarray(array)[None]) for key, value in obs.items()}


def row(value: Any, i: int) -> Any:
    return map_arrays(value, lambda array: array[i])


def cat_tensors(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(parts)) if parts else torch.zeros(0)


def cat(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]} if parts else {}


def side_by_side(rounds: list[Rollout]) -> Rollout:
    """Put rounds side by side along the episode axis."""
    longest = max(len(r.reward) for r in rounds)

    def grid(x: Tensor) -> Tensor:
        return torch.cat([x, x.new_zeros(longest - len(x), x.shape[1])])

    offsets = np.cumsum([0] + [r.valid.shape[1] for r in rounds])
    return Rollout(
        obs=cat([r.obs for r in rounds]),
        chain=Chain.cat([r.chain for r in rounds]),
        t=cat_tensors([r.t for r in rounds]),
        episode=cat_tensors([r.episode + int(o) for r, o in zip(rounds, offsets, strict=False)]),
        reward=torch.cat([grid(r.reward) for r in rounds], 1),
        valid=torch.cat([grid(r.valid) for r in rounds], 1),
        terminated=cat_tensors([r.terminated for r in rounds]),
        final_obs=cat([r.final_obs for r in rounds]),
        episodes=Episodes.concatenate([r.episodes for r in rounds]),
    )
