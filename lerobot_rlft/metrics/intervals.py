"""Intervals of rates."""

import math

from scipy.stats import binomtest

CONFIDENCE = math.erf(1.96 / math.sqrt(2))  # 95 %, to four digits: 1.96 standard deviations on each side


def wilson_interval(successes: int, episodes: int) -> tuple[float, float]:
    """95 % score interval of a rate (Wilson, JASA 22, 1927). (0, 1) without episodes."""
    if episodes == 0:
        return 0.0, 1.0
    low, high = binomtest(int(successes), int(episodes)).proportion_ci(CONFIDENCE, "wilson")
    return float(low), float(high)
