"""Networks beside the policy, on its own condition vector. Plain torch."""

import itertools

from torch import Tensor, nn


class MLP(nn.Module):
    """The critic of DPPO: Mish layers, no denoising step among the inputs (arXiv:2409.00588, section 4.2).

    Args:
        input_dim: size of the flattened condition.
        hidden_dims: widths of the hidden layers.
        output_dim: O.
    """

    def __init__(
        self, input_dim: int, hidden_dims: tuple[int, ...] = (256, 256, 256), output_dim: int = 1
    ) -> None:
        super().__init__()
        dims = (input_dim, *hidden_dims)
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise(dims):
            layers += [nn.Linear(a, b), nn.Mish()]
        self.net = nn.Sequential(*layers, nn.Linear(dims[-1], output_dim))

    def forward(self, condition: Tensor) -> Tensor:
        """(B, ...) -> (B, O)"""
        return self.net(condition.flatten(1))


class ValueMLP(MLP):
    """V(condition)."""

    def forward(self, condition: Tensor) -> Tensor:
        """(B, ...) -> (B,)"""
        return super().forward(condition)[:, 0]


def explained_variance(value: Tensor, target: Tensor) -> float:
    """1 - Var(target - value) / Var(target); 0 when the target is constant."""
    variance = target.var(unbiased=False)
    return float(1 - (target - value).var(unbiased=False) / variance) if variance > 1e-12 else 0.0
