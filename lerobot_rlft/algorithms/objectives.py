"""The two losses that turn advantages of decisions into gradients of the denoising network.

Shapes: B (decision, denoising step) pairs, D decisions, K denoising steps, H horizon, A action dim.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from ..chains.chain import Chain, step_log_prob
from ..critics.advantages import clip_schedule, denoising_discount
from ..policies.base import DenoisingPolicy
from ..regularizers.base import Step
from ..utils.errors import RatioError
from .configuration_dppo import DPPOConfig


class Objective(ABC):
    """A loss on pairs of a decision and a denoising step k < K'."""

    def __init__(self, config: DPPOConfig, policy: DenoisingPolicy, finetuned: int) -> None:
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


class ChainObjective(Objective):
    """PPO on the sampled chain, DPPO's own (arXiv:2409.00588)."""

    def __init__(self, config: DPPOConfig, policy: DenoisingPolicy, finetuned: int) -> None:
        super().__init__(config, policy, finetuned)
        clip = clip_schedule(finetuned, config.clip_coef, config.clip_coef_base, config.clip_coef_rate)
        self.clip = clip.to(self.discount.device)

    def noisy(self, rows: Tensor, k: Tensor) -> Tensor:
        return self.chain.x[rows, k + 1]

    def loss(self, step: Step, rows: Tensor, first: bool) -> tuple[Tensor, dict[str, float]]:
        taken = self.chain.x[rows, step.k]
        new = step_log_prob(step.normal, taken, self.policy.executed, self.config.min_log_prob_std)
        log_ratio = new - self.chain.log_prob[rows, step.k]
        log = (
            {"first_ratio_error": check_first_ratio(log_ratio, self.policy.ratio_tolerance)} if first else {}
        )
        a = self.advantage[rows]
        if self.config.normalize_advantage:
            a = (a - a.mean()) / (a.std(unbiased=False).clamp(min=self.config.advantage_std_floor) + 1e-8)
        loss, clipped = ppo_loss(log_ratio, a * self.discount[step.k], self.clip[step.k])
        approx_kl = ((log_ratio.exp() - 1) - log_ratio).mean()  # http://joschu.net/blog/kl-approx.html
        return loss, log | {"clip_fraction": clipped, "approx_kl": approx_kl.item()}


class ForwardObjective(Objective):
    """Negative-aware regression on executed chunks that are noised anew (DiffusionNFT, arXiv:2509.16117).

    The chunk that was executed is noised by the forward process at a step of the chain, with fresh noise at
    every use, and the network is drawn towards the chunk where the advantage is positive and away from it
    where it is negative. DiffusionNFT's two implicit policies `v_old +- beta d`, d = v - v_old, weighted by
    r = (1 + a) / 2 and 1 - r, add up to

        beta |d|^2 + 2 a <d, v_old - target>   (+ a constant, after division by beta)

    with a = A / (2 std(A)) in [-1, 1], the std at least `advantage_std_floor`: a policy gradient with a
    proximal term. It needs no log-probability, so experience comes from the deployed sampler. Held against
    the chain: the residual says at every noise level how far the whole outcome was from what the network
    expected, whereas a step of a chain is credited for noise that later steps wash out, and it sees one draw
    of it only. What that is worth was measured in recipes/avoiding_guarded.yaml.
    """

    def __init__(self, config: DPPOConfig, policy: DenoisingPolicy, finetuned: int) -> None:
        super().__init__(config, policy, finetuned)
        self.old = policy.frozen_copy()

    def begin(self, chain: Chain, condition: Tensor, advantage: Tensor) -> None:
        super().begin(chain, condition, advantage)
        self.old.module.load_state_dict(self.policy.module.state_dict())
        # Dividing by the std alone would blow noise up to full size once nearly every episode succeeds.
        scale = 2 * advantage.std(unbiased=False).clamp(min=max(self.config.advantage_std_floor, 1e-8))
        self.weight = (advantage / scale).clamp(-1, 1)  # (D,)

    def noisy(self, rows: Tensor, k: Tensor) -> Tensor:
        x0 = self.chain.x[rows, 0]
        x, self.target = self.policy.kernel.noised(x0, k, torch.randn_like(x0))
        return x

    def loss(self, step: Step, rows: Tensor, first: bool) -> tuple[Tensor, dict[str, float]]:
        timestep = self.policy.kernel.timesteps[step.k]
        with torch.no_grad():
            old = self.old.predict(step.x, timestep, self.condition[rows])
        weight = self.weight[rows] * self.discount[step.k]
        moved, residual = (
            self.policy.executed(part).flatten(1) for part in (step.prediction - old, old - self.target)
        )
        proximal = moved.square().mean(1)
        loss = (self.config.proximal_coef * proximal + 2 * weight * (moved * residual).mean(1)).mean()
        return loss, {"moved": proximal.mean().item()}


OBJECTIVES: dict[str, type[Objective]] = {"chain": ChainObjective, "forward": ForwardObjective}


def ppo_loss(log_ratio: Tensor, advantage: Tensor, clip: Tensor) -> tuple[Tensor, float]:
    """Clipped surrogate (arXiv:1707.06347, eq. 7) with one clip range for each row, all (B,).

    Returns:
        the loss and the share of rows whose ratio left its range.
    """
    ratio = log_ratio.exp()
    clipped_ratio = torch.minimum(torch.maximum(ratio, 1 - clip), 1 + clip)
    loss = torch.maximum(-advantage * ratio, -advantage * clipped_ratio).mean()
    return loss, ((ratio - 1).abs() > clip).float().mean().item()


def check_first_ratio(log_ratio: Tensor, tolerance: float = 1e-4) -> float:
    """Largest |ratio - 1| of the first minibatch, whose weights are still those that collected the data.

    Raises:
        RatioError: it exceeds `tolerance`: sampling and re-evaluation disagree; the message lists likely
            causes.
    """
    error = (log_ratio.exp() - 1).abs().max().item()
    if not error <= tolerance:
        raise RatioError(
            f"the first probability ratio of this iteration is off by {error:.2e}, it must be 1 within "
            f"{tolerance:g}. Likely causes: the policy is in train mode (dropout, random crops, batch norm), "
            "sampling and log-probabilities use different time grids or std floors, weights changed between "
            "collection and update, or the policy computes in half precision (use float32)."
        )
    return error
