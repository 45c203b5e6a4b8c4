"""Data of one iteration: episodes of the policy as it explores, or a batch of a dataset."""

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
        seeds = iteration_seeds(self.config.seed, iteration)
        data = self._play(n_episodes or self.config.rollout.n_episodes, seeds)
        return data, Evaluation.of(data.episodes, None, self.runner.tasks).means

    def reference(self) -> Rollout:
        """Episodes of the base, `rollout.n_reference` or a few more."""
        rollout = self.config.rollout
        count = -(-rollout.n_reference // rollout.n_envs) * rollout.n_envs
        return self._play(count, reference_seeds(self.config.seed))

    def _play(self, count: int, seeds: np.random.SeedSequence) -> Rollout:
        rollout = self.config.rollout
        data = self.runner.collect(
            count,
            seeds.generate_state(count),
            self.algorithm.explore,
            rollout.reward,
            rollout.success_bonus,
            rollout.time_limit,
        )
        self.env_steps += data.env_steps
        return data


def iteration_seeds(seed: int, iteration: int) -> np.random.SeedSequence:
    """Seeds of the resets of an iteration, counted from 0."""
    return np.random.SeedSequence((seed, iteration))


def reference_seeds(seed: int) -> np.random.SeedSequence:
    """Seeds of the resets of reference episodes; no iteration has them."""
    # Not (seed, 0, 0): NumPy fills entropy up with zeros, so that this is iteration 0.
    return np.random.SeedSequence(seed, spawn_key=(0,))
