"""Advantage-weighted regression (arXiv:1910.00177): frames are seen exp(A / eta) times as often."""

from dataclasses import dataclass

import numpy as np

from ..policies.conditioning import NEGATIVE, POSITIVE, UNKNOWN
from ..utils.errors import check
from .base import AlgorithmConfig
from .refit import RefitConfig, Scores


@AlgorithmConfig.register_subclass("awr")
@dataclass
class AWRConfig(RefitConfig):
    """Refit on all frames, the better ones seen more often. Demonstrations and corrections have weight 1.

    Raises:
        ValueError: a field is out of its range.
    """

    # Temperature of the weights, where returns have a range of 1: a small one keeps the best frames alone.
    eta: float = 0.1
    # Largest weight of a frame.
    max_weight: float = 20.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check("eta", self.eta, self.eta > 0, "a number > 0")
        check("max_weight", self.max_weight, self.max_weight > 0, "a number > 0")

    def labels(self, scores: Scores) -> np.ndarray:
        label = np.where(scores.advantage > 0, POSITIVE, NEGATIVE)
        label[np.isnan(scores.advantage)] = UNKNOWN
        label[scores.forced] = POSITIVE
        return label

    def weights(self, scores: Scores) -> np.ndarray:
        """min(exp(A / eta), max_weight); 0 where no outcome is known."""
        with np.errstate(over="ignore"):
            weight = np.minimum(np.exp(scores.advantage / self.eta), self.max_weight)
        weight[np.isnan(scores.advantage)] = 0.0
        weight[scores.forced] = 1.0
        return weight
