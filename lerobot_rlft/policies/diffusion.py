"""Adapter for LeRobot's `diffusion` policy (arXiv:2303.04137)."""

import copy
from pathlib import Path

import torch
from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy
from lerobot.processor import PolicyProcessorPipeline
from lerobot.utils.constants import OBS_IMAGES
from torch import Tensor, nn

from .base import DenoisingPolicy, Exploration, register
from .processing import normalise_observations
from .schedule import schedule_kernel


@register("diffusion")
class DiffusionAdapter(DenoisingPolicy):
    """One U-Net call for each denoising step; state and image observations with history.

    Args:
        policy: the pretrained policy. It is put in eval mode: its random crops in train mode would make the
            ratio of the first PPO minibatch differ from 1.
        preprocessor, postprocessor: the policy's own LeRobot pipelines.
        exploration: see there; read where the policy's scheduler is DDIM.

    Raises:
        UserError: `policy.num_inference_steps` is out of range.
    """

    condition_path = "diffusion.unet.diffusion_step_encoder.3"
    network_path = "diffusion.unet"

    def __init__(
        self,
        policy: DiffusionPolicy,
        preprocessor: PolicyProcessorPipeline,
        postprocessor: PolicyProcessorPipeline,
        exploration: Exploration,
    ) -> None:
        self.module, self.preprocessor, self.postprocessor = policy.eval(), preprocessor, postprocessor
        config = policy.config
        self.n_obs_steps, self.horizon = config.n_obs_steps, config.horizon
        self.n_action_steps = config.n_action_steps
        self.action_dim = config.action_feature.shape[0]
        self.kernel = schedule_kernel(config, policy.diffusion, exploration)

    def encode(self, obs: dict[str, Tensor]) -> Tensor:
        return self._condition(normalise_observations(obs, self.preprocessor))

    def example_condition(self, batch: int) -> Tensor:
        device = next(self.module.parameters()).device
        return self._condition(
            {
                key: torch.zeros(batch, self.n_obs_steps, *feature.shape, device=device)
                for key, feature in self.module.config.input_features.items()
            }
        )

    def _condition(self, batch: dict[str, Tensor]) -> Tensor:
        cameras = self.module.config.image_features
        if cameras:
            batch[OBS_IMAGES] = torch.stack(
                [batch[key] for key in cameras], dim=-4
            )  # (B, n_obs, cameras, C, H, W)
        return self.module.diffusion._prepare_global_conditioning(batch)

    def predict(self, x: Tensor, timestep: Tensor, condition: Tensor) -> Tensor:
        return self.module.diffusion.unet(x, timestep, global_cond=condition)

    def executed(self, x: Tensor) -> Tensor:
        start = self.n_obs_steps - 1
        return x[:, start : start + self.n_action_steps]

    @property
    def encoder(self) -> nn.Module | None:
        return self.module.diffusion.rgb_encoder if self.module.config.image_features else None

    @property
    def feature_dim(self) -> int:
        film = self.module.diffusion.unet.mid_modules[0].cond_encoder[1]  # reads timestep and condition
        return film.in_features - self.module.config.diffusion_step_embed_dim

    def copy_encoder(self) -> "DiffusionAdapter":
        twin = copy.copy(self)
        # The memo entry leaves the U-Net out of the copy.
        twin.module = copy.deepcopy(self.module, {id(self.module.diffusion.unet): nn.Identity()})
        return twin

    @torch.no_grad()
    def deployed_chunk(self, condition: Tensor) -> Tensor:
        return self.module.diffusion.conditional_sample(len(condition), global_cond=condition)

    def save_pretrained(self, folder: Path) -> None:
        # The fine-tuned sampler is part of the result: a stock loader must not fall back to all T steps.
        self.module.config.num_inference_steps = self.kernel.num_steps
        super().save_pretrained(folder)
