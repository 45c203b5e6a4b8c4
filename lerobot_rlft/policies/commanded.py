"""Adapter for `rlft_commanded`: that of the policy inside, its network told the command at every call."""

import copy
from pathlib import Path
from typing import Any

import draccus
import torch
from lerobot.configs import PreTrainedConfig
from torch import Tensor, nn
from torch.distributions import Normal

from ..commands import COMMAND, MAX_MODES, UNCOMMANDED
from .base import DenoisingPolicy, adapter_class, register
from .rlft_commanded.configuration_rlft_commanded import RLFTCommandedConfig

COMMANDED = "rlft_commanded"


@register(COMMANDED)
class CommandedAdapter(DenoisingPolicy):
    """See `rlft_commanded.modeling_rlft_commanded`.

    The command is one of the observations, `COMMAND`, and the last number of the condition. Where it is
    missing nothing is commanded: who plays episodes draws commands with `draw`.

    Args:
        policy: an `RLFTCommandedPolicy`.
        preprocessor, postprocessor, exploration: as the adapter of the policy inside wants them.
    """

    practice = 0.0  # see `commands.CommandConfig`; of a policy in training

    def __init__(self, policy: Any, preprocessor: Any, postprocessor: Any, exploration: Any) -> None:
        self.module = policy.eval()
        family = adapter_class(policy.config.policy.type)
        self._wrap(family(policy.inner, preprocessor, postprocessor, exploration))

    def _wrap(self, inner: DenoisingPolicy) -> None:
        self.inner, self.kernel, self.noise_head = inner, inner.kernel, inner.noise_head
        self.reads_language, self.guided = inner.reads_language, inner.guided
        self.trains_encoder, self.optional_inputs = inner.trains_encoder, inner.optional_inputs
        self.ratio_tolerance = inner.ratio_tolerance
        self.n_obs_steps, self.horizon = inner.n_obs_steps, inner.horizon
        self.n_action_steps, self.action_dim = inner.n_action_steps, inner.action_dim

    @property
    def task(self) -> str:  # type: ignore[override]
        return self.inner.task

    @task.setter
    def task(self, value: str) -> None:
        self.inner.task = value

    @property
    def preprocessor(self) -> Any:
        return self.inner.preprocessor

    @property
    def shares(self) -> list[float]:
        """Probability of each mode, empty as long as nothing is commanded."""
        return self.module.config.shares

    def command(self, shares: list[float]) -> None:
        self.module.config.shares = shares

    def draw(self, count: int, deployed: bool = True) -> Tensor | None:
        if not self.shares:
            return None
        return self.module.draw(count, 0.0 if deployed else self.practice)

    def encode(self, obs: dict[str, Tensor]) -> Tensor:
        condition = self.inner.encode({key: value for key, value in obs.items() if key != COMMAND})
        command = obs.get(COMMAND, condition.new_full((len(condition), 1), UNCOMMANDED))
        return torch.cat([condition, command.to(condition)], 1)

    def predict(self, x: Tensor, timestep: Tensor, condition: Tensor) -> Tensor:
        with self.module.commands.given(condition[:, -1].long()):
            return self.inner.predict(x, timestep, condition[:, :-1])

    def normal(self, x: Tensor, k: Tensor, condition: Tensor, prediction: Tensor) -> Normal:
        return self.inner.normal(x, k, condition[:, :-1], prediction)

    def executed(self, x: Tensor) -> Tensor:
        return self.inner.executed(x)

    @torch.no_grad()
    def deployed_chunk(self, condition: Tensor) -> Tensor:
        with self.module.commands.given(condition[:, -1].long()):
            return self.inner.deployed_chunk(condition[:, :-1])

    def to_action(self, chunk: Tensor) -> Tensor:
        return self.inner.to_action(chunk)

    @property
    def encoder(self) -> nn.Module | None:
        return self.inner.encoder

    @property
    def feature_dim(self) -> int:
        return self.inner.feature_dim + MAX_MODES

    def features(self, condition: Tensor) -> Tensor:
        return self._with_command(self.inner.features(condition[:, :-1]), condition)

    @property
    def expert_dim(self) -> int:
        return self.inner.expert_dim + MAX_MODES

    def expert_features(self, condition: Tensor) -> Tensor:
        with self.module.commands.given(condition[:, -1].long()):
            return self._with_command(self.inner.expert_features(condition[:, :-1]), condition)

    def _with_command(self, features: Tensor, condition: Tensor) -> Tensor:
        one_hot = condition[:, -1:].long() == torch.arange(MAX_MODES, device=condition.device)
        return torch.cat([features, one_hot.to(features)], 1)

    def copy_encoder(self) -> "CommandedAdapter":
        twin = copy.copy(self)
        twin._wrap(self.inner.copy_encoder())
        return twin

    def frozen_copy(self) -> "CommandedAdapter":
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


def commanded(policy: DenoisingPolicy, exploration: Any) -> CommandedAdapter:
    """The policy, ready to be commanded; as long as it is not, it acts as before. One that is stays as it is.

    Args:
        exploration: as `policy` was made with.

    Raises:
        UserError: the family cannot be commanded.
    """
    if isinstance(policy, CommandedAdapter):
        return policy
    from .rlft_commanded.modeling_rlft_commanded import RLFTCommandedPolicy  # which imports the adapters

    inner = policy.module.config
    config = RLFTCommandedConfig(
        inner=draccus.encode(inner, PreTrainedConfig), device=inner.device, push_to_hub=False
    )
    module = RLFTCommandedPolicy(config).to(inner.device)
    module.inner.load_state_dict(policy.module.state_dict())
    return CommandedAdapter(module, policy.preprocessor, policy.postprocessor, exploration)
