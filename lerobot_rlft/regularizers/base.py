"""The interface of regularizers: their options, their hooks, and the data they are given. Plain torch.

A regularizer is one file with one config, registered under the name used as `type` in
`algorithm.regularizers`, and one class. Shapes: B (decision, denoising step) pairs of a minibatch, D
decisions, T decisions of the longest episode, E episodes, H horizon, A action dim.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import draccus
import torch
from torch import Tensor
from torch.distributions import Normal

from ..chains.chain import Chain
from ..policies.base import DenoisingPolicy

Load = Callable[[str], DenoisingPolicy]


class Experience(Protocol):
    """The part of a rollout that algorithms read; see `lerobot_rlft.rollout.episodes.Rollout` for shapes.

    Attributes:
        success: (E,) bool.
        attempt: (E,) long, the mode that each episode reached or, where it failed, was on the way to; -1
            where unknown; None where nothing names modes.
    """

    obs: dict[str, Tensor]
    chain: Chain
    t: Tensor
    episode: Tensor
    reward: Tensor
    valid: Tensor
    terminated: Tensor
    final_obs: dict[str, Tensor]
    attempt: Tensor | None

    @property
    def success(self) -> Tensor: ...

    def grid(self, flat: Tensor) -> Tensor: ...


@dataclass
class Step:
    """A minibatch of (decision, denoising step) pairs, as the objective has just evaluated the policy on it.

    Everything of the base is computed at first use and kept, so that it is evaluated once for a minibatch,
    whatever is combined.

    Attributes:
        policy, base: the policy that is trained, and its frozen pretrained original.
        x: (B, H, A) noisy chunks x_{k+1}.
        k: (B,) long, denoising step: 0 the last, K-1 the noisiest.
        condition: (B, C) the policy's features of the observations.
        prediction: (B, H, A) the policy's network output, with gradient.
        encode: gives the features that another policy, as the base, has of the same observations, (B, C), or
            of the first so many as a second argument says.
            Only where `encoder` is shared may they be those of `policy`: normalisation belongs to each.
        floor: smallest std in densities.
    """

    policy: DenoisingPolicy
    base: DenoisingPolicy
    x: Tensor
    k: Tensor
    condition: Tensor
    prediction: Tensor
    encode: Callable[..., Tensor]
    floor: float

    @cached_property
    def normal(self) -> Normal:
        """p(x_k | x_{k+1}) of the policy, (B, H, A), with gradient."""
        return self.policy.normal(self.x, self.k, self.condition, self.prediction)

    @cached_property
    def base_condition(self) -> Tensor:
        """(B, C) what the base has of the observations."""
        with torch.no_grad():
            return self.encode(self.base)

    @cached_property
    def base_prediction(self) -> Tensor:
        """(B, H, A) the base's network output."""
        with torch.no_grad():
            timestep = self.base.kernel.timesteps[self.k]
            return self.base.predict(self.x, timestep, self.base_condition)

    @cached_property
    def base_normal(self) -> Normal:
        """p(x_k | x_{k+1}) of the base, (B, H, A)."""
        return self.base.normal(self.x, self.k, self.base_condition, self.base_prediction)


@dataclass
class RegularizerConfig(draccus.ChoiceRegistry):
    """Options of one regularizer."""

    # Weight of the loss, or of the reward, that is added, in units of what a success of the base earns.
    coef: float = 1.0

    def __post_init__(self) -> None:
        self.check("coef", self.coef >= 0, "a number >= 0")

    @property
    def type(self) -> str:
        return self.get_choice_name(type(self))

    def check(self, field: str, ok: bool, choice: str) -> None:
        """Raise a ValueError that names field, value and what is wanted unless `ok`."""
        if not ok:
            value = getattr(self, field)
            raise ValueError(f"{field}={value!r} of regularizer {self.type} is unusable, choose {choice}")

    @abstractmethod
    def build(
        self, policy: DenoisingPolicy, base: DenoisingPolicy, load: Load | None = None
    ) -> "Regularizer":
        """The regularizer for this policy.

        Args:
            policy: that is trained.
            base: its frozen pretrained original.
            load: gives the policy of a Hub id or folder, with the exploration sampler of `policy`; only
                regularizers with references of their own call it.

        Raises:
            ValueError: it cannot serve this policy; the message says why and what can.
        """


class Regularizer:
    """Base of all that holds diversity, by any of these hooks; each does nothing unless it is overridden.

    Attributes:
        coef: weight of the loss, or of the reward. It starts at the config's and, where `adjustable`, may be
            moved by the diversity guard.
        relative: whether `coef` is in units of what a success of the base earns; else in those of the reward.
        log: metrics of the iteration that the hooks are called for.
    """

    adjustable = True
    relative = True
    coef = 1.0

    def __init__(self, config: RegularizerConfig) -> None:
        self.coef = config.coef
        self.log: dict[str, float] = {}

    def begin(self, reference: Experience, num_modes: int | None) -> None:
        """Once, before the first iteration: episodes of the base with the sampler of collection.

        Args:
            num_modes: M; None where nothing names modes.

        Raises:
            ValueError: it cannot work with these episodes; the message says why and what can be done.
        """

    def observe(self, data: Experience) -> None:
        """Once an iteration, before its update: what was collected."""

    def learn(self, features: Tensor, rows: Tensor) -> dict[str, float]:
        """A gradient step of networks of its own on a minibatch of decisions, the one the critic sees.

        Args:
            features: (B, F) what the critic reads.
            rows: (B,) decisions of what was given last to `begin` or `observe`.

        Returns:
            metrics, averaged over the minibatches of an iteration.
        """
        return {}

    def advantage(self, advantage: Tensor, data: Experience, features: Tensor, reward_scale: float) -> Tensor:
        """Advantages (T, E) as they are learnt from.

        Args:
            advantage: (T, E) of the rewards divided by `reward_scale`.
            features: (D, F) what the critic reads.
        """
        return advantage

    def reward(self, data: Experience, steps: Callable[[], Iterator[tuple[Tensor, Step]]]) -> Tensor | None:
        """Addition to the reward of each decision before advantages are computed, unweighted.

        Args:
            data: of the iteration.
            steps: all (decision, step) pairs of it without gradient, as pairs of the decisions' rows (B,) and
                a Step; evaluated at each call.

        Returns:
            (T, E), or None for a regularizer that acts by its loss.
        """
        return None

    def loss(self, step: Step) -> Tensor | None:
        """A scalar to add to the loss of a minibatch, unweighted; None for one that acts by its reward."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """All that a bit-equal resume needs: nested dicts of tensors and JSON values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` gave."""


def success_value(reference: Experience) -> float:
    """Size of what a success earns on average, in the environment's reward; 1 without any success."""
    earned = (reference.reward * reference.valid).sum(0)[reference.success]
    return earned.mean().abs().clamp(min=1e-8).item() if len(earned) else 1.0
