"""`rlft_commanded`: the policy inside, told a mode that is drawn when an episode begins."""

from typing import Any

import torch
from lerobot.policies.factory import get_policy_class
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.constants import OBS_PREFIX
from torch import Tensor

from ...commands import UNCOMMANDED, CommandEmbedding, draw_commands
from ...errors import UserError
from .. import load_adapters
from ..base import adapter_class
from .configuration_rlft_commanded import RLFTCommandedConfig


class RLFTCommandedPolicy(PreTrainedPolicy):
    """See the config.

    Args:
        config: with the config of the policy inside.

    Raises:
        UserError: that policy's family cannot be commanded.
    """

    config_class = RLFTCommandedConfig
    name = "rlft_commanded"

    def __init__(self, config: RLFTCommandedConfig, **kwargs: Any) -> None:
        super().__init__(config)
        load_adapters()
        inner = config.policy
        path = adapter_class(inner.type).condition_path
        if path is None:
            raise UserError(
                f"policy.type={inner.type} has no layer that could be told a command: hold modes "
                "otherwise (--algorithm.commands.enable=false)"
            )
        self.inner = get_policy_class(inner.type)(inner)
        self.commands = CommandEmbedding(self.inner.get_submodule(path))
        self._command: Tensor | None = None

    def draw(self, count: int, practice: float = 0.0) -> Tensor:
        """Commands for as many episodes, (count,) long, see `draw_commands`."""
        config, device = self.config, self.commands.weight.device
        if not config.shares:
            return torch.full((count,), UNCOMMANDED, device=device)
        if config.mode is not None:
            return torch.full((count,), config.mode, device=device)
        return draw_commands(torch.tensor(config.shares, device=device), count, practice)

    def reset(self) -> None:
        self.inner.reset()
        self._command = None

    def _told(self, batch: dict[str, Tensor]) -> Any:
        count = len(next(value for key, value in batch.items() if key.startswith(OBS_PREFIX)))
        if self._command is None or len(self._command) != count:
            self._command = self.draw(count)
        return self.commands.given(self._command)

    def get_optim_params(self) -> Any:
        return self.parameters()

    def supports_rtc(self) -> bool:
        return self.inner.supports_rtc()

    @torch.no_grad()
    def select_action(self, batch: dict[str, Tensor], **kwargs: Any) -> Tensor:
        """The next action; what is commanded stays until `reset`."""
        with self._told(batch):
            return self.inner.select_action(batch, **kwargs)

    @torch.no_grad()
    def predict_action_chunk(self, batch: dict[str, Tensor], **kwargs: Any) -> Tensor:
        with self._told(batch):
            return self.inner.predict_action_chunk(batch, **kwargs)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict | None]:
        """The loss of the policy inside, untold."""
        return self.inner(batch)
