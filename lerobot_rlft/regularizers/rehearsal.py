"""Rehearsal of decisions that led to success. Plain torch; shapes as in `base`, N remembered decisions."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..policies.base import DenoisingPolicy
from ..policies.rlft_commanded.commands import COMMAND
from .base import Experience, Load, Regularizer, RegularizerConfig, Step

UNKNOWN = -1  # the mode of decisions that nothing names; balanced like a mode


@RegularizerConfig.register_subclass("rehearsal")
@dataclass
class RehearsalConfig(RegularizerConfig):
    """Denoising loss on remembered decisions.

    Raises:
        ValueError: an option is unknown or out of range.
    """

    # Origin of the decisions: "base", successes of the base, "recent", these and then the newest of each
    # iteration (a mode that no episode reaches any more keeps its own), or "demonstrations".
    source: str = "base"
    # Whether to draw modes uniformly instead of as often as they were remembered.
    balanced: bool = True
    # Decisions kept, shared equally between modes.
    capacity: int = 4096
    # Decisions drawn for a minibatch.
    batch_size: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        sources = ("base", "recent", "demonstrations")
        self.check("source", self.source in sources, "base, recent or demonstrations")
        for name in ("capacity", "batch_size"):
            self.check(name, getattr(self, name) >= 1, "at least 1")

    def build(self, policy: DenoisingPolicy, base: DenoisingPolicy, load: Load | None = None) -> "Rehearsal":
        return Rehearsal(self, (policy.horizon, policy.action_dim))


class Rehearsal(Regularizer):
    """The pretraining loss (arXiv:2006.11239, equation 14) on remembered decisions: a forward KL, so it also
    holds modes that no episode reaches any more, and needs no network call of the base.

    Args:
        config: see there.
        chunk: (H, A) of the policy.
    """

    def __init__(self, config: RehearsalConfig, chunk: tuple[int, int]) -> None:
        super().__init__(config)
        self.config = config
        self.obs: dict[str, Tensor] = {}  # (N, S, ...) each, on the CPU; images uint8
        self.x0, self.mode = torch.empty(0, *chunk), torch.empty(0, dtype=torch.long)
        self.seen: dict[int, int] = {}  # mode -> decisions ever remembered

    def begin(self, reference: Experience, num_modes: int | None) -> None:
        """Remember its successes.

        Raises:
            ValueError: demonstrations are wanted and none were handed over.
        """
        if self.config.source != "demonstrations":
            self._remember_successes(reference)
        elif not len(self.x0):
            self.config.check(
                "source", False, "base or recent, or name a dataset: no demonstrations are here"
            )

    def observe(self, data: Experience) -> None:
        if self.config.source == "recent":
            self._remember_successes(data)

    def _remember_successes(self, data: Experience) -> None:
        rows = data.success[data.episode].nonzero()[:, 0]
        modes = None if data.attempt is None else data.attempt[data.episode[rows]]
        obs = {key: value[rows.to(value.device)] for key, value in data.obs.items()}
        if COMMAND in obs and modes is not None:  # a disobedient success shows how to do what it did
            obs[COMMAND] = modes[:, None].to(obs[COMMAND])
        self.remember(obs, data.chain.x[rows.to(data.chain.x.device), 0], modes)

    def remember(self, obs: dict[str, Tensor], chunks: Tensor | None, modes: Tensor | None) -> None:
        """Add decisions; where a mode has more than its share of the capacity, the oldest of it go.

        Args:
            obs: LeRobot key -> (N, S, ...), images uint8.
            chunks: (N, H, A) normalised as the policy's own; None in a dataset without actions.
            modes: (N,) long; -1 or None where unknown.

        Raises:
            ValueError: no chunks, or chunks of another shape.
        """
        chunk_shape = None if chunks is None else tuple(chunks.shape)
        own_shape = (len(next(iter(obs.values()))), *self.x0.shape[1:])
        if chunks is None or chunk_shape != own_shape:
            shape = "nothing" if chunk_shape is None else f"actions of shape {chunk_shape}"
            raise ValueError(
                f"source={self.config.source} of regularizer rehearsal needs actions of shape {own_shape} "
                f"and was given {shape}: take demonstrations with the actions of this policy, or source=base"
            )
        order = torch.randperm(len(chunks))  # else what is cut off would be one end of the episodes
        mode = torch.full((len(chunks),), UNKNOWN) if modes is None else modes.cpu()[order]
        new = {key: value.detach().cpu()[order] for key, value in obs.items()}
        self.obs = {key: torch.cat([self.obs.get(key, value[:0]), value]) for key, value in new.items()}
        self.x0 = torch.cat([self.x0, chunks.detach().cpu()[order]])
        self.mode = torch.cat([self.mode, mode])
        for m in mode.tolist():
            self.seen[m] = self.seen.get(m, 0) + 1
        share = max(1, self.config.capacity // max(1, len(self.seen)))
        tails = [(self.mode == m).nonzero()[-share:, 0] for m in self.seen]
        rows = torch.cat(tails).sort().values if tails else order
        self.obs = {key: value[rows] for key, value in self.obs.items()}
        self.x0, self.mode = self.x0[rows], self.mode[rows]

    def draw(self) -> tuple[dict[str, Tensor], Tensor]:
        """Observations (batch_size, S, ...) and chunks (batch_size, H, A), with replacement."""
        modes, index, sizes = self.mode.unique(return_inverse=True, return_counts=True)
        share = torch.ones(len(modes))
        if not self.config.balanced:
            share = torch.tensor([float(self.seen[m]) for m in modes.tolist()])
        rows = torch.multinomial((share / sizes)[index], self.config.batch_size, replacement=True)
        return {key: value[rows] for key, value in self.obs.items()}, self.x0[rows]

    def loss(self, step: Step) -> Tensor | None:
        """Mean squared error of the network's output; None as long as nothing is remembered."""
        if not len(self.x0):
            return None
        obs, x0 = self.draw()
        policy, x0 = step.policy, x0.to(step.x.device)
        k = torch.randint(policy.kernel.num_steps, (len(x0),), device=x0.device)
        x, target = policy.kernel.noised(x0, k, torch.randn_like(x0))
        prediction = policy.predict(x, policy.kernel.timesteps[k], policy.encode(obs))
        return (prediction - target).square().mean()

    def state_dict(self) -> dict[str, Any]:
        pairs = [list(pair) for pair in self.seen.items()]
        return {"obs": self.obs, "x0": self.x0, "mode": self.mode, "seen": pairs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.obs, self.x0, self.mode = state["obs"], state["x0"], state["mode"]
        self.seen = dict(state["seen"])
