"""Tiny policies for the contract of every family. A new family is a builder and its lines in VARIANTS."""

import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
import vlas
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies import make_pre_post_processors
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy
from lerobot.policies.multi_task_dit.configuration_multi_task_dit import MultiTaskDiTConfig
from lerobot.policies.multi_task_dit.modeling_multi_task_dit import MultiTaskDiTPolicy

from lerobot_rlft.chains.chain import Chain
from lerobot_rlft.policies.base import DenoisingPolicy, Exploration
from lerobot_rlft.policies.diffusion import DiffusionAdapter
from lerobot_rlft.policies.multi_task_dit import MultiTaskDiTAdapter
from lerobot_rlft.policies.rlft_flow.adapter import RLFTFlowAdapter
from lerobot_rlft.policies.rlft_flow.configuration_rlft_flow import RLFTFlowConfig
from lerobot_rlft.policies.rlft_flow.modeling_rlft_flow import RLFTFlowPolicy
from lerobot_rlft.rollout.episodes import Rollout

STATE = {"observation.state": (FeatureType.STATE, (4,))}
ENVIRONMENT_STATE = STATE | {"observation.environment_state": (FeatureType.ENV, (3,))}
# 48 pixels are the fewest with which a resnet18 keeps more than one pixel for its spatial softmax.
IMAGES = STATE | {
    f"observation.images.{name}": (FeatureType.VISUAL, (3, 48, 48)) for name in ("top", "wrist")
}
ACTION = {"action": (FeatureType.ACTION, (2,))}

# Samplers of collection that differ from the deployed one, of a flow policy.
NOISY: dict[str, Any] = {"noise_level": 0.5}
HEAD: dict[str, Any] = {"flow_noise": "head"}


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


def rlft_flow(
    inputs: dict[str, Any] = ENVIRONMENT_STATE, explore: dict[str, Any] = NOISY, **fields: Any
) -> RLFTFlowAdapter:
    """An `rlft_flow` policy with random weights: horizon 8, 4 executed actions, 5 Euler steps."""
    defaults = {
        "n_obs_steps": 2,
        "n_action_steps": 4,
        "num_inference_steps": 5,
        "down_dims": (16, 32),
        "diffusion_step_embed_dim": 16,
        "device": "cpu",
    }
    config = RLFTFlowConfig(
        input_features={key: PolicyFeature(*feature) for key, feature in inputs.items()},
        output_features={key: PolicyFeature(*feature) for key, feature in ACTION.items()},
        **(defaults | fields),
    )
    torch.manual_seed(0)
    module = RLFTFlowPolicy(config)
    processors = make_pre_post_processors(config, dataset_stats=statistics())
    return RLFTFlowAdapter(module, *processors, Exploration(**explore))


def multi_task_dit(
    inputs: dict[str, Any] = IMAGES, explore: dict[str, Any] = NOISY, **fields: Any
) -> DenoisingPolicy:
    """A `multi_task_dit` policy with random weights: horizon 8, 4 executed actions, 5 denoising steps."""
    clip = str(tiny_clip())
    defaults = {
        "n_obs_steps": 2,
        "horizon": 8,
        "n_action_steps": 4,
        "hidden_dim": 32,
        "num_layers": 2,
        "num_heads": 2,
        "timestep_embed_dim": 16,
        "num_train_timesteps": 10,
        "num_inference_steps": 5,
        "num_integration_steps": 5,
        "vision_encoder_name": clip,
        "text_encoder_name": clip,
        "image_crop_shape": (32, 32),
        "device": "cpu",
    }
    config = MultiTaskDiTConfig(
        input_features={key: PolicyFeature(*feature) for key, feature in inputs.items()},
        output_features={key: PolicyFeature(*feature) for key, feature in ACTION.items()},
        **(defaults | fields),
    )
    torch.manual_seed(0)
    module = MultiTaskDiTPolicy(config)
    for block in module.noise_predictor.transformer_blocks:  # fresh ones ignore condition and time
        torch.nn.init.normal_(block.adaLN_modulation[-1].weight, std=0.1)
    processors = make_pre_post_processors(config, dataset_stats=statistics())
    policy = MultiTaskDiTAdapter(module, *processors, Exploration(**explore))
    policy.task = "push the block"
    return policy


