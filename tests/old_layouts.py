"""A checkpoint rewritten into the layouts that lie on the Hub."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from lerobot.configs import PreTrainedConfig
from lerobot.configs.default import PeftConfig
from lerobot.policies.factory import get_policy_class
from safetensors.torch import load_file, save_file
from tiny import OBSERVATIONS
from torch import Tensor

from lerobot_rlft.configs.pretrained import load_policy_config
from lerobot_rlft.policies.base import DenoisingPolicy
from lerobot_rlft.policies.loading import load_policy

PROCESSORS = ("policy_preprocessor", "policy_postprocessor")
WEIGHTS = "model.safetensors"


def statistics(checkpoint: Path) -> dict[str, Tensor]:
    """The statistics of the preprocessor, by "key.name"."""
    (file,) = checkpoint.glob("policy_preprocessor*normalizer*.safetensors")
    return load_file(file)


def with_buffers(checkpoint: Path, place: Path, processors: bool = False, **fields: Any) -> Path:
    """A copy with the statistics inside the weights, as LeRobot wrote them before 0.4.

    Args:
        processors: also keep those of today.
        fields: added to its config.json, the removed ones of old versions.
    """
    shutil.copytree(checkpoint, place)
    config = edit(place / "config.json", **fields)
    features = config["input_features"] | config["output_features"]
    tensors = load_file(place / WEIGHTS)
    for name, tensor in statistics(checkpoint).items():
        key, _, statistic = name.rpartition(".")
        if key not in features or features[key]["type"] not in config["normalization_mapping"]:
            continue
        written = f"buffer_{key.replace('.', '_')}.{statistic}"
        modules = ("normalize_targets", "unnormalize_outputs") if key == "action" else ("normalize_inputs",)
        tensors |= {f"{module}.{written}": tensor.clone() for module in modules}
    save_file(tensors, place / WEIGHTS)
    if not processors:
        for name in PROCESSORS:
            for file in place.glob(f"{name}*"):
                file.unlink()
    return place


def with_shapes(checkpoint: Path, place: Path) -> Path:
    """`with_buffers`, and a config.json as LeRobot wrote it in 2024: shapes for features, and no type."""
    file = with_buffers(checkpoint, place) / "config.json"
    config = json.loads(file.read_text())
    modes = config.pop("normalization_mapping")
    del config["type"]
    for new, old in (("input_features", "input"), ("output_features", "output")):
        features = config.pop(new)
        config[f"{old}_shapes"] = {key: feature["shape"] for key, feature in features.items()}
        config[f"{old}_normalization_modes"] = {
            key: modes[feature["type"]].lower()
            for key, feature in features.items()
            if feature["type"] in modes
        }
    file.write_text(json.dumps(config))
    return place


def sharded(checkpoint: Path, place: Path) -> Path:
    """A copy with the weights in several files and their index."""
    shutil.copytree(checkpoint, place)
    tensors = load_file(place / WEIGHTS)
    (place / WEIGHTS).unlink()
    save_torch_state_dict(tensors, place, max_shard_size=sum(t.nbytes for t in tensors.values()) // 3)
    return place


def adapted(base: Path, place: Path) -> Path:
    """New adapters of a diffusion policy, as `lerobot-train --peft.method_type=LORA` writes them."""
    config = PreTrainedConfig.from_pretrained(base)
    config.pretrained_path = base
    module = get_policy_class("diffusion").from_pretrained(base, config=config)
    options = PeftConfig(target_modules=["diffusion_step_encoder.1", "diffusion_step_encoder.3"], r=2)
    module.wrap_with_peft(peft_cli_overrides=vars(options)).save_pretrained(place)
    config.save_pretrained(place)
    for file in base.glob("policy_*"):
        shutil.copy(file, place)
    return place


def edit(file: Path, **fields: Any) -> dict[str, Any]:
    """Set fields of a JSON file; its content."""
    content = json.loads(file.read_text()) | fields
    file.write_text(json.dumps(content))
    return content


def edit_statistics(checkpoint: Path, change) -> None:
    """Let `change` edit the statistics of both processors, by "key.name"."""
    for file in checkpoint.glob("*normalizer_processor.safetensors"):
        tensors = load_file(file)
        change(tensors)
        save_file(tensors, file)


def with_prefix(checkpoint: Path, place: Path) -> Path:
    """A copy whose statistics of actions lie under the name of their dataset, as in lerobot/smolvla_base."""
    shutil.copytree(checkpoint, place)

    def change(tensors: dict[str, Tensor]) -> None:
        for name in [name for name in tensors if name.startswith("action.")]:
            tensors[f"so100.buffer.{name}"] = tensors.pop(name)

    edit_statistics(place, change)
    return place


def load(place: Path, *options: str) -> DenoisingPolicy:
    return load_policy(load_policy_config(str(place), list(options)), place)


def act(policy: DenoisingPolicy) -> torch.Tensor:
    """Actions for two states, with the same noise each time."""
    torch.manual_seed(3)
    obs = {key: torch.rand(2, 2, size) for key, size in OBSERVATIONS.items()}
    with torch.no_grad():
        return policy.to_action(policy.deployed_chunk(policy.encode(obs)))


def assert_alike(policy: DenoisingPolicy, other: DenoisingPolicy) -> None:
    """The same weights, and bit for bit the same actions."""
    for (name, own), (other_name, theirs) in zip(
        policy.module.state_dict().items(), other.module.state_dict().items(), strict=True
    ):
        assert name == other_name and torch.equal(own, theirs)
    assert torch.equal(act(policy), act(other))
