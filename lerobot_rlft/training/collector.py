"""What one iteration learns from: episodes of the policy as it explores, or a batch of a dataset."""

from typing import Any

import numpy as np

from ..algorithms.base import Algorithm
from ..configs.train import TrainConfig
from ..datasets.loader import BatchLoader
from ..rollout.episodes import Rollout
from ..rollout.evaluation import Evaluation
from ..rollout.runner import EpisodeRunner


class Collector:
    """Draws the data of each iteration from seeds of its own, so that a resumed run sees the same.

    Args:
        algorithm: explores.
        runner: plays; None where `batches` are learned from.
    """

    def __init__(
        self,
        config: TrainConfig,
        algorithm: Algorithm,
        runner: EpisodeRunner | None,
        batches: BatchLoader | None,
    ) -> None:
        self.config, self.algorithm, self.runner, self.batches = config, algorithm, runner, batches
        self.env_steps = 0  # taken so far

    def collect(self, iteration: int, n_episodes: int | None = None) -> tuple[Any, dict[str, float]]:
        """The data of an iteration (counted from 0) and what its episodes showed."""
        if self.runner is None:
            return next(self.batches), {}
        data = self._play(n_episodes or self.config.rollout.n_episodes, (self.config.seed, iteration))
        return data, Evaluation.of(data.episodes, num_modes=None).means

    def reference(self) -> Rollout:
        """Episodes of the base, `rollout.n_reference` or a few more."""
        rollout = self.config.rollout
        count = -(-rollout.n_reference // rollout.n_envs) * rollout.n_envs
        return self._play(count, (self.config.seed, 0, 0))

    def _play(self, count: int, spawn: tuple[int, ...]) -> Rollout:
        rollout = self.config.rollout
        data = self.runner.collect(
            count,
            np.random.SeedSequence(spawn).generate_state(count),
            self.algorithm.explore,
            rollout.reward,
            rollout.success_bonus,
            rollout.time_limit,
        )
        self.env_steps += data.env_steps
        return data
