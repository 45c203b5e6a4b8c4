"""KL divergence of a policy's denoising chain from the base's.

Shapes: B batch, K denoising steps, H horizon, D action dim.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Normal

from ..chains.chain import kl_divergence

Transition = Callable[[Tensor, Tensor], Normal]


def chain_kl(
    sampler: Transition,
    other: Transition,
    chains: Tensor,
    executed: Callable[[Tensor], Tensor],
    floor: float,
) -> Tensor:
    """Mean over `chain_kl_rows`, nats of each denoising step, (K,); its sum is the KL of whole chains."""
    return chain_kl_rows(sampler, other, chains, executed, floor).mean(0)


@torch.no_grad()
def chain_kl_rows(
    sampler: Transition,
    other: Transition,
    chains: Tensor,
    executed: Callable[[Tensor], Tensor],
    floor: float,
) -> Tensor:
    """KL(sampler || other) of each chain and denoising step in nats, (B, K).

    Reverse: sampler = tuned policy on its own chains, blind to dropped modes. Forward: sampler = base on base
    chains, where a dropped mode shows. Swapping p and q on the same chains is no substitute: with equal stds
    it changes nothing.

    Args:
        sampler: (x (B, H, D), k (B,)) -> Normal over the next state, the one that drew `chains`.
        other: the same, compared with it at the same observations.
        chains: (B, K+1, H, D), see `Chain.x`.
        executed: cuts (B, H, ...) to the part of the chunk that is sent.
        floor: smallest std, > 0.

    Raises:
        ValueError: not the shape of chains, NaN.
    """
    if chains.ndim != 4 or chains.shape[0] == 0 or chains.shape[1] < 2:
        raise ValueError(
            f"chains has shape {tuple(chains.shape)}: give (B, K+1, H, D) with B >= 1 and K >= 1"
        )
    if not chains.isfinite().all():
        raise ValueError("chains holds NaN or infinity: drop those chains")
    steps = []
    for k in range(chains.shape[1] - 1):
        x, step = chains[:, k + 1], torch.full((len(chains),), k, device=chains.device)
        steps.append(kl_divergence(sampler(x, step), other(x, step), executed, floor))
    return torch.stack(steps, 1)
