"""Adapter for LeRobot's `pi05` policy (arXiv:2504.16054)."""

import torch
from torch import Tensor

from .base import register
from .pi0 import PI0Adapter, _layers
from .prefix import Prefix


@register("pi05")
class PI05Adapter(PI0Adapter):
    """Like pi0, but the state is part of the prompt, as numbers from 0 to 255 in its text."""

    condition_path = "model.time_mlp_out"

    def _state_dim(self) -> int:
        return 0

    def _state(self, batch: dict[str, Tensor]) -> Tensor:
        return torch.empty(len(next(iter(batch.values()))), 0, device=self.module.config.device)

    def _velocity(self, prefix: Prefix, x: Tensor, timestep: Tensor) -> Tensor:
        return self.module.model.denoise_step(prefix.mask, _layers(prefix), x, timestep)
