"""KL to the base at every denoising step. Plain torch; shapes as in `base`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..chains.chain import kl_divergence, with_std_floor
from ..policies.base import DenoisingPolicy
from .base import Experience, Load, Regularizer, RegularizerConfig, Step


@RegularizerConfig.register_subclass("kl_base")
@dataclass
class KLBaseConfig(RegularizerConfig):
    """KL in nats, summed over the executed part of the chunk.

    Raises:
        ValueError: an option is unknown, or two do not go together.
    """

    # Place of the penalty: "loss", at the states of a minibatch, or "return", subtracted from the reward of
    # each decision.
    place: str = "loss"
    # Direction of the divergence: "reverse" is KL(policy || base), "forward" is KL(base || policy), for a
    # policy that learns its noise.
    direction: str = "reverse"
    # Weight of each denoising step: "exact" is the KL divergence, "early" multiplies it by the variance, so
    # that the noisy steps, where the mode is decided, count as much.
    weighting: str = "exact"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check("place", self.place in ("loss", "return"), "loss or return")
        self.check("direction", self.direction in ("reverse", "forward"), "reverse or forward")
        self.check("weighting", self.weighting in ("exact", "early"), "exact or early")
        # A return is an expectation over what the policy does, and so is the reverse KL alone.
        fits = self.place == "loss" or self.direction == "reverse"
        self.check("direction", fits, "reverse with place=return, or place=loss")

    def build(self, policy: DenoisingPolicy, base: DenoisingPolicy, load: Load | None = None) -> "KLBase":
        has_head = policy.noise_head is not None
        reason = "reverse: with the fixed noise of this policy both are |difference of means|^2 / (2 std^2). "
        reason += "For a mass-covering term take type rehearsal"
        self.check("direction", self.direction == "reverse" or has_head, reason)
        return KLBase(self)


class KLBase(Regularizer):
    """KL between the denoising steps of policy and base.

    Fixed points, binary undiscounted success and `weighting=exact`: in the return (KL control,
    arXiv:1805.00909) the successes of the optimum are pi_base(. | success) for every coef: modes keep the
    shares they have among the base's successes, and coef sets only the success rate. As a loss at visited
    states the optimum is pi_base * exp(A / beta): once everything succeeds, the shares of what the base
    attempts. With log-probabilities that are a mean over the H_exec * A executed numbers, as DPPO's are, beta
    is coef * H_exec * A in a loss; in the return it is coef.
    """

    def __init__(self, config: KLBaseConfig) -> None:
        super().__init__(config)
        self.config = config

    def reward(self, data: Experience, steps: Callable[[], Iterator[tuple[Tensor, Step]]]) -> Tensor | None:
        """Minus the KL of each decision by one sample for a step, the chain that was executed:
        -sum_k log p(x_k | x_{k+1}) / p_base(x_k | x_{k+1}).

        The closed form would not do here. It depends on where a step starts and not on what it draws, so that
        it is a mere baseline to the step's own advantage, and nothing would hold the last step.
        """
        if self.config.place == "loss":
            return None
        total = torch.zeros(len(data.t))
        for rows, step in steps():
            x_next = data.chain.x[rows, step.k]
            policy, base = (with_std_floor(n, step.floor) for n in (step.normal, step.base_normal))
            ratio = step.policy.executed(policy.log_prob(x_next) - base.log_prob(x_next)).flatten(1).sum(1)
            total.index_add_(0, rows.cpu(), (self.weight(step) * ratio).detach().cpu())
        return -data.grid(total)

    def loss(self, step: Step) -> Tensor | None:
        """Mean KL of the pairs."""
        if self.config.place == "return":
            return None
        p, q = step.normal, step.base_normal
        if self.config.direction == "forward":
            p, q = q, p
        return (self.weight(step) * kl_divergence(p, q, step.policy.executed, step.floor)).mean()

    def weight(self, step: Step) -> Tensor:
        """(B,) 1; for "early" std^2, which makes of KL = |mu - mu_base|^2 / (2 std^2) half the squared
        difference of means. std is the base's, at least the floor, in the mean over the executed part.
        """
        variance = with_std_floor(step.base_normal, step.floor).variance
        if self.config.weighting == "exact":
            return torch.ones_like(variance[:, 0, 0])
        return step.policy.executed(variance).flatten(1).mean(1)
