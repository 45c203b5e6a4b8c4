"""A LeRobot policy that holds another one and acts as it does."""

from typing import Any

from lerobot.policies.factory import get_policy_class
from lerobot.policies.pretrained import PreTrainedPolicy
from torch import Tensor

from .. import load_adapters
from ..base import DenoisingPolicy, adapter_class
from .configuration_wrapped import WrappedConfig


class WrappedPolicy(PreTrainedPolicy):
    """The policy inside, built from its config.

    Attributes:
        inner: that policy.
        family: its adapter class, which knows the layers of its network by name.
    """

    config_class = WrappedConfig
    name = "wrapped"

    def __init__(self, config: WrappedConfig, **kwargs: Any) -> None:
        super().__init__(config)
        load_adapters()
        inner = config.policy
        self.family: type[DenoisingPolicy] = adapter_class(inner.type)
        self.inner = get_policy_class(inner.type)(inner)

    def reset(self) -> None:
        self.inner.reset()

    def supports_rtc(self) -> bool:
        return self.inner.supports_rtc()

    def get_optim_params(self) -> Any:
        return self.inner.get_optim_params()

    def select_action(self, batch: dict[str, Tensor], **kwargs: Any) -> Tensor:
        return self.inner.select_action(batch, **kwargs)

    def predict_action_chunk(self, batch: dict[str, Tensor], **kwargs: Any) -> Tensor:
        return self.inner.predict_action_chunk(batch, **kwargs)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict | None]:
        """The loss of the policy inside."""
        return self.inner(batch)
