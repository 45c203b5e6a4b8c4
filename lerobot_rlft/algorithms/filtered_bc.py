"""Filtered behaviour cloning: the policy's own loss on demonstrations and on episodes that succeeded."""

from dataclasses import dataclass

import numpy as np

from ..critics.labels import label_frames
from .base import AlgorithmConfig
from .refit import RefitConfig, Scores


@AlgorithmConfig.register_subclass("filtered_bc")
@dataclass
class FilteredBCConfig(RefitConfig):
    """Refit on demonstrations, corrections and successes alone; no value is needed."""

    @property
    def needs_value(self) -> bool:
        return False

    def labels(self, scores: Scores) -> np.ndarray:
        return label_frames("episode_success", positive_fraction=0.5, **vars(scores))

    def weights(self, scores: Scores) -> np.ndarray:
        return (scores.forced | (scores.success > 0)).astype(float)
