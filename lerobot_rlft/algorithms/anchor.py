"""Distance to the base: the KL that is logged, and the anchor of all outputs that no reward speaks of.

Shapes: B (decision, denoising step) pairs, D decisions, K denoising steps, H horizon, A action dim.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ..chains.chain import kl_divergence
from ..policies.base import DenoisingPolicy
from ..regularizers.base import Step

Encode = Callable[[DenoisingPolicy, Tensor], Tensor]  # a policy's features of some decisions

KL_PAIRS = 256  # (decision, step) pairs on which the KL to the base is measured
TAIL_PAIRS = 64  # pairs of a minibatch whose tail is compared with the base's


class Anchor:
    """Policy and base of a run.

    Args:
        policy: that is trained.
        base: its frozen pretrained original. It is called on `TAIL_PAIRS` pairs of a minibatch where chunks
            have a tail, on all of them where some steps are not fine-tuned, and on `KL_PAIRS` an iteration.
        finetuned: K', number of final denoising steps that are trained.
        floor: smallest std in densities.
    """

    def __init__(self, policy: DenoisingPolicy, base: DenoisingPolicy, finetuned: int, floor: float) -> None:
        self.policy, self.base, self.finetuned, self.floor = policy, base, finetuned, floor
        numbers = torch.arange(policy.horizon * policy.action_dim).view(1, policy.horizon, policy.action_dim)
        cut = torch.ones(numbers.numel(), dtype=torch.bool)
        cut[policy.executed(numbers).flatten()] = False
        self.tail = cut.nonzero()[:, 0].to(policy.kernel.timesteps.device)

    def loss(self, x: Tensor, step: Step, encode: Encode) -> Tensor | None:
        """Squared difference of network outputs to the base, where the policy gradient says nothing: in the
        numbers of a chunk that are not executed, which another `n_action_steps` or real-time chunking would
        use, and at random steps that are not fine-tuned. None where there is neither.

        Args:
            x: (D, K+1, H, A) the sampled chains.
            step: a minibatch of the steps that are.
        """
        terms = []
        if len(self.tail):
            terms.append(self._tail_loss(step))
        if self.finetuned < self.policy.kernel.num_steps:
            terms.append(self._early_loss(x, encode, len(step.k)))
        return sum(terms[1:], terms[0]) if terms else None

    def _tail_loss(self, step: Step) -> Tensor:
        rows = slice(TAIL_PAIRS)
        timestep = self.base.kernel.timesteps[step.k[rows]]
        with torch.no_grad():
            target = self.base.predict(step.x[rows], timestep, step.base_condition[rows])
        return (step.prediction[rows] - target).flatten(1)[:, self.tail].square().mean()

    def _early_loss(self, x: Tensor, encode: Encode, count: int) -> Tensor:
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
