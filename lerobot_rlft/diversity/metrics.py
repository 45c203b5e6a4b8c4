"""How many ways of solving a task a set of episodes shows: pure functions on counts. Shapes: M modes, E episodes."""

import math

import numpy as np


def mode_counts(mode: np.ndarray, success: np.ndarray, num_modes: int) -> np.ndarray:
    """Successful episodes in each mode, (M,).

    Args:
        mode: (E,) int, -1 where an episode had none.
        success: (E,) bool.
        num_modes: M.
    """
    return np.bincount(mode[success & (mode >= 0)], minlength=num_modes)


def entropy(counts: np.ndarray) -> float:
    """Entropy of the mode distribution in units of log M (so 1 is uniform), with the Miller-Madow correction.

    `H = -sum p log p + (m - 1) / (2 n)`, m modes seen in n episodes (Miller 1955), cut to 1; 0 without episodes.
    """
    n = counts.sum()
    if n == 0 or len(counts) < 2:
        return 0.0
    p = counts[counts > 0] / n
    nats = -(p * np.log(p)).sum() + (len(p) - 1) / (2 * n)
    return min(1.0, float(nats) / math.log(len(counts)))


def wilson_interval(successes: int, episodes: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval of a rate (JASA 22, 1927); 95 % for z = 1.96. (0, 1) without episodes."""
    if episodes == 0:
        return 0.0, 1.0
    p, n = successes / episodes, episodes
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)
