"""How far tuned successes lie from base successes: pure functions on two samples of chunks or features.

Shapes: N samples, F features. Both sides are cut to the same N, at most `max_samples`, drawn with `seed`. Distances are
Euclidean in the units of the input. Rows should be independent, so take one feature vector for each episode.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .metrics import wilson_interval
from .points import Measured, Points, between, distances, median_distance, two_samples
from .spread import rbf_kernel


class Neighbours(NamedTuple):
    """Coverage and recall of the tuned policy; `control_*` are what the base's other half reaches at the same N."""

    coverage: float
    recall: float
    control_coverage: float
    control_recall: float
    samples: int


class Classified(NamedTuple):
    """Cross-validated accuracy with its 95 % Wilson interval; N samples on each side."""

    accuracy: float
    low: float
    high: float
    samples: int


def nearest_neighbours(
    tuned: Points, base: Points, k: int = 5, max_samples: int = 1000, seed: int = 0
) -> Neighbours:
    """Share of base successes that the tuned policy still has something near to.

    Coverage (Naeem et al. 2020, arXiv:2002.09797, equation 6): a tuned sample lies within the base sample's distance to
    its k-th neighbour. Recall (Kynkaanniemi et al. 2019, arXiv:1904.06991, equation 2): the base sample lies within
    some tuned sample's distance to its own k-th neighbour. Recall is retention. One half of the base is the
    reference, the other the control: read both numbers as fractions of their controls.

    Args:
        tuned: (N, ...) successes.
        base: (2 N, ...) successes of the base.
        k: neighbours.
        max_samples: of N.
        seed: of the draws.

    Raises:
        ValueError: k outside 1 ... N - 1, too few rows, NaN, different features.
    """
    a, b = two_samples(tuned, base, max(len(tuned), len(base)), seed)
    if len(base) < 4:
        raise ValueError(f"base has {len(base)} rows: give at least 4, half of them are the control")
    order = torch.randperm(len(base), generator=torch.Generator().manual_seed(seed))
    a, b = as_points_pair(tuned, base)
    raise NotImplementedError
