"""A metric: how many more of the policy's successes lie in the rarer half of the base's modes."""

import numpy as np

from lerobot_rlft.metrics.registry import metric


@metric(
    "rare_half",
    "share of successes in the base's rarer modes, tuned minus base",
    reads="mode_counts",
    row="rare half",
)
def rare_half(counts, base_counts):
    rare = np.argsort(base_counts)[: len(base_counts) // 2]
    return float(counts[rare].sum() / counts.sum() - base_counts[rare].sum() / base_counts.sum())
