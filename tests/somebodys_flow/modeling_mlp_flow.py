"""Time runs from 0, noise, to 1, data; the velocity is data - noise."""

from itertools import pairwise

import torch
from lerobot.policies.pretrained import PreTrainedPolicy
from torch import nn

from .configuration_mlp_flow import MLPFlowConfig


class MLPFlowPolicy(PreTrainedPolicy):
    config_class = MLPFlowConfig
    name = "mlp_flow"

    def __init__(self, config: MLPFlowConfig, **kwargs) -> None:
        super().__init__(config)
        self.shape = (config.chunk_size, config.action_feature.shape[0])
        size = self.shape[0] * self.shape[1]
        inputs = config.robot_state_feature.shape[0] + size + 1
        self.net = nn.Sequential(nn.Linear(inputs, config.width), nn.SiLU(), nn.Linear(config.width, size))
        self.chunk = []

    def velocity(self, state, x, t):
        return self.net(torch.cat([state, x.flatten(1), t[:, None]], 1)).view_as(x)

    @torch.no_grad()
    def sample(self, state):
        x = torch.randn(len(state), *self.shape, device=state.device)
        grid = torch.linspace(0, 1, self.config.num_steps + 1)
        for t, after in pairwise(grid):
            x = x + (after - t) * self.velocity(state, x, t.expand(len(state)))
        return x

    def get_optim_params(self):
        return self.parameters()

    def forward(self, batch):
        action, t = batch["action"], torch.rand(len(batch["action"]))
        noise, share = torch.randn_like(action), t[:, None, None]
        x = share * action + (1 - share) * noise
        return (self.velocity(batch["observation.state"], x, t) - (action - noise)).square().mean(), None

    def reset(self):
        self.chunk = []

    def predict_action_chunk(self, batch):
        return self.sample(batch["observation.state"])[:, : self.config.n_action_steps]

    def select_action(self, batch):
        self.chunk = self.chunk or list(self.predict_action_chunk(batch).unbind(1))
        return self.chunk.pop(0)
