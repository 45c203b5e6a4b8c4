"""Samples as rows of numbers: what every metric on chunks or features checks first. Shapes: N samples, F features."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

Points = np.ndarray | Tensor


class Measured(NamedTuple):
    """A metric and the number of samples it was computed from, for each side where there are two."""

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
    if not points.isfinite().all():
        bad = int((~points.isfinite()).any(1).sum())
        raise ValueError(f"{name} holds NaN or infinity in {bad} of {len(points)} rows: drop those rows")
    return points


def subsample(points: Tensor, max_samples: int, seed: int) -> Tensor:
    """At most `max_samples` rows without replacement, the same for the same seed."""
    if max_samples < 2:
        raise ValueError(f"max_samples={max_samples} leaves no pair: choose at least 2")
    if len(points) <= max_samples:
        return points
    return points[torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))[:max_samples]]


def one_sample(name: str, values: Points, max_samples: int, seed: int, at_least: int = 2) -> Tensor:
    """Checked rows, at most `max_samples` of them."""
    return as_points(name, subsample(as_points(name, values, at_least), max_samples, seed), at_least)


def two_samples(
    tuned: Points, base: Points, max_samples: int, seed: int, at_least: int = 2
) -> tuple[Tensor, Tensor]:
    """Checked rows of both, cut to the same number, at most `max_samples`.

    Raises:
        ValueError: see `as_points`; different numbers of features.
    """
    a, b = as_points("tuned", tuned, at_least), as_points("base", base, at_least)
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"tuned has {a.shape[1]} features and base has {b.shape[1]}: give both the same features"
        )
    n = min(len(a), len(b), max_samples)
    return subsample(a, n, seed), subsample(b, n, seed + 1)


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances (N_a, N_b), without the shortcut through inner products that blurs near duplicates."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def between(points: Tensor) -> Tensor:
    """Distances of all N (N - 1) / 2 pairs."""
    return torch.nn.functional.pdist(points)


def median_distance(name: str, points: Tensor) -> float:
    """Median distance between two samples, the usual width of an RBF kernel (Gretton et al. 2012, JMLR 13, sec. 8).

    Raises:
        ValueError: half of all pairs are identical, so the width would be 0.
    """
    median = float(between(points).median())
    if median == 0:
        raise ValueError(f"{name} is constant in most rows (median distance 0): give `bandwidth` yourself")
    return median
