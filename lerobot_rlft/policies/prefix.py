"""The prefix of a vision-language-action policy as one tensor, so that algorithms can store it and take rows.

The vision-language model reads images, language and state once for each decision; the action expert only
needs its keys and values. Shapes: B batch, S prefix tokens, L layers, G key-value heads, A head size, E state
dim, W width of the vision-language model. Plain torch.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

Cache = list[tuple[Tensor, Tensor]]  # keys and values (B, G, S, A) of each layer


@dataclass(frozen=True)
class PrefixShape:
    """Data that undoes `Prefix.flatten`; S follows from the length.

    Attributes:
        state_dim: E, 0 where the state is among the tokens.
        width: W.
        layers, heads, head_dim: L, G, A.
    """

    state_dim: int
    width: int
    layers: int
    heads: int
    head_dim: int

    @property
    def token_size(self) -> int:
        """Numbers kept for a token: its keys and values, and whether it is one."""
        return 2 * self.layers * self.heads * self.head_dim + 1


@dataclass
class Prefix:
    """A read prefix.

    Attributes:
        state: (B, E) float32, what the expert reads beside the cache.
        summary: (B, W) mean of the model's last hidden states over the real tokens.
        mask: (B, S) bool, False where a token is padding.
        cache: of all layers.
    """

    state: Tensor
    summary: Tensor
    mask: Tensor
    cache: Cache

    def flatten(self) -> Tensor:
        """(B, C) in the cache's dtype: state, summary, mask, then keys and values layer by layer."""
        dtype = self.cache[0][0].dtype
        layers = [part.flatten(1) for keys_values in self.cache for part in keys_values]
        return torch.cat([split(self.state, dtype), self.summary.to(dtype), self.mask.to(dtype), *layers], 1)

    @classmethod
    def unflatten(cls, condition: Tensor, shape: PrefixShape) -> "Prefix":
        """Inverse of `flatten`; keys and values are views of `condition` (B, C)."""
        states = split_parts(condition.dtype) * shape.state_dim
        rest = condition.shape[1] - states - shape.width
        tokens = rest // shape.token_size
        sizes = [states, shape.width, tokens, rest - tokens]
        state, summary, mask, layers = condition.split(sizes, 1)
        cache = layers.view(-1, shape.layers, 2, shape.heads, tokens, shape.head_dim)
        return cls(
            join(state, shape.state_dim),
            summary,
            mask > 0.5,
            [(keys_values[:, 0], keys_values[:, 1]) for keys_values in cache.unbind(1)],
        )


def masked_mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """Mean of hidden (B, S, W) over the tokens where mask (B, S) is True, (B, W)."""
    weight = mask.to(hidden.dtype)
    return (hidden * weight[..., None]).sum(1) / weight.sum(1, keepdim=True)


def split_parts(dtype: torch.dtype) -> int:
    """Count of numbers of `dtype` that hold a float32: bfloat16 keeps 8 of its 24 significant bits."""
    return 3 if dtype == torch.bfloat16 else 1


def split(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Float32 x (B, E) as numbers of `dtype` that add up to it exactly, (B, n E)."""
    parts = []
    for _ in range(split_parts(dtype)):
        parts.append(x.to(dtype))
        x = x - parts[-1].float()
    return torch.cat(parts, 1)


def join(parts: Tensor, size: int) -> Tensor:
    """Inverse of `split`, (B, size) float32."""
    return parts.float().view(len(parts), -1, size).sum(1) if size else parts.float()
