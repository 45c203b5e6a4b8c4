"""Samples as rows of numbers, where metrics on chunks or features start. Shapes: N samples, F features."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

Points = np.ndarray | Tensor


class Measured(NamedTuple):
    """A metric and the number of samples it was computed from (on each side where there are two)."""

    value: float
    samples: int


def as_points(name: str, values: Points, at_least: int = 2) -> Tensor:
    """Samples (N, ...) as float64 rows (N, F) on the CPU; chunks (N, H, D) become F = H * D.

    Raises:
        ValueError: fewer than `at_least` rows, no features, NaN or infinity.
    """
    points = torch.as_tensor(values).detach().double().cpu()
    if points.ndim == 0 or len(points) < at_least or points.numel() == 0:
        raise ValueError(
            f"{name} has shape {tuple(points.shape)}: give at least {at_least} rows, one for each sample"
        )
    points = points.reshape(len(points), -1)
    finite = points.isfinite().all(1)
    if not finite.all():
        raise ValueError(
            f"{name} holds NaN or infinity in {int((~finite).sum())} of {len(points)} rows: drop them"
        )
    return points


def shuffled(points: Tensor, seed: int) -> Tensor:
    """The rows in a random order, the same for the same seed, without touching the global random state."""
    return points[torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))]


def one_sample(name: str, values: Points, max_samples: int, seed: int, at_least: int = 2) -> Tensor:
    """Checked rows, at most `max_samples` of them, drawn without replacement.

    Raises:
        ValueError: see `as_points`; `max_samples` below `at_least`.
    """
    if max_samples < at_least:
        raise ValueError(f"max_samples={max_samples} is too few: choose at least {at_least}")
    points = as_points(name, values, at_least)
    return points if len(points) <= max_samples else shuffled(points, seed)[:max_samples]


def two_samples(
    tuned: Points, base: Points, max_samples: int, seed: int, at_least: int = 2
) -> tuple[Tensor, Tensor]:
    """Checked rows of both, the same number of each, at most `max_samples`.

    Raises:
        ValueError: see `one_sample`; different numbers of features.
    """
    n = max(at_least, min(len(tuned), len(base), max_samples))
    a = one_sample("tuned", tuned, min(n, max_samples), seed, at_least)
    b = one_sample("base", base, min(n, max_samples), seed + 1, at_least)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"tuned has {a.shape[1]} features and base {b.shape[1]}: give the same to both")
    return a, b


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances (N_a, N_b), without the shortcut by inner products that blurs near duplicates."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def pair_distances(points: Tensor) -> Tensor:
    """Distances of the N (N - 1) / 2 pairs."""
    return torch.nn.functional.pdist(points)


def rbf_kernel(a: Tensor, b: Tensor, bandwidth: float) -> Tensor:
    """exp(-d^2 / (2 bandwidth^2)), (N_a, N_b)."""
    return torch.exp(-(distances(a, b) ** 2) / (2 * bandwidth**2))


def bandwidth_of(points: Tensor, bandwidth: float | None) -> float:
    """`bandwidth`, or for None the median distance of all pairs (Gretton et al. 2012, JMLR 13, section 8).

    Raises:
        ValueError: not positive; half of the pairs are identical, so that the median is 0.
    """
    width = float(pair_distances(points).median()) if bandwidth is None else bandwidth
    if bandwidth is None and width == 0:
        raise ValueError(
            "the median distance is 0, most rows are identical: give `bandwidth`, for example the base's"
        )
    if not width > 0:
        raise ValueError(f"bandwidth={bandwidth} must be positive")
    return width


def join_paths(parts: list[np.ndarray]) -> np.ndarray:
    """Paths (E_i, L_i+1, S) in one array (E, L+1, S), those of shorter rounds filled up with NaN."""
    longest = max(part.shape[1] for part in parts)
    return np.concatenate(
        [
            np.pad(part, [(0, 0), (0, longest - part.shape[1]), (0, 0)], constant_values=np.nan)
            for part in parts
        ]
    )
