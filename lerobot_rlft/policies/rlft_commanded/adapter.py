"""Adapter for `rlft_commanded`: that of the policy inside, its network told the command at every call."""

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Normal

from ..base import DenoisingPolicy, register
from ..wrapped.adapter import WrappingAdapter
from .commands import COMMAND, MAX_MODES, deployed_odds
from .configuration_rlft_commanded import RLFTCommandedConfig

COMMANDED = "rlft_commanded"


@register(COMMANDED)
class CommandedAdapter(WrappingAdapter):
    """See `rlft_commanded.modeling_rlft_commanded`.

    The command is one of the observations, `COMMAND`, and the last number of the condition. Who plays
    episodes draws commands with `draw` and keeps them; where the observation is missing one is drawn.
    """

    practice = 0.0  # see `commands.CommandConfig`; of a policy in training

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

    def deployed_odds(self) -> Tensor | None:
        if not self.shares or self.module.config.mode is not None:  # a fixed one is drawn in training, too
            return None
        return deployed_odds(torch.tensor(self.shares), self.practice)

    def encode(self, obs: dict[str, Tensor]) -> Tensor:
        condition = self.inner.encode({key: value for key, value in obs.items() if key != COMMAND})
        # Drawn only where none is given: what is merely looked at must not move the random state.
        command = obs[COMMAND] if COMMAND in obs else self.module.draw(len(condition))[:, None]
        return torch.cat([condition, command.to(condition)], 1)

    def example_condition(self, batch: int) -> Tensor:
        condition = self.inner.example_condition(batch)
        return torch.cat([condition, condition.new_zeros(batch, 1)], 1)

    def predict(self, x: Tensor, timestep: Tensor, condition: Tensor) -> Tensor:
        with self.module.commands.given(condition[:, -1].long()):
            return self.inner.predict(x, timestep, condition[:, :-1])

    def normal(self, x: Tensor, k: Tensor, condition: Tensor, prediction: Tensor) -> Normal:
        return self.inner.normal(x, k, condition[:, :-1], prediction)

    @torch.no_grad()
    def deployed_chunk(self, condition: Tensor) -> Tensor:
        with self.module.commands.given(condition[:, -1].long()):
            return self.inner.deployed_chunk(condition[:, :-1])

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


def commanded(policy: DenoisingPolicy, exploration: Any) -> CommandedAdapter:
    """The policy, ready to be commanded; as long as it is not, it acts as before. One that is stays as it is.

    Args:
        exploration: as `policy` was made with.

    Raises:
        UserError: the family cannot be commanded.
    """
    if isinstance(policy, CommandedAdapter):
        return policy
    from .modeling_rlft_commanded import RLFTCommandedPolicy  # which imports the adapters

    config = RLFTCommandedConfig.around(policy.module.config)
    module = RLFTCommandedPolicy(config).to(config.device)
    module.inner.load_state_dict(policy.module.state_dict())
    adapter = CommandedAdapter(module, policy.preprocessor, policy.postprocessor, exploration)
    adapter.task = policy.task
    return adapter
