"""Adapter for LeRobot's `diffusion` policy (arXiv:2303.04137)."""

import copy
from pathlib import Path

import torch
from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy
from lerobot.processor import PolicyProcessorPipeline
from lerobot.utils.constants import OBS_IMAGES
from torch import Tensor, nn

from ..chains import DDIMKernel, DDPMKernel
from ..errors import UserError
from .base import DenoisingPolicy, register
from .processing import normalise_observations


@register("diffusion")
class DiffusionAdapter(DenoisingPolicy):
    """One U-Net call for each denoising step; state and image observations with history.

    Args:
        policy: the pretrained policy. It is put in eval mode: its random crops in train mode would make the
            ratio of the first PPO minibatch differ from 1.
        preprocessor, postprocessor: the policy's own LeRobot pipelines.
        eta: noise of the DDIM exploration sampler (the policy's own sampler has eta 0); a DDPM sampler
            ignores it because its posterior variance fixes the noise.

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
        eta: float,
    ) -> None:
        self.module, self.preprocessor, self.postprocessor = policy.eval(), preprocessor, postprocessor
        config, model = policy.config, policy.diffusion
        self.n_obs_steps, self.horizon = config.n_obs_steps, config.horizon
        self.n_action_steps = config.n_action_steps
        self.action_dim = config.action_feature.shape[0]
        if not 1 <= model.num_inference_steps <= config.num_train_timesteps:
            raise UserError(
                f"policy.num_inference_steps={model.num_inference_steps} is out of range, choose 1 to "
                f"policy.num_train_timesteps={config.num_train_timesteps}, or null for all"
            )
        scheduler = model.noise_scheduler
        scheduler.set_timesteps(model.num_inference_steps)
        schedule = {
            "alphas_cumprod": scheduler.alphas_cumprod,
            "timesteps": scheduler.timesteps,
            "prediction_type": config.prediction_type,
            "clip_range": config.clip_sample_range if config.clip_sample else None,
        }
        ddim = config.noise_scheduler_type == "DDIM"
        self.kernel = (DDIMKernel(**schedule, eta=eta) if ddim else DDPMKernel(**schedule)).to(config.device)

    def encode(self, obs: dict[str, Tensor]) -> Tensor:
        batch = normalise_observations(obs, self.preprocessor)
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
    def condition_dim(self) -> int:
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

    def to_action(self, chunk: Tensor) -> Tensor:
        return self.postprocessor(self.executed(chunk))

    def save_pretrained(self, folder: Path) -> None:
        # The fine-tuned sampler is part of the result: a stock loader must not fall back to all T steps.
        self.module.config.num_inference_steps = self.kernel.num_steps
        self.module.save_pretrained(folder)
        self.preprocessor.save_pretrained(folder)
        self.postprocessor.save_pretrained(folder)
