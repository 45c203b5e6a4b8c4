"""Base of the adapters of policy types that hold another policy: they ask the adapter of that policy."""

import copy
from pathlib import Path
from typing import Any

import draccus
from lerobot.configs import PreTrainedConfig
from torch import Tensor, nn
from torch.distributions import Normal

from ..base import DenoisingPolicy, adapter_class


class WrappingAdapter(DenoisingPolicy):
    """Acts as the policy inside.

    Args:
        policy: has that policy as `inner` and a `WrappedConfig`.
        preprocessor, postprocessor, exploration: as the adapter of the policy inside wants them.
    """

    inner: DenoisingPolicy

    def __init__(self, policy: Any, preprocessor: Any, postprocessor: Any, exploration: Any) -> None:
        self.module = policy.eval()
        family = adapter_class(policy.config.policy.type)
        self._wrap(family(policy.inner, preprocessor, postprocessor, exploration))

    def _wrap(self, inner: DenoisingPolicy) -> None:
        self.inner, self.kernel, self.noise_head = inner, inner.kernel, inner.noise_head
        self.preprocessor, self.postprocessor = inner.preprocessor, inner.postprocessor
        self.reads_language, self.guided = inner.reads_language, inner.guided
        self.trains_encoder, self.optional_inputs = inner.trains_encoder, inner.optional_inputs
        self.encode_batch, self.ratio_tolerance = inner.encode_batch, inner.ratio_tolerance
        self.n_obs_steps, self.horizon = inner.n_obs_steps, inner.horizon
        self.n_action_steps, self.action_dim = inner.n_action_steps, inner.action_dim

    @property
    def task(self) -> str | tuple[str, ...]:  # type: ignore[override]
        return self.inner.task

    @task.setter
    def task(self, value: str | tuple[str, ...]) -> None:
        self.inner.task = value

    def encode(self, obs: dict[str, Tensor]) -> Tensor:
        return self.inner.encode(obs)

    def example_condition(self, batch: int) -> Tensor:
        return self.inner.example_condition(batch)

    def predict(self, x: Tensor, timestep: Tensor, condition: Tensor) -> Tensor:
        return self.inner.predict(x, timestep, condition)

    def normal(self, x: Tensor, k: Tensor, condition: Tensor, prediction: Tensor) -> Normal:
        return self.inner.normal(x, k, condition, prediction)

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

    def features(self, condition: Tensor) -> Tensor:
        return self.inner.features(condition)

    @property
    def expert_dim(self) -> int:
        return self.inner.expert_dim

    def expert_features(self, condition: Tensor) -> Tensor:
        return self.inner.expert_features(condition)

    def copy_encoder(self) -> "WrappingAdapter":
        twin = copy.copy(self)
        twin._wrap(self.inner.copy_encoder())
        return twin

    def frozen_copy(self) -> "WrappingAdapter":
        twin = super().frozen_copy()
        inner = copy.copy(self.inner)
        inner.module, inner.noise_head = twin.module.inner, twin.noise_head
        twin._wrap(inner)
        return twin

    def idle_parameters(self) -> Any:
        return self.inner.idle_parameters()

    def save_pretrained(self, folder: Path) -> None:
        self.inner.save_pretrained(folder)  # the processors, and what the family makes of its config
        self.module.config.inner = draccus.encode(self.module.config.policy, PreTrainedConfig)
        self.module.save_pretrained(folder)
