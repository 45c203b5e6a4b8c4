"""`rlft_commanded`: the policy inside, told a mode that is drawn when an episode begins."""

from typing import Any

import torch
from lerobot.utils.constants import OBS_PREFIX
from torch import Tensor

from ...utils.errors import UserError
from ..conditioning import LabelEmbedding
from ..wrapped.modeling_wrapped import WrappedPolicy
from .commands import MAX_MODES, UNCOMMANDED, draw_commands
from .configuration_rlft_commanded import RLFTCommandedConfig


class RLFTCommandedPolicy(WrappedPolicy):
    """See the config; its training loss is that of the policy inside, untold.

    Args:
        config: with the config of the policy inside.

    Raises:
        UserError: that policy's family cannot be commanded.
    """

    config_class = RLFTCommandedConfig
    name = "rlft_commanded"

    def __init__(self, config: RLFTCommandedConfig, **kwargs: Any) -> None:
        super().__init__(config)
        if self.family.condition_path is None:
            raise UserError(
                f"policy.type={config.policy.type} has no layer that could be told a command: hold modes "
                "otherwise (--algorithm.commands.enable=false)"
            )
        self.commands = LabelEmbedding(self.inner.get_submodule(self.family.condition_path), MAX_MODES)
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
        super().reset()
        self._command = None

    def _told(self, batch: dict[str, Tensor]) -> Any:
        count = len(next(value for key, value in batch.items() if key.startswith(OBS_PREFIX)))
        if self._command is None or len(self._command) != count:
            self._command = self.draw(count)
        return self.commands.given(self._command)

    @torch.no_grad()
    def select_action(self, batch: dict[str, Tensor], **kwargs: Any) -> Tensor:
        """The next action; what is commanded stays until `reset`."""
        with self._told(batch):
            return super().select_action(batch, **kwargs)

    @torch.no_grad()
    def predict_action_chunk(self, batch: dict[str, Tensor], **kwargs: Any) -> Tensor:
        with self._told(batch):
            return super().predict_action_chunk(batch, **kwargs)
