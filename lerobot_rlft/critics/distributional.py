"""A value as a distribution over bins (arXiv:2511.14759, section IV-B; two-hot targets). Plain torch."""

import torch
from torch import Tensor, nn

from .networks import MLP

NUM_BINS, LOWEST, HIGHEST = 201, -1.0, 0.0


def bins(device: torch.device | str = "cpu") -> Tensor:
    """Centres (201,) of the bins, evenly spaced on [-1, 0]."""
    return torch.linspace(LOWEST, HIGHEST, NUM_BINS, device=device)


def two_hot(value: Tensor) -> Tensor:
    """Distributions (B, 201) on the two bins around each value (B,) that have the value as their mean."""
    place = (value.clamp(LOWEST, HIGHEST) - LOWEST) / (HIGHEST - LOWEST) * (NUM_BINS - 1)
    below = place.floor().clamp(max=NUM_BINS - 2).long()
    above = place - below
    out = torch.zeros(len(value), NUM_BINS, device=value.device)
    rows = torch.arange(len(value), device=value.device)
    out[rows, below], out[rows, below + 1] = 1 - above, above
    return out


class DistributionalValue(nn.Module):
    """V of a vector of features: a categorical over 201 bins.

    Args:
        input_dim: C.
        hidden_dims: widths of the hidden layers.
    """

    def __init__(self, input_dim: int, hidden_dims: tuple[int, ...] = (256, 256)) -> None:
        super().__init__()
        self.net = MLP(input_dim, hidden_dims, NUM_BINS)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C) -> the mean of the distribution, (B,)."""
        return self.net(features).softmax(1) @ bins(features.device)

    def loss(self, features: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy to the two-hot distribution of `target` (B,), a scalar."""
        return nn.functional.cross_entropy(self.net(features), two_hot(target))
