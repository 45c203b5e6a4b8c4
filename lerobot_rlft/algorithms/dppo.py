"""DPPO: policy gradients on the denoising chain of a diffusion policy (arXiv:2409.00588).

PPO's clipped ratio on every sampled denoising step, see `on_policy` for the two-level MDP. Exploration is the
noise of the chain, so every step that is trained needs some.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..chains.chain import Chain, step_log_prob
from ..critics.advantages import clip_schedule
from ..policies.base import DenoisingPolicy, Exploration
from ..regularizers.base import Step
from ..utils.errors import RatioError, check
from .base import AlgorithmConfig, Parts
from .configuration_on_policy import OnPolicyConfig
from .objective import Objective
from .on_policy import OnPolicy

HYBRID_NEEDS_ALL = "finetuned_steps=null with it: the step that is trained may be any"
WHY = "without noise there is no log-probability"
TAIL_PAIRS = 64  # pairs of a minibatch whose tail is compared with the base's


@AlgorithmConfig.register_subclass("dppo")
@dataclass
class DPPOConfig(OnPolicyConfig):
    """PPO on the sampled chain, which needs exploration noise and log-probabilities.

    Raises:
        ValueError: a field is out of its range.
    """

    # Kept for old files: "chain" is what dppo does; "forward" is read as --algorithm.type=nft.
    objective: str = "chain"
    # Clip range of PPO at the last denoising step, in nats: bound of the change of the log-probability of the
    # executed chunk.
    clip_range: float = 0.2
    # Clip range of PPO at the noisiest denoising step; those in between are interpolated exponentially.
    clip_range_base: float = 0.2
    # Rate of the exponential between clip_range_base and clip_range.
    clip_range_rate: float = 1.0
    # KL divergence of one denoising step from what collected the data, in nats of the executed chunk, at
    # which the passes of an iteration end early; null = never.
    max_step_kl: float | None = 0.05
    # Noise with which flow policies explore: "sde" follows a stochastic differential equation with the
    # marginals of the flow (Flow-SDE), "head" has a learned standard deviation (Flow-Noise, ReinFlow). The
    # deployed policy is the noise-free flow in both cases.
    flow_noise: str = "sde"
    # Smallest and largest standard deviation of the learned noise (flow_noise=head).
    noise_std_range: tuple[float, float] = (0.08, 0.16)
    # Whether flow policies add noise at one random denoising step of each chain and train that step alone; an
    # update is then cheaper by the number of steps.
    hybrid: bool = False
    # Whether to centre advantages in each minibatch and divide them by their standard deviation, as the code
    # of the DPPO paper does. Once nearly every episode succeeds, this amplifies noise and success collapses
    # (docs/results/mode_loss.md); without it, the scaled return is the unit.
    normalize_advantage: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.objective != "chain":
            raise ValueError(
                f"algorithm.objective={self.objective!r} is unknown, choose chain or forward "
                "(--algorithm.type=nft)"
            )
        check("eta", self.eta, self.eta > 0, f"a number in (0, 1]; {WHY}")
        check("noise_level", self.noise_level, self.noise_level > 0, f"a number in (0, 1.5]; {WHY}")
        if self.flow_noise not in ("sde", "head"):
            raise ValueError(f"algorithm.flow_noise={self.flow_noise!r} is unknown, choose sde or head")
        low, high = self.noise_std_range
        choices = "two numbers > 0, the smaller first, for example [0.08, 0.16]"
        check("noise_std_range", self.noise_std_range, 0 < low < high, choices)
        check("hybrid", self.hybrid, not self.hybrid or self.finetuned_steps is None, HYBRID_NEEDS_ALL)
        for name in ("clip_range", "clip_range_base"):
            check(
                name, getattr(self, name), 0 < getattr(self, name) < 1, "a number in (0, 1), for example 0.2"
            )
        check("clip_range_rate", self.clip_range_rate, self.clip_range_rate >= 0, "a number >= 0")
        kl = self.max_step_kl
        check("max_step_kl", kl, kl is None or kl > 0, "a number > 0 or null")

    @property
    def papers(self) -> list[tuple[str, str]]:
        return [("Diffusion Policy Policy Optimization", "https://arxiv.org/abs/2409.00588")]

    @property
    def exploration(self) -> Exploration:
        return Exploration(self.eta, self.flow_noise, self.noise_level, self.noise_std_range, self.hybrid)

    def build(self, parts: Parts) -> "DPPO":
        if parts.base is None:
            raise ValueError(f"algorithm.type={self.type} holds to a pretrained policy and was given none")
        regularizers = parts.regularizers(self.regularizers)
        return DPPO(self, parts.policy, parts.base, parts.backward, regularizers)


class ChainObjective(Objective):
    """PPO on the sampled chain (arXiv:2409.00588).

    Log-probabilities are means over the N executed numbers of a chunk, as in DPPO's public code, which is the
    unit of losses. Trust region and KL are in nats of the whole chunk, N times as much, and so mean the same
    for chunks of every size: a clip range of .1 on the mean would allow chunks of 16 numbers 1.6 nats and
    those of 700 numbers 70.
    """

    def __init__(self, config: DPPOConfig, policy: DenoisingPolicy, finetuned: int) -> None:
        super().__init__(config, policy, finetuned)
        self.options = config
        chunk = torch.empty(1, policy.horizon, policy.action_dim)
        self.numbers = policy.executed(chunk).numel()  # N
        clip = clip_schedule(finetuned, config.clip_range, config.clip_range_base, config.clip_range_rate)
        self.clip = clip.to(self.discount.device) / self.numbers

    def noisy(self, rows: Tensor, k: Tensor) -> Tensor:
        return self.chain.x[rows, k + 1]

    def loss(self, step: Step, rows: Tensor, first: bool) -> tuple[Tensor, dict[str, float]]:
        x_next = self.chain.x[rows, step.k]
        new = step_log_prob(step.normal, x_next, self.policy.executed, step.floor)
        log_ratio = new - self.chain.log_prob[rows, step.k]
        log = (
            {"first_ratio_error": check_first_ratio(log_ratio, self.policy.ratio_tolerance)} if first else {}
        )
        a = self.advantage[rows]
        if self.options.normalize_advantage:
            a = (a - a.mean()) / (a.std(unbiased=False).clamp(min=self.options.advantage_std_floor) + 1e-8)
        loss, clipped = ppo_loss(log_ratio, a * self.discount[step.k], self.clip[step.k])
        nats = self.numbers * log_ratio.detach()
        approx_kl = ((nats.exp() - 1) - nats).mean()  # http://joschu.net/blog/kl-approx.html
        log |= {"clip_fraction": clipped, "approx_kl": approx_kl.item()}
        commanded = self.policy.deployed_odds() is not None  # then the base's tail is another's
        if len(self.tail) and self.options.tail_coef and not commanded:
            timestep = step.base.kernel.timesteps[step.k[:TAIL_PAIRS]]
            with torch.no_grad():
                condition = step.encode(step.base, TAIL_PAIRS)
                base = step.base.predict(step.x[:TAIL_PAIRS], timestep, condition)
            held, more = self.hold_tail(step, base)
            return loss + held, log | more
        return loss, log

    def stops(self, log: dict[str, float]) -> bool:
        most = self.options.max_step_kl
        return most is not None and log["approx_kl"] > most


class DPPO(OnPolicy):
    """See `on_policy.OnPolicy`.

    Raises:
        ValueError: noise that the log-probability needs is switched off.
    """

    config: DPPOConfig
    amsgrad = True  # once everything succeeds gradients are noise, of which plain Adam makes full steps

    def make_objective(self) -> Objective:
        std = self.sampling_floor
        noisy = self.policy.noise_head is not None or self.policy.kernel.std[: self.finetuned].any()
        check("min_sampling_std", std, std > 0 or bool(noisy), f"a number > 0; {WHY}")
        return ChainObjective(self.config, self.policy, self.finetuned)

    @property
    def _leaves_out(self) -> bool:
        """Whether some steps draw no noise, and are therefore not trained as actions."""
        return self.sampling_floor == 0 and self.policy.std_floor > 0

    def _default_floor(self) -> float:
        if self._leaves_out:
            std = self.policy.kernel.std
            return std[std > 0].min().item()  # that of every step which has a log-probability is its own
        return super()._default_floor()

    def explore(self, condition: Tensor) -> Chain:
        chain = super().explore(condition)
        if self._leaves_out:
            chain.stochastic = (self.policy.kernel.std > 0).expand(len(condition), -1)
        return chain

    def minibatches(self, decisions: int) -> tuple[int, int]:
        if not self._leaves_out:
            return super().minibatches(decisions)
        most, std = self.config.minibatch_size, self.policy.kernel.std[: self.finetuned]
        pairs = decisions * int((std > 0).sum())
        return min(pairs, most), self.config.update_epochs * -(-pairs // most)

    def progress(self, metrics: dict[str, Any]) -> str:
        return f"{super().progress(metrics)} clip {metrics.get('clip_fraction', 0.0):.2f}"


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
