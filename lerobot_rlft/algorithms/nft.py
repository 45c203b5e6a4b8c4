"""DiffusionNFT: regression on executed chunks that are noised anew (arXiv:2509.16117)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..chains.chain import Chain
from ..policies.base import DenoisingPolicy
from ..regularizers.base import Step
from ..utils.errors import check
from .base import AlgorithmConfig, Parts
from .configuration_on_policy import OnPolicyConfig
from .objective import Objective
from .on_policy import OnPolicy


@AlgorithmConfig.register_subclass("nft")
@dataclass
class NFTConfig(OnPolicyConfig):
    """Towards executed chunks whose advantage is positive, away from the others. It needs no
    log-probabilities and explores with the deployed sampler.

    Raises:
        ValueError: a field is out of its range.
    """

    # Weight of the squared distance to the network that collected the experience.
    proximal_coef: float = 1.0
    # Learning rate of the policy.
    actor_lr: float = 5e-5
    # Passes of the policy over the experience of an iteration.
    update_epochs: int = 1
    # Smallest standard deviation of the exploration noise at every denoising step.
    min_sampling_std: float | None = 0.0
    # Noise of the DDIM sampler that collects experience, from 0 to 1.
    eta: float = 0.0
    # Size of the noise with which flow policies collect experience, from 0 to 1.5.
    noise_level: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check("proximal_coef", self.proximal_coef, self.proximal_coef >= 0, "a number >= 0")

    @property
    def papers(self) -> list[tuple[str, str]]:
        dppo = ("Diffusion Policy Policy Optimization", "https://arxiv.org/abs/2409.00588")
        return [dppo, ("DiffusionNFT", "https://arxiv.org/abs/2509.16117")]

    def build(self, parts: Parts) -> "NFT":
        if parts.base is None:
            raise ValueError(f"algorithm.type={self.type} holds to a pretrained policy and was given none")
        regularizers = parts.regularizers(self.regularizers)
        return NFT(self, parts.policy, parts.base, parts.backward, regularizers)


class ForwardObjective(Objective):
    """Negative-aware regression on executed chunks that are noised anew (DiffusionNFT, arXiv:2509.16117).

    The chunk that was executed is noised by the forward process at a step of the chain, with fresh noise at
    every use, and the network is drawn towards the chunk where the advantage is positive and away from it
    where it is negative. DiffusionNFT's two implicit policies `v_old +- beta d`, d = v - v_old, weighted by
    r = (1 + a) / 2 and 1 - r, add up to

        beta |d|^2 + 2 a <d, v_old - target>   (+ a constant, after division by beta)

    with a = A / (2 std(A)) in [-1, 1], the std at least `advantage_std_floor`, and less its mean over the
    decisions: a policy gradient with a proximal term. The mean is a matter of the critic, not of the chunks,
    and would not be neutral: a network drawn to all of its own chunks loses modes, one that is pushed away
    from all of them spreads. No log-probability is needed, so experience comes from the deployed sampler.
    Held against the chain: the residual says at every noise level how far the whole outcome was from what
    the network expected, whereas a step of a chain is credited for noise that later steps wash out, and it
    sees one draw of it only. docs/results/avoiding_guarded.md says what that is worth.
    """

    def __init__(self, config: NFTConfig, policy: DenoisingPolicy, finetuned: int) -> None:
        super().__init__(config, policy, finetuned)
        self.options = config
        self.old = policy.frozen_copy()

    def begin(self, chain: Chain, condition: Tensor, advantage: Tensor) -> None:
        super().begin(chain, condition, advantage)
        self.old.module.load_state_dict(self.policy.module.state_dict())
        # Dividing by the std alone would blow noise up to full size once nearly every episode succeeds.
        scale = 2 * advantage.std(unbiased=False).clamp(min=max(self.options.advantage_std_floor, 1e-8))
        weight = (advantage / scale).clamp(-1, 1)
        self.weight = weight - weight.mean()  # (D,); clipping moves the mean of what was centred

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
        loss = (self.options.proximal_coef * proximal + 2 * weight * (moved * residual).mean(1)).mean()
        held, log = self.hold_tail(step, old)
        return loss + held, {"moved": proximal.mean().item()} | log


class NFT(OnPolicy):
    """See `on_policy.OnPolicy`."""

    config: NFTConfig

    def make_objective(self) -> Objective:
        return ForwardObjective(self.config, self.policy, self.finetuned)
