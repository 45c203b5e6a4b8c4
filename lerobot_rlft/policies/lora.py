"""Low-rank adapters (LoRA, arXiv:2106.09685) in any policy, by LeRobot's own `wrap_with_peft`.

Training changes the adapters alone; a checkpoint has them merged and is an ordinary policy.
"""

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from lerobot.policies import PreTrainedPolicy
from safetensors.torch import load_file

from ..utils.errors import UserError, one_line
from .base import DenoisingPolicy

# Fields of an adapter_config.json that only say where the adapters are and how large. Others make peft import
# modules, fetch further repositories, or change the base when it is wrapped.
PLAIN = {
    "alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "exclude_modules", "fan_in_fan_out",
    "inference_mode", "layers_pattern", "layers_to_transform", "lora_alpha", "lora_bias", "lora_dropout",
    "modules_to_save", "peft_version", "r", "rank_pattern", "revision", "target_modules", "task_type",
    "use_dora", "use_rslora",
}  # fmt: skip


def add_adapters(policy: DenoisingPolicy, options: dict[str, Any]) -> None:
    """Put adapters into `policy.module` and remember them in `policy.peft`.

    Args:
        options: fields of LeRobot's `PeftConfig`.

    Raises:
        ImportError: peft is not installed.
        UserError: another method than LoRA, or targets that match nothing.
    """
    if options["method_type"].upper() != "LORA":
        raise UserError(
            f"peft.method_type={options['method_type']} cannot be merged into an ordinary checkpoint here: "
            "choose LORA"
        )
    if options["full_training_modules"]:
        raise UserError(
            f"peft.full_training_modules={options['full_training_modules']} is not supported: leave it out, "
            "adapters alone are trained"
        )
    config, pretrained = policy.module.config, policy.module.config.pretrained_path
    config.pretrained_path = pretrained or "none"  # LeRobot insists on one, also to count sizes
    try:
        policy.peft = policy.module.wrap_with_peft(peft_cli_overrides=options)
    except ValueError as error:
        raise UserError(
            f"peft.target_modules={options['target_modules']} does not fit policy.type={config.type} "
            f"({one_line(error)}): name its layers, for example --peft.target_modules=[q_proj,v_proj]"
        ) from error
    finally:
        config.pretrained_path = pretrained
        config.use_peft = False  # what is saved has them merged


def merge_adapters(module: PreTrainedPolicy, folder: Path) -> PreTrainedPolicy:
    """The policy with the adapters of a folder merged into its weights.

    Merged, they are never wrapped a second time, and a run may train adapters of its own.

    Args:
        folder: with adapter_model.safetensors and adapter_config.json.

    Raises:
        UserError: peft is not installed, or the adapters do not fit or cannot be merged.
    """
    try:
        from peft import LoraConfig, PeftModel, get_peft_model_state_dict
    except ImportError as error:
        raise UserError(
            f"{folder} holds low-rank adapters and needs the package peft: {one_line(error)}"
        ) from error
    stored = load_file(folder / "adapter_model.safetensors")
    content = json.loads((folder / "adapter_config.json").read_text())
    defaults = LoraConfig().to_dict()
    refused = {k: v for k, v in content.items() if k not in PLAIN and v and v != defaults.get(k)}
    if refused:
        raise UserError(
            f"the adapter_config.json of {folder} has {', '.join(f'{k}={v}' for k, v in refused.items())}, "
            "which may import code or cannot be merged, and is refused: merge them where they were trained, "
            "with peft's merge_and_unload() and save_pretrained()"
        )
    try:
        config = LoraConfig(**{k: v for k, v in content.items() if k in PLAIN and k in defaults})
        config.auto_mapping = None
        trainable = {name: weight.requires_grad for name, weight in module.named_parameters()}
        with warnings.catch_warnings(action="ignore"):  # what is missing is told below
            adapted = PeftModel.from_pretrained(module, str(folder), config=config, torch_device="cpu")
        own = get_peft_model_state_dict(adapted)
        others = own.keys() ^ stored.keys() or {
            name
            for name, tensor in stored.items()
            if not torch.equal(own[name].cpu().to(tensor.dtype), tensor)
        }
        if others:
            raise ValueError(f"peft did not load {', '.join(sorted(others)[:3])}")
        merged = adapted.merge_and_unload()
    except (ValueError, RuntimeError, KeyError, AttributeError, TypeError) as error:
        raise UserError(
            f"the low-rank adapters of {folder} do not fit policy.type={module.config.type} "
            f"({one_line(error)}): give the policy that they were trained on as base_model_name_or_path in "
            "their adapter_config.json"
        ) from error
    for name, weight in merged.named_parameters():
        weight.requires_grad_(trainable[name])  # peft has frozen them
    return merged