@cache
def tiny_clip() -> Path:
    """A folder with a CLIP of random weights and a tokenizer that splits at spaces."""
    reason = "transformers is not installed, it comes with the extras of LeRobot's policies with language"
    transformers = pytest.importorskip("transformers", reason=reason)
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = Path(tempfile.mkdtemp(prefix="tiny-clip-"))
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "push", "the", "block"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        unk_token="<unk>",
        model_max_length=77,
    ).save_pretrained(folder)
    size = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "projection_dim": 16,
    }
    special = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
    torch.manual_seed(0)
    transformers.CLIPModel(
        transformers.CLIPConfig(
            text_config=size | special | {"vocab_size": len(words), "max_position_embeddings": 77},
            vision_config=size | {"image_size": 32, "patch_size": 8},
            projection_dim=16,
        )
    ).save_pretrained(folder)
    return folder


def vla(
    kind: str,
    inputs: dict[str, Any] = IMAGES,
    noise_level: float = 0.0,
    flow_noise: str = "sde",
    hybrid: bool = False,
    **fields: Any,
) -> DenoisingPolicy:
    """A tiny vision-language-action policy, see `vlas.py`; its padded action dims are more than the 2."""
    explore = Exploration(flow_noise=flow_noise, noise_level=noise_level, hybrid=hybrid)
    return vlas.build(kind, inputs, ACTION, statistics(), explore, **fields)


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
    "rlft_flow, deployed": partial(rlft_flow, explore={"noise_level": 0.0}),
    "rlft_flow, SDE": rlft_flow,
    "rlft_flow, SDE hybrid": partial(rlft_flow, STATE, NOISY | {"hybrid": True}, n_obs_steps=1),
    "rlft_flow, head": partial(rlft_flow, explore=HEAD),
    "multi_task_dit, diffusion": multi_task_dit,
    "multi_task_dit, DDIM eta 1": partial(multi_task_dit, noise_scheduler_type="DDIM"),
    "multi_task_dit, flow": partial(
        multi_task_dit, explore={"noise_level": 0.0}, objective="flow_matching", sigma_min=0.1
    ),
    "multi_task_dit, flow SDE": partial(multi_task_dit, objective="flow_matching"),
    "multi_task_dit, state, flow head": partial(multi_task_dit, STATE, HEAD, objective="flow_matching"),
    "rlft_flow, head hybrid": partial(rlft_flow, explore=HEAD | {"hybrid": True}, num_inference_steps=1),
    "pi0": partial(vla, "pi0"),
    "pi0, Flow-SDE": partial(vla, "pi0", noise_level=0.5),
    "pi0, Flow-SDE hybrid": partial(vla, "pi0", noise_level=0.5, hybrid=True),
    "pi0, head": partial(vla, "pi0", flow_noise="head"),
    "pi05": partial(vla, "pi05"),
    "smolvla": partial(vla, "smolvla"),
    "eo1": partial(vla, "eo1"),
    "eo1, Flow-SDE hybrid": partial(vla, "eo1", noise_level=0.5, hybrid=True),
    "eo1, head": partial(vla, "eo1", flow_noise="head"),
    "xvla, eta 1": partial(vla, "xvla"),
    "vla_jepa": partial(vla, "vla_jepa"),
    "vla_jepa, Flow-SDE hybrid": partial(vla, "vla_jepa", noise_level=0.5, hybrid=True),
    "vla_jepa, head": partial(vla, "vla_jepa", flow_noise="head"),
    "groot": partial(vla, "groot"),
    "groot, Flow-SDE": partial(vla, "groot", noise_level=0.5),
}
ENCODERS = ("diffusion, images", "multi_task_dit", "pi0", "smolvla", "eo1", "xvla", "vla_jepa", "groot")
WITH_ENCODER = {name for name in VARIANTS if name.startswith(ENCODERS)}
# Their exploration sampler is another than the deployed one, by design.
EXPLORES_OTHERWISE = {
    name for name in VARIANTS if any(noise in name for noise in ("eta 0.5", "eta 1", "SDE", "head"))
}


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
    floor = policy.std_floor
    with torch.no_grad():
        chain: Chain = policy.sample(policy.encode(obs), sampling_floor=floor, log_prob_floor=floor)
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
