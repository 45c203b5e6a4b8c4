"""Paths of episodes as rows of numbers: points at equal arc lengths or times, in units of their ranges.

Shapes: E episodes, L steps, S observation dims, P points.
"""

from collections.abc import Sequence

import numpy as np

from ..utils.errors import UserError

POINTS = 32


def path_features(groups: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Resampled paths of several groups of episodes in common units, one row (F,) for each episode.

    Args:
        groups: each (E_i, L_i+1, S), NaN after an episode's end; together at least one episode.

    Returns:
        (E_i, P * S) float64; each dim in units of its range over all groups.

    Raises:
        UserError: NaN within an episode.
    """
    scale = ranges(np.concatenate([group.reshape(1, -1, group.shape[-1]) for group in groups], axis=1))
    return [resample(group / np.where(scale > 0, scale, 1)).reshape(len(group), -1) for group in groups]


def resample(states: np.ndarray, points: int = POINTS, equal_times: bool = False) -> np.ndarray:
    """Each path at `points` points of equal arc length, or time, (E, L+1, dims) -> (E, points, dims) float64.

    A path that never moves stays where it is.

    Raises:
        UserError: NaN within an episode, or infinity.
    """
    valid = ~np.isnan(states).all(-1)  # (E, L+1)
    length = valid.sum(1)
    within = np.arange(states.shape[1]) < length[:, None]
    gaps = (~np.isfinite(states) & within[..., None]).any((1, 2)) | (valid != within).any(1) | (length == 0)
    if gaps.any():
        raise UserError(
            f"the paths of episodes {np.flatnonzero(gaps)[:5].tolist()} hold NaN or infinity before their "
            "end: fix the environment's observations"
        )
    out = np.empty((len(states), points, states.shape[2]))
    for i, steps in enumerate(length):
        path = states[i, :steps].astype(np.float64)
        step = np.ones(steps - 1) if equal_times else np.linalg.norm(np.diff(path, axis=0), axis=1)
        arc = np.concatenate([[0], step.cumsum()])
        at = np.linspace(0, arc[-1], points)
        for dim in range(path.shape[1]):
            out[i, :, dim] = np.interp(at, arc, path[:, dim])
    return out


def ranges(states: np.ndarray) -> np.ndarray:
    """(S,) range of each dim over all steps of (E, L+1, S); 0 where a dim is never a number."""
    steps = states.reshape(-1, states.shape[-1]).astype(np.float64)
    finite = np.isfinite(steps)
    low, high = np.where(finite, steps, np.inf).min(0), np.where(finite, steps, -np.inf).max(0)
    return np.where(high > low, high - low, 0.0)
