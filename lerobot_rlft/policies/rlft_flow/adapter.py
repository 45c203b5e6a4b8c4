"""Adapter for our own `rlft_flow` policy: flow matching on state vectors."""

import torch
from lerobot.processor import PolicyProcessorPipeline
from torch import Tensor

from ..base import DenoisingPolicy, Exploration, register
from ..processing import normalise_observations
from .modeling_rlft_flow import RLFTFlowPolicy


@register("rlft_flow")
class RLFTFlowAdapter(DenoisingPolicy):
    """One U-Net call for each Euler step.

    Args:
        policy: the pretrained policy.
        preprocessor, postprocessor: its own LeRobot pipelines.
        exploration: see there.
    """

    condition_path = "unet.diffusion_step_encoder.3"
    network_path = "unet"

    def __init__(
        self,
        policy: RLFTFlowPolicy,
        preprocessor: PolicyProcessorPipeline,
        postprocessor: PolicyProcessorPipeline,
        exploration: Exploration,
    ) -> None:
        self.module, self.preprocessor, self.postprocessor = policy.eval(), preprocessor, postprocessor
        config = policy.config
        self.n_obs_steps, self.horizon = config.n_obs_steps, config.horizon
        self.n_action_steps, self.action_dim = config.n_action_steps, config.action_feature.shape[0]
        self.use_flow(config.num_inference_steps, exploration)

    def encode(self, obs: dict[str, Tensor]) -> Tensor:
        return self.module.condition(normalise_observations(obs, self.preprocessor))

    def predict(self, x: Tensor, timestep: Tensor, condition: Tensor) -> Tensor:
        return self.module.velocity(x, timestep, condition)

    def executed(self, x: Tensor) -> Tensor:
        return self.module.executed(x)

    @property
    def feature_dim(self) -> int:
        return self.module.config.condition_dim

    @torch.no_grad()
    def deployed_chunk(self, condition: Tensor) -> Tensor:
        return self.module.sample(condition)
