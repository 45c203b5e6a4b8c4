"""The kernel of a policy with a noise schedule of diffusers."""

from typing import Any

from ..chains.chain import DDIMKernel, DDPMKernel, NoiseScheduleKernel
from ..utils.errors import UserError
from .base import Exploration


def schedule_kernel(config: Any, model: Any, exploration: Exploration) -> NoiseScheduleKernel:
    """DDPM or DDIM as LeRobot configures them.

    Args:
        config: of the policy, with the fields of `diffusion`.
        model: what holds `noise_scheduler` and `num_inference_steps`.

    Raises:
        UserError: `num_inference_steps` is out of range.
    """
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
    kernel = DDIMKernel(**schedule, eta=exploration.eta) if ddim else DDPMKernel(**schedule)
    kernel.to(config.device)
    return kernel
