"""Objectives of on-policy algorithms. Shapes: B (decision, denoising step) pairs, D decisions."""

from abc import ABC, abstractmethod

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

    def stops(self, log: dict[str, float]) -> bool:
        """Whether what `loss` logged ends the updates of the actor in this iteration."""
        return False
