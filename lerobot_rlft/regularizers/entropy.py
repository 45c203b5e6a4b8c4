"""Entropy of behaviour: of the modes reached, of the chunks executed, or of learned noise. Plain torch.

Entropy of the chain is no use: with a fixed noise schedule it is a constant. Shapes as in `base`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..chains.chain import with_std_floor
from ..metrics.points import distances
from ..policies.base import DenoisingPolicy
from .base import Experience, Load, Regularizer, RegularizerConfig, Step


@RegularizerConfig.register_subclass("entropy")
@dataclass
class EntropyConfig(RegularizerConfig):
    """A bonus for diversity of the kind that `on` names.

    Raises:
        ValueError: an option is unknown or out of range.
    """

    # Quantity that is raised: "novelty" pays successes in rare modes, "chunks" pays chunks of actions unlike
    # those of other episodes, "noise_head" raises the entropy of learned noise.
    on: str = "novelty"
    # Weight of the past in the running average of mode shares (on=novelty).
    decay: float = 0.8
    # Successes added to each mode, so that the reward of a rare one stays finite (on=novelty).
    pseudo_count: float = 1.0
    # Rank of the neighbour whose distance is paid (on=chunks).
    neighbours: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        choices = ("novelty", "chunks", "noise_head")
        self.check("on", self.on in choices, "novelty, chunks or noise_head")
        self.check("decay", 0 <= self.decay < 1, "a number in [0, 1), for example 0.8")
        self.check("pseudo_count", self.pseudo_count > 0, "a number > 0")
        self.check("neighbours", self.neighbours >= 1, "at least 1")

    def build(self, policy: DenoisingPolicy, base: DenoisingPolicy, load: Load | None = None) -> "Entropy":
        has_head = policy.noise_head is not None
        reason = (
            "novelty or chunks: the entropy of this policy's fixed noise is constant, a bonus does nothing"
        )
        self.check("on", self.on != "noise_head" or has_head, reason)
        return Entropy(self, policy)


class Entropy(Regularizer):
    """A bonus for entropy.

    Args:
        config: see there.
        policy: that is trained.
    """

    def __init__(self, config: EntropyConfig, policy: DenoisingPolicy) -> None:
        super().__init__(config)
        self.config, self.policy = config, policy
        self.shares: dict[int, float] = {}  # average share of the successes, of each mode seen so far

    def begin(self, reference: Experience, num_modes: int | None) -> None:
        """Start the average at the base.

        Raises:
            ValueError: novelty is wanted and nothing names modes.
        """
        if self.config.on == "novelty":
            self.config.check("on", reference.attempt is not None, "chunks: nothing names modes here")
            self.shares = _mode_shares(reference)

    def observe(self, data: Experience) -> None:
        new = _mode_shares(data)
        if self.config.on == "novelty" and new:  # without a success the average stays
            old, decay = self.shares or new, self.config.decay
            self.shares = {m: decay * old.get(m, 0.0) + (1 - decay) * new.get(m, 0.0) for m in old | new}

    def reward(self, data: Experience, steps: Callable[[], Iterator[tuple[Tensor, Step]]]) -> Tensor | None:
        """See `novelty` and `particle_entropy`."""
        if self.config.on == "novelty":
            return self.novelty(data)
        if self.config.on == "chunks":
            chunks = self.policy.executed(data.chain.x[:, 0]).flatten(1).cpu()
            return data.grid(particle_entropy(chunks, data.t, self.config.neighbours))
        return None

    def novelty(self, data: Experience) -> Tensor:
        """(T, E): b - mean(b), b = -log p(m), at the last decision of a success in a known mode m; else 0.

        p(m) = (n s_m + c) / (n + c M): n such successes, s the average shares, c the pseudo-count, M modes
        seen so far. The mean is over the n, so a success as such earns nothing; only its rarity does.
        """
        reward, in_mode = torch.zeros(data.valid.shape), _in_mode(data)
        if data.attempt is not None and in_mode.any():
            n, c = int(in_mode.sum()), self.config.pseudo_count
            share = torch.tensor([self.shares[m] for m in data.attempt[in_mode].tolist()])
            p = (n * share + c) / (n + c * len(self.shares))
            reward[data.valid.sum(0)[in_mode] - 1, in_mode.nonzero()[:, 0]] = p.log().mean() - p.log()
        return reward

    def loss(self, step: Step) -> Tensor | None:
        """noise_head: minus the entropy of a step, nats of the executed part, in the mean of the pairs."""
        if self.config.on != "noise_head":
            return None
        entropy = step.policy.executed(with_std_floor(step.normal, step.floor).entropy())
        return -entropy.flatten(1).sum(1).mean()

    def state_dict(self) -> dict[str, Any]:
        return {"shares": [list(pair) for pair in self.shares.items()]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.shares = dict(state["shares"])


def particle_entropy(chunks: Tensor, t: Tensor, neighbours: int) -> Tensor:
    """log(1 + distance to the k-th neighbour) among the chunks of the same t, less its mean over them.

    The intrinsic reward of RE3 (arXiv:2102.09430) on actions; centred, so that long episodes gain nothing.

    Args:
        chunks: (D, F) in normalised units.
        t: (D,) the decision's index in its episode.
        neighbours: k; the furthest neighbour where there are fewer.

    Returns:
        (D,), 0 for a chunk that is alone at its t.
    """
    reward = torch.zeros(len(t))
    for at in t.unique():
        rows = (t == at).nonzero()[:, 0]
        k = min(neighbours + 1, len(rows))  # the first is the chunk itself
        bonus = distances(chunks[rows], chunks[rows]).kthvalue(k, dim=1).values.log1p()
        reward[rows] = bonus - bonus.mean()
    return reward


def _in_mode(data: Experience) -> Tensor:
    """(E,) bool, successes in a known mode."""
    return data.success & (data.attempt >= 0) if data.attempt is not None else torch.zeros_like(data.success)


def _mode_shares(data: Experience) -> dict[int, float]:
    """Share of the successes in a known mode, of each mode that has any."""
    if data.attempt is None:
        return {}
    modes, counts = data.attempt[_in_mode(data)].unique(return_counts=True)
    return dict(zip(modes.tolist(), (counts / counts.sum()).tolist(), strict=True))
