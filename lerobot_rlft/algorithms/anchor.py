"""Distance to the base: the KL that is logged, and the anchor of steps that are not fine-tuned.

Shapes: B (decision, denoising step) pairs, D decisions, K denoising steps, H horizon, A action dim.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ..chains.chain import kl_divergence
from ..policies.base import DenoisingPolicy

Encode = Callable[[DenoisingPolicy, Tensor], Tensor]  # a policy's features of some decisions

KL_PAIRS = 256  # (decision, step) pairs on which the KL to the base is measured


class Anchor:
    """Policy and base of a run.

    Args:
        policy: that is trained.
        base: its frozen pretrained original. It is called on `KL_PAIRS` pairs an iteration, and by `loss`.
        finetuned: K', number of final denoising steps that are trained.
        floor: smallest std in densities.
    """

    def __init__(self, policy: DenoisingPolicy, base: DenoisingPolicy, finetuned: int, floor: float) -> None:
        self.policy, self.base, self.finetuned, self.floor = policy, base, finetuned, floor

    def loss(self, x: Tensor, encode: Encode, count: int) -> Tensor:
        """Squared difference of network outputs to the base at random steps that are not fine-tuned.

        Args:
            x: (D, K+1, H, A) the sampled chains.
            encode: features of decisions.
            count: pairs to draw.
        """
        rows = torch.randint(len(x), (count,), device=x.device)
        k = torch.randint(self.finetuned, self.policy.kernel.num_steps, (count,), device=x.device)
        noisy, timestep = x[rows, k + 1], self.policy.kernel.timesteps[k]
        with torch.no_grad():
            target = self.base.predict(noisy, timestep, encode(self.base, rows))
        return (self.policy.predict(noisy, timestep, encode(self.policy, rows)) - target).square().mean()

    @torch.no_grad()
    def kl(self, x: Tensor, encode: Encode) -> list[float]:
        """KL(policy || base) of each fine-tuned denoising step in nats, summed over the executed chunk."""
        count = min(len(x), max(1, KL_PAIRS // self.finetuned))
        rows = torch.linspace(0, len(x) - 1, count, device=x.device).long()
        rows = rows.repeat_interleave(self.finetuned)
        k = torch.arange(self.finetuned, device=x.device).repeat(count)
        policy, base = (p.transition(x[rows, k + 1], k, encode(p, rows)) for p in (self.policy, self.base))
        kl = kl_divergence(policy, base, self.policy.executed, self.floor)
        return kl.view(count, self.finetuned).mean(0).tolist()
