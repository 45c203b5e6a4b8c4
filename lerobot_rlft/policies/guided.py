"""Adapter for `rlft_guided`: that of the policy inside, whose network is guided wherever it is called."""

import copy
from pathlib import Path
from typing import Any

import draccus
from lerobot.configs import PreTrainedConfig
from torch import Tensor, nn

from ..conditioning import AdvantageEmbedding
from .base import DenoisingPolicy, Exploration, adapter_class, register
from .rlft_guided.configuration_rlft_guided import RLFTGuidedConfig


@register("rlft_guided")
class GuidedAdapter(DenoisingPolicy):
    """See `rlft_guided.modeling_rlft_guided`.

    Args:
        policy: an `RLFTGuidedPolicy`.
        preprocessor, postprocessor, exploration: as the adapter of the policy inside wants them.
    """

    def __init__(self, policy: Any, preprocessor: Any, postprocessor: Any, exploration: Any) -> None:
        self.preprocessor, self.postprocessor = preprocessor, postprocessor
        self.module, self.exploration = policy.eval(), exploration
        self._wrap()

    def _wrap(self) -> None:
        family = adapter_class(self.module.config.policy.type)
        inner = family(self.module.inner, self.preprocessor, self.postprocessor, self.exploration)
        self.inner, self.kernel = inner, inner.kernel
        self.n_obs_steps, self.horizon = inner.n_obs_steps, inner.horizon
        self.n_action_steps, self.action_dim = inner.n_action_steps, inner.action_dim

    def encode(self, obs: dict[str, Tensor]) -> Tensor:
        return self.inner.encode(obs)

    def predict(self, x: Tensor, timestep: Tensor, condition: Tensor) -> Tensor:
        return self.inner.predict(x, timestep, condition)

    def executed(self, x: Tensor) -> Tensor:
        return self.inner.executed(x)

    def deployed_chunk(self, condition: Tensor) -> Tensor:
        return self.inner.deployed_chunk(condition)

    def to_action(self, chunk: Tensor) -> Tensor:
        return self.inner.to_action(chunk)

    @property
    def encoder(self) -> nn.Module | None:
        return self.inner.encoder

    @property
    def feature_dim(self) -> int:
        return self.inner.feature_dim

    def copy_encoder(self) -> DenoisingPolicy:
        return self.inner.copy_encoder()

    def frozen_copy(self) -> "GuidedAdapter":
        twin = copy.copy(self)
        twin.module = copy.deepcopy(self.module).requires_grad_(False)
        twin._wrap()
        return twin

    def save_pretrained(self, folder: Path) -> None:
        self.inner.save_pretrained(folder)  # the processors, and what the family makes of its config
        self.module.config.inner = draccus.encode(self.module.config.policy, PreTrainedConfig)
        self.module.save_pretrained(folder)


def guided(policy: DenoisingPolicy, embedding: AdvantageEmbedding, weight: float) -> GuidedAdapter:
    """A conditioned policy, as it is now, under guidance.

    Args:
        embedding: of its `condition_layer`.
        weight: see `RLFTGuidedConfig.guidance_weight`.

    Raises:
        UserError: the family cannot be guided.
    """
    from .rlft_guided.modeling_rlft_guided import RLFTGuidedPolicy  # which imports the adapters

    inner = policy.module.config
    config = RLFTGuidedConfig(
        inner=draccus.encode(inner, PreTrainedConfig),
        guidance_weight=weight,
        device=inner.device,
        push_to_hub=False,
    )
    module = RLFTGuidedPolicy(config)
    module.inner.load_state_dict(policy.module.state_dict())
    module.embedding.load_state_dict(embedding.state_dict())
    return GuidedAdapter(module.to(inner.device), policy.preprocessor, policy.postprocessor, Exploration())
