"""Success of a policy, with its interval, and the modes it uses."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from ..chains.chain import Chain
from ..diversity.atlas import ModeAtlas
from ..metrics.intervals import wilson_interval
from ..metrics.modes import entropy, mode_counts
from .contract import check_modes, number_of_modes
from .episodes import Episodes
from .runner import EpisodeRunner


@dataclass
class Evaluation:
    """Outcomes of E episodes, as they are reported.

    Attributes:
        n_episodes: E.
        success, success_ci: rate and its 95 % Wilson interval.
        total_reward, max_reward: means over episodes of the sum and of the largest step's reward.
        mean_length: environment steps.
        modes, num_modes: modes seen among successes, of how many; None where the environment names none.
        entropy: of the modes of successes, 1 is uniform over num_modes (Miller-Madow).
        mode_counts: successes in each mode.
    """

    n_episodes: int
    success: float
    success_ci: tuple[float, float]
    total_reward: float
    max_reward: float
    mean_length: float
    modes: int | None = None
    num_modes: int | None = None
    entropy: float | None = None
    mode_counts: list[int] | None = None

    @classmethod
    def of(cls, episodes: Episodes, num_modes: int | None) -> "Evaluation":
        """Summarise episodes; without `num_modes` nothing is said about modes."""
        count = len(episodes.success)
        out = cls(
            n_episodes=count,
            success=float(episodes.success.mean()),
            success_ci=wilson_interval(int(episodes.success.sum()), count),
            total_reward=float(episodes.total_reward.mean()),
            max_reward=float(episodes.max_reward.mean()),
            mean_length=float(episodes.length.mean()),
        )
        if episodes.mode is not None and num_modes is not None:
            counts = mode_counts(episodes.mode, episodes.success, num_modes)
            out.modes, out.num_modes = int((counts > 0).sum()), num_modes
            out.entropy, out.mode_counts = entropy(counts), counts.tolist()
        return out

    @property
    def means(self) -> dict[str, float]:
        """Numbers about exploratory episodes for a line of training metrics."""
        return {"success": self.success, "return": self.total_reward, "max_reward": self.max_reward}

    def to_dict(self) -> dict[str, Any]:
        return {k: v for k, v in asdict(self).items() if v is not None}

    def sentence(self) -> str:
        low, high = self.success_ci
        text = f"success {self.success:.3f} [{low:.3f}, {high:.3f}] of {self.n_episodes} episodes"
        if self.modes is not None:
            text += f", {self.modes} of {self.num_modes} modes, entropy {self.entropy:.3f}"
        else:
            text += f", mean max reward {self.max_reward:.3f}"
        return text


def play(
    runner: EpisodeRunner,
    n_episodes: int,
    seed: int,
    attempts: int = 1,
) -> Episodes:
    """Play episodes of the policy's own, deployed sampler, see `play_chunks`."""
    return play_chunks(runner, runner.policy.deployed_chunk, n_episodes, seed, attempts)


def play_chunks(
    runner: EpisodeRunner,
    act: Callable[[Tensor], Tensor],
    n_episodes: int,
    seed: int,
    attempts: int = 1,
) -> Episodes:
    """Play episodes on seeds `seed, seed + 1, ...` without touching the global random state.

    Args:
        act: condition (B, C) -> chunk (B, H, D).
        attempts: episodes on each seed, that is from the same initial state.

    Raises:
        EnvironmentFailure, FloatingPointError: see `EpisodeRunner.collect`.
    """

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return runner.evaluate(n_episodes, seed + np.arange(n_episodes) // attempts, bare_chain(act))


def bare_chain(act: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Chain]:
    """`act` as an `EpisodeRunner` takes it: chains of which only the chunk is known."""

    def decide(condition: Tensor) -> Chain:
        chunk = act(condition)
        return Chain(chunk[:, None], chunk.new_zeros(len(chunk), 0))

    return decide


def name_modes(
    env: gym.vector.VectorEnv, episodes: Episodes, atlas: ModeAtlas | None
) -> tuple[Episodes, int | None]:
    """The episodes with their modes, from the environment or else from the atlas, and how many modes exist.

    Without either the number is None.

    Raises:
        UserError: the environment names modes and does not say how many there are.
        EnvironmentFailure: it named one beyond that.
    """
    if episodes.mode is not None:
        num_modes = number_of_modes(env)
        check_modes(episodes.mode, num_modes)
        return episodes, num_modes
    if atlas is None:
        return episodes, None
    return replace(episodes, mode=atlas.assign(episodes.states[atlas.key])), atlas.num_modes


def summarise(
    env: gym.vector.VectorEnv, episodes: Episodes, atlas: ModeAtlas | None = None
) -> tuple[Evaluation, Episodes]:
    """The outcomes of episodes of `env`, and the episodes with their modes (see `name_modes`)."""
    with_modes, num_modes = name_modes(env, episodes, atlas)
    return Evaluation.of(with_modes, num_modes), with_modes
