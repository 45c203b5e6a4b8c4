"""Ways from one start, counted without naming them: how often two episodes from a start go nearly alike.

Two paths from one start are close if they are nearer than most of the base's own are. Where n ways are taken
alike often, two of the base's paths are close in about 1/n of all pairs; where fewer are left, more often.
The ways ratio is the share of close pairs of the base divided by that of the tuned policy: 1 keeps the ways,
1/n has kept one of n. It needs neither modes nor a map of the task, and compares only within a start, so that
it does not matter how starts vary. The mean distance of pairs does not tell: it stays while ways are lost.

Shapes: S starts, R_s episodes from start s, F features of a path.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from .points import pair_distances

# Of the base's pairs, the share that is called close. Smaller ones tell apart ways that lie nearer, and are
# noisier: where the base has 24 modes, .03 to .08 read true losses right, and .25 reads .25 for .08
# (docs/results/atlas.md).
CLOSE = 0.08
LEAST_STARTS, LEAST_PAIRS = 8, 400
RESAMPLES = 2000


class WaysRatio(NamedTuple):
    """The ratio with its 95 % interval over starts, that of two halves of the base with its 99 % interval,
    and the number of starts.
    """

    ratio: float
    low: float
    high: float
    control: float
    control_low: float
    control_high: float
    starts: int


def ways_ratio(
    tuned: Sequence[np.ndarray], base: Sequence[np.ndarray], close: float = CLOSE, seed: int = 0
) -> WaysRatio:
    """Share of close pairs, base / tuned.

    Args:
        tuned, base: of each of S starts, the same ones in the same order, paths (R_s, F) from it.
        close: share of the base's pairs that is called close.
        seed: of the halves and of the bootstrap over starts.

    Raises:
        ValueError: too few starts with at least 4 paths of both, or too few pairs; the base always goes the
            same way; or its own halves differ.
    """
    rows = [(t, b) for t, b in zip(tuned, base, strict=True) if min(len(t), len(b)) >= 4]
    if len(rows) < LEAST_STARTS:
        raise ValueError(
            f"{len(rows)} initial states have 4 successes of both policies, the ways ratio needs "
            f"{LEAST_STARTS}: play more (--n_episodes, --n_initial_states)"
        )
    pairs = min(sum(len(side) * (len(side) - 1) // 2 for side in sides) for sides in zip(*rows, strict=True))
    if pairs < LEAST_PAIRS:
        raise ValueError(
            f"{pairs} pairs of successes from the same start, the ways ratio needs {LEAST_PAIRS}: play more "
            "(--n_episodes)"
        )
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(len(b)) for _, b in rows]
    halves = [(b[order[::2]], b[order[1::2]]) for (_, b), order in zip(rows, orders, strict=True)]
    ratio, low, high = _ratio([t for t, _ in rows], [b for _, b in rows], close, 0.95, rng)
    control, control_low, control_high = _ratio(
        [b for _, b in halves], [a for a, _ in halves], close, 0.99, rng
    )
    if not control_low <= 1 <= control_high:
        raise ValueError(
            f"two halves of the base's own episodes have a ways ratio of {control:.2f} "
            f"[{control_low:.2f}, {control_high:.2f}] instead of 1: play more episodes (--n_episodes)"
        )
    return WaysRatio(ratio, low, high, control, control_low, control_high, len(rows))


def _ratio(
    tuned: list[np.ndarray], base: list[np.ndarray], close: float, level: float, rng: np.random.Generator
) -> tuple[float, float, float]:
    """Share of close pairs, base / tuned, with its interval at this level."""
    apart = [[pair_distances(torch.as_tensor(s).double()).numpy() for s in side] for side in (tuned, base)]
    cut = float(np.quantile(np.concatenate(apart[1]), close))
    if cut == 0:
        raise ValueError(
            f"{100 * close:.0f} % of the base's paths from one start are the same: a sampler without noise "
            "goes one way from each start, give it noise (--base.noise_scheduler_type=DDPM for diffusion)"
        )
    shares = np.array([[(d <= cut).mean() for d in side] for side in apart])  # (2, S)
    least = 0.5 / sum(map(len, apart[0]))  # of no close pair at all
    of_tuned, of_base = shares.mean(1)
    starts = shares.shape[1]
    draws = shares[:, rng.integers(0, starts, (RESAMPLES, starts))].mean(2)  # (2, RESAMPLES)
    low, high = np.quantile(draws[1] / np.maximum(draws[0], least), [(1 - level) / 2, (1 + level) / 2])
    return float(of_base / max(of_tuned, least)), float(low), float(high)
