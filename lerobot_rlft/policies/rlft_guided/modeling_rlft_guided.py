"""`rlft_guided`: the policy inside, its network asked told and untold in one call for each denoising step."""

from typing import Any

import torch
from torch import Tensor, nn

from ...utils.errors import UserError
from ..conditioning import POSITIVE, UNKNOWN, AdvantageEmbedding
from ..wrapped.modeling_wrapped import WrappedPolicy
from .configuration_rlft_guided import RLFTGuidedConfig


class RLFTGuidedPolicy(WrappedPolicy):
    """See the config.

    Args:
        config: with the config of the policy inside.

    Raises:
        UserError: that policy's family cannot be guided.
    """

    config_class = RLFTGuidedConfig
    name = "rlft_guided"

    def __init__(self, config: RLFTGuidedConfig, **kwargs: Any) -> None:
        super().__init__(config)
        if self.family.network_path is None or self.family.condition_path is None:
            raise UserError(
                f"policy.type={config.policy.type} cannot be guided: refit it with "
                "algorithm.guidance_weight=1"
            )
        self.embedding = AdvantageEmbedding(self.inner.get_submodule(self.family.condition_path))
        network = self.inner.get_submodule(self.family.network_path)
        network.register_forward_pre_hook(self._ask, with_kwargs=True)
        network.register_forward_hook(self._combine)

    def _ask(self, _network: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        if self.config.guidance_weight == 1:
            self.embedding.labels = POSITIVE
            return args, kwargs
        batch = len(args[0])

        def twice(value: Any) -> Any:
            per_sample = isinstance(value, Tensor) and value.ndim > 0 and len(value) == batch
            return torch.cat([value, value]) if per_sample else value

        labels = torch.full((batch,), POSITIVE, device=args[0].device)
        self.embedding.labels = torch.cat([labels, torch.full_like(labels, UNKNOWN)])
        return tuple(map(twice, args)), {key: twice(value) for key, value in kwargs.items()}

    def _combine(self, _network: nn.Module, _args: Any, output: Tensor) -> Tensor:
        self.embedding.labels = None
        if self.config.guidance_weight == 1:
            return output
        positive, unknown = output.chunk(2)
        return unknown + self.config.guidance_weight * (positive - unknown)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict | None]:
        raise NotImplementedError(
            "a guided policy has no training loss: refit the policy it came from (--algorithm.type=recap)"
        )
