"""Base of policies whose expert reads the hidden states of the vision-language model, no keys and values.

The tokens are kept as one tensor, so that algorithms can store it and take rows. Shapes: B batch, S tokens, W
width of a token, M marks of a token, E state dim.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .prefix import join, split, split_parts
from .prompt import prompt_inputs
from .vla import VLAAdapter


@dataclass(frozen=True)
class TokensShape:
    """Data that undoes `Tokens.flatten`; S follows from the length.

    Attributes:
        state_dim: E.
        width: W.
        marks: M.
    """

    state_dim: int
    width: int
    marks: int = 0


@dataclass
class Tokens:
    """What an expert reads.

    Attributes:
        state: (B, E) float32, everything beside the tokens.
        hidden: (B, S, W).
        marks: (B, S, M) bool, for example which tokens are padding; None where M is 0.
    """

    state: Tensor
    hidden: Tensor
    marks: Tensor | None = None

    def flatten(self) -> Tensor:
        """(B, C) in the dtype of the tokens: state, then each token with its marks."""
        dtype = self.hidden.dtype
        tokens = self.hidden if self.marks is None else torch.cat([self.hidden, self.marks.to(dtype)], 2)
        return torch.cat([split(self.state, dtype), tokens.flatten(1)], 1)

    @classmethod
    def unflatten(cls, condition: Tensor, shape: TokensShape) -> "Tokens":
        """Inverse of `flatten`; tokens are views of `condition` (B, C)."""
        states = split_parts(condition.dtype) * shape.state_dim
        state, rest = condition[:, :states], condition[:, states:]
        hidden, marks = rest.unflatten(1, (-1, shape.width + shape.marks)).split(
            [shape.width, shape.marks], 2
        )
        return cls(join(state, shape.state_dim), hidden, marks > 0.5 if shape.marks else None)


class TokensAdapter(VLAAdapter):
    """Critics read the mean token and the state."""

    shape: TokensShape

    @abstractmethod
    def _read(self, batch: dict[str, Any]) -> Tokens:  # type: ignore[override]
        """Run the vision-language model on a normalised batch, as the policy's own sampler does."""

    @abstractmethod
    def _velocity(self, tokens: Tokens, x: Tensor, timestep: Tensor) -> Tensor:  # type: ignore[override]
        """The expert's output (B, H, D) for chunks x (B, H, D)."""

    def _inputs(self, obs: dict[str, Tensor]) -> dict[str, Any]:
        return prompt_inputs(obs, self.preprocessor, self.task)

    def predict(self, x: Tensor, timestep: Tensor, condition: Tensor) -> Tensor:
        return self._velocity(Tokens.unflatten(condition, self.shape), x, timestep)

    @property
    def feature_dim(self) -> int:
        return self.shape.width + self.shape.state_dim

    def features(self, condition: Tensor) -> Tensor:
        tokens = Tokens.unflatten(condition, self.shape)
        return torch.cat([tokens.hidden.float().mean(1), tokens.state], 1)
