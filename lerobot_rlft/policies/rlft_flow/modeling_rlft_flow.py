"""`rlft_flow`: flow matching (arXiv:2210.02747) of action chunks, in the time of openpi.

t = 1 is noise and t = 0 data, x_t = (1 - t) a + t n, and the network says the velocity n - a.
Shapes: B batch, S observation steps, H horizon, D action dim, C condition.
"""

from collections import deque

import torch
from lerobot.policies.common.flow_matching import euler_integrate
from lerobot.policies.diffusion.modeling_diffusion import DiffusionConditionalUnet1d
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.policies.utils import populate_queues
from lerobot.utils.constants import ACTION
from torch import Tensor
from torch.nn.functional import mse_loss

from .configuration_rlft_flow import RLFTFlowConfig

TIME_SCALE = 100.0  # the U-Net's embedding is made for steps of up to some hundreds


class RLFTFlowPolicy(PreTrainedPolicy):
    """See the module."""

    config_class = RLFTFlowConfig
    name = "rlft_flow"

    def __init__(self, config: RLFTFlowConfig, **kwargs) -> None:
        super().__init__(config)
        config.validate_features()
        self.config = config
        self.unet = DiffusionConditionalUnet1d(config, config.condition_dim)
        self.reset()

    def get_optim_params(self):
        return self.parameters()

    def reset(self) -> None:
        self._queues = {key: deque(maxlen=self.config.n_obs_steps) for key in self.config.observation_keys}
        self._queues[ACTION] = deque(maxlen=self.config.n_action_steps)

    def condition(self, batch: dict[str, Tensor]) -> Tensor:
        """Normalised observations, each (B, S, ...) -> (B, C)."""
        return torch.cat([batch[key] for key in self.config.observation_keys], -1).flatten(1)

    def velocity(self, x: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """(B, H, D), (B,), (B, C) -> (B, H, D)"""
        return self.unet(x, TIME_SCALE * time, global_cond=condition)

    @torch.no_grad()
    def sample(self, condition: Tensor, noise: Tensor | None = None) -> Tensor:
        """Whole chunks (B, H, D); `noise`, if given, is where they start."""
        if noise is None:
            shape = (len(condition), self.config.horizon, self.config.action_feature.shape[0])
            noise = torch.randn(shape, device=condition.device)
        return euler_integrate(
            lambda x, time: self.velocity(x, time, condition), noise, self.config.num_inference_steps
        )

    def executed(self, chunk: Tensor) -> Tensor:
        """The part of a chunk (B, H, ...) from the current observation on, (B, n_action_steps, ...)."""
        start = self.config.n_obs_steps - 1
        return chunk[:, start : start + self.config.n_action_steps]

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, None]:
        """Squared error of the velocity, t uniform."""
        action = batch[ACTION]
        noise, time = torch.randn_like(action), torch.rand(len(action), device=action.device)
        t = time[:, None, None]
        velocity = self.velocity((1 - t) * action + t * noise, time, self.condition(batch))
        return mse_loss(velocity, noise - action), None

    @torch.no_grad()
    def predict_action_chunk(self, batch: dict[str, Tensor], noise: Tensor | None = None) -> Tensor:
        """Executed actions for observations (B, S, ...), or (B, ...) of one step."""
        obs = {key: batch[key] for key in self.config.observation_keys}
        obs = {key: value[:, None] if value.ndim == 2 else value for key, value in obs.items()}
        return self.executed(self.sample(self.condition(obs), noise))

    @torch.no_grad()
    def select_action(self, batch: dict[str, Tensor], noise: Tensor | None = None) -> Tensor:
        """The next action (B, D); a new chunk is drawn when the last one is used up."""
        obs = {key: batch[key] for key in self.config.observation_keys}
        self._queues = populate_queues(self._queues, obs)
        if not self._queues[ACTION]:
            history = {key: torch.stack(list(self._queues[key]), 1) for key in obs}
            self._queues[ACTION].extend(self.predict_action_chunk(history, noise).transpose(0, 1))
        return self._queues[ACTION].popleft()
