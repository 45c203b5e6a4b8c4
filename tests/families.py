"""Tiny policies for the contract of every family. A new family is a builder and its lines in VARIANTS."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import vlas
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies import make_pre_post_processors
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy

from lerobot_rlft.chains import Chain
from lerobot_rlft.episodes import Rollout
from lerobot_rlft.policies.base import DenoisingPolicy, Exploration
from lerobot_rlft.policies.diffusion import DiffusionAdapter

STATE = {"observation.state": (FeatureType.STATE, (4,))}
ENVIRONMENT_STATE = STATE | {"observation.environment_state": (FeatureType.ENV, (3,))}
# 48 pixels are the fewest with which a resnet18 keeps more than one pixel for its spatial softmax.
IMAGES = STATE | {
    f"observation.images.{name}": (FeatureType.VISUAL, (3, 48, 48)) for name in ("top", "wrist")
}
ACTION = {"action": (FeatureType.ACTION, (2,))}


def statistics() -> dict[str, dict[str, torch.Tensor]]:
    """Dataset statistics under which normalisation changes every feature."""
    stats = {}
    for key, (_, shape) in (ENVIRONMENT_STATE | IMAGES | ACTION).items():
        shape = (3, 1, 1) if len(shape) == 3 else shape
        low, high = -torch.arange(1.0, shape[0] + 1), 2 * torch.arange(1.0, shape[0] + 1)
        stats[key] = {
            "min": low.view(shape),
            "max": high.view(shape),
            "mean": (0.1 * high).view(shape),
            "std": (0.3 * high).view(shape),
            "q01": low.view(shape),
            "q99": high.view(shape),
        }
    return stats


def diffusion(
    inputs: dict[str, Any] = ENVIRONMENT_STATE, eta: float = 1.0, seed: int = 0, **fields: Any
) -> DiffusionAdapter:
    """A `diffusion` policy with random weights: horizon 8, 4 executed actions, 10 training timesteps."""
    defaults = {
        "n_obs_steps": 2,
        "horizon": 8,
        "n_action_steps": 4,
        "down_dims": (16, 32),
        "diffusion_step_embed_dim": 16,
        "num_train_timesteps": 10,
        "pretrained_backbone_weights": None,
        "use_group_norm": True,
        "spatial_softmax_num_keypoints": 4,
        "use_separate_rgb_encoder_per_camera": False,
        "device": "cpu",
    }
    config = DiffusionConfig(
        input_features={key: PolicyFeature(*feature) for key, feature in inputs.items()},
        output_features={key: PolicyFeature(*feature) for key, feature in ACTION.items()},
        **(defaults | fields),
    )
    torch.manual_seed(seed)
    module = DiffusionPolicy(config)
    processors = make_pre_post_processors(config, dataset_stats=statistics())
    return DiffusionAdapter(module, *processors, Exploration(eta))


def vla(
    kind: str, inputs: dict[str, Any] = IMAGES, noise_level: float = 0.0, **fields: Any
) -> DenoisingPolicy:
    """A tiny vision-language-action policy, see `vlas.py`; its padded action dims are more than the 2."""
    return vlas.build(kind, inputs, ACTION, statistics(), Exploration(noise_level=noise_level), **fields)


VARIANTS: dict[str, Callable[[], DenoisingPolicy]] = {
    "diffusion, state": diffusion,
    "diffusion, one observation": partial(diffusion, n_obs_steps=1),
    "diffusion, images": partial(diffusion, IMAGES, crop_shape=(40, 40)),
    "diffusion, fewer steps": partial(diffusion, num_inference_steps=4),
    "diffusion, predicts the sample": partial(diffusion, prediction_type="sample"),
    "diffusion, DDIM eta 0": partial(diffusion, noise_scheduler_type="DDIM", num_inference_steps=5, eta=0.0),
    "diffusion, DDIM eta 0.5": partial(
        diffusion, noise_scheduler_type="DDIM", num_inference_steps=5, eta=0.5
    ),
    "diffusion, DDIM eta 1": partial(diffusion, noise_scheduler_type="DDIM", num_inference_steps=5, eta=1.0),
    "pi0": partial(vla, "pi0"),
    "pi0, Flow-SDE": partial(vla, "pi0", noise_level=0.5),
    "pi05": partial(vla, "pi05"),
    "smolvla": partial(vla, "smolvla"),
}
WITH_ENCODER = {"diffusion, images", "pi0", "pi0, Flow-SDE", "pi05", "smolvla"}
# Their exploration sampler is another than the deployed one, by design.
EXPLORES_OTHERWISE = {"diffusion, DDIM eta 0.5", "diffusion, DDIM eta 1", "pi0, Flow-SDE"}


def observations(policy: DenoisingPolicy, batch: int, seed: int = 1) -> dict[str, torch.Tensor]:
    """Random observations as a rollout stores them: (batch, n_obs_steps, ...), images uint8."""
    generator = torch.Generator().manual_seed(seed)
    obs = {}
    for key, feature in policy.module.config.input_features.items():
        shape = (batch, policy.n_obs_steps, *feature.shape)
        if feature.type is FeatureType.VISUAL:
            obs[key] = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        else:
            obs[key] = torch.randn(shape, generator=generator)
    return obs


def experience(policy: DenoisingPolicy, episodes: int = 4, decisions: int = 2) -> Rollout:
    """Made-up episodes of equal length: the chains are the policy's, the rewards random."""
    obs = observations(policy, episodes * decisions)
    with torch.no_grad():
        chain: Chain = policy.sample(policy.encode(obs), sampling_floor=0.1, log_prob_floor=0.1)
    return Rollout(
        obs=obs,
        chain=chain,
        t=torch.arange(decisions).repeat_interleave(episodes),
        episode=torch.arange(episodes).repeat(decisions),
        reward=torch.randn(decisions, episodes, generator=torch.Generator().manual_seed(2)),
        valid=torch.ones(decisions, episodes, dtype=torch.bool),
        terminated=torch.ones(episodes, dtype=torch.bool),
        final_obs=observations(policy, episodes, seed=3),
        episodes=None,
    )
