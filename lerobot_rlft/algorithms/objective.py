"""Objectives of on-policy algorithms. Shapes: B (decision, denoising step) pairs, D decisions."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from ..chains.chain import Chain
from ..critics.advantages import denoising_discount
from ..policies.base import DenoisingPolicy
from ..regularizers.base import Step
from .configuration_on_policy import OnPolicyConfig


class Objective(ABC):
    """A loss on pairs of a decision and a denoising step k < K'."""

    def __init__(self, config: OnPolicyConfig, policy: DenoisingPolicy, finetuned: int) -> None:
        self.config, self.policy = config, policy
        self.discount = denoising_discount(finetuned, config.gamma_denoising)  # (K',)
        self.discount = self.discount.to(policy.kernel.timesteps.device)
        self.tail = tail(policy)

    def begin(self, chain: Chain, condition: Tensor, advantage: Tensor) -> None:
        """Once an iteration, with the weights that collected it.

        Args:
            condition: (D, C).
            advantage: (D,)
        """
        self.chain, self.condition, self.advantage = chain, condition, advantage

    @abstractmethod
    def noisy(self, rows: Tensor, k: Tensor) -> Tensor:
        """(B, H, A) what the network is asked at these pairs; `loss` is called next, with its answer."""

    @abstractmethod
    def loss(self, step: Step, rows: Tensor, first: bool) -> tuple[Tensor, dict[str, float]]:
        """The loss and what to log of it.

        Args:
            rows: (B,) decisions.
            first: no weight has changed since the iteration was collected.

        Raises:
            RatioError: sampling and re-evaluation disagree.
        """

    def hold_tail(self, step: Step, reference: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Loss on what is not executed of a chunk, of which no reward speaks, though another `n_action_steps`
        or real-time chunking may use it: squared difference to the `reference` network outputs.

        Args:
            reference: (b, H, A) of the first b of the pairs.

        Returns:
            the loss, 0 where all is executed, and its log.
        """
        coef = self.config.tail_coef
        if not len(self.tail) or coef == 0:
            return step.prediction.new_zeros(()), {}
        moved = (step.prediction[: len(reference)] - reference).flatten(1)[:, self.tail].square().mean()
        return coef * moved, {"tail_moved": moved.item()}

    def stops(self, log: dict[str, float]) -> bool:
        """Whether what `loss` logged ends the updates of the actor in this iteration."""
        return False


def tail(policy: DenoisingPolicy) -> Tensor:
    """Indices of the numbers of a flattened chunk that are not executed, (N,) long."""
    numbers = torch.arange(policy.horizon * policy.action_dim).view(1, policy.horizon, policy.action_dim)
    out = torch.ones(numbers.numel(), dtype=torch.bool)
    out[policy.executed(numbers).flatten()] = False
    return out.nonzero()[:, 0].to(policy.kernel.timesteps.device)
