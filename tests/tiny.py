"""A tiny policy as an ordinary checkpoint."""

from pathlib import Path

import torch
from lerobot.configs import FeatureType, PolicyFeature, PreTrainedConfig
from lerobot.policies import make_pre_post_processors
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
from lerobot.policies.factory import get_policy_class

OBSERVATIONS = {"observation.state": 4, "observation.environment_state": 9}
TINY = {
    "n_obs_steps": 2,
    "horizon": 4,
    "n_action_steps": 3,
    "down_dims": (8,),
    "diffusion_step_embed_dim": 8,
    "kernel_size": 3,
    "num_train_timesteps": 3,
    "drop_n_last_frames": 0,
    "device": "cpu",
    "push_to_hub": False,
}

TINY_FLOW = {name: value for name, value in TINY.items() if name != "num_train_timesteps"}
TINY_FLOW["num_inference_steps"] = 3


def save_policy(
    folder: Path,
    sizes: dict[str, int] = OBSERVATIONS,
    reach: float = 0.01,
    kind: type[PreTrainedConfig] = DiffusionConfig,
    **fields,
) -> Path:
    """Write a policy with random weights as an ordinary LeRobot checkpoint.

    Args:
        sizes: observation key -> size of the vector.
        reach: largest action.
        kind: DiffusionConfig or RLFTFlowConfig.
    """
    torch.manual_seed(0)
    kinds = {"observation.state": FeatureType.STATE, "observation.environment_state": FeatureType.ENV}
    config = kind(
        input_features={key: PolicyFeature(kinds[key], (size,)) for key, size in sizes.items()},
        output_features={"action": PolicyFeature(FeatureType.ACTION, (2,))},
        **((TINY if kind is DiffusionConfig else TINY_FLOW) | fields),
    )
    stats = {key: {"min": torch.full((n,), -1.0), "max": torch.full((n,), 2.0)} for key, n in sizes.items()}
    stats["action"] = {"min": torch.full((2,), -reach), "max": torch.full((2,), reach)}
    module = get_policy_class(config.type)(config)
    for part in (module, *make_pre_post_processors(config, dataset_stats=stats)):
        part.save_pretrained(folder)
    return folder
