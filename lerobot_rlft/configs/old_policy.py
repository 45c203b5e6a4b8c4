"""Content of a policy's config.json as older versions of LeRobot wrote it, in today's fields."""

import sys
from typing import Any

import lerobot
from lerobot.configs import FeatureType, NormalizationMode, PreTrainedConfig

from ..utils.errors import UserError
from .check import names

# Fields that LeRobot renamed, old to new, by policy type.
RENAMED = {"pi0": {"num_steps": "num_inference_steps", "resize_imgs_with_padding": "image_resolution"}}
SHAPES = {"input_shapes": "input_features", "output_shapes": "output_features"}
MODES = ("input_normalization_modes", "output_normalization_modes")


def current_policy(option: str, content: dict[str, Any]) -> dict[str, Any]:
    """The content with a type and features, which LeRobot before 2025 wrote as shapes and without a type.

    Args:
        option: of the command line that named the policy, for messages.

    Raises:
        UserError: the type cannot be told, or features of a kind are normalised in several ways.
    """
    if "type" in content or "input_shapes" not in content:
        return content
    if "down_dims" not in content:
        raise UserError(
            f'{option} has a config.json without type, from before 2025: add the type of the policy, "type": '
            '"diffusion" or another, to it'
        )
    modes: dict[str, set[str]] = {}
    for name in MODES:
        for key, mode in (content.get(name) or {}).items():
            modes.setdefault(_kind(key), set()).add(NormalizationMode[mode.upper()].value)
    for kind, several in modes.items():
        if len(several) > 1:
            raise UserError(
                f"{option} normalises its features of type {kind} in several ways, {' and '.join(several)}, "
                "which LeRobot no longer does: leave one in the normalization_modes of its config.json"
            )
    out = {key: value for key, value in content.items() if key not in (*SHAPES, *MODES)}
    for old, new in SHAPES.items():
        out[new] = {key: {"type": _kind(key), "shape": shape} for key, shape in content[old].items()}
    out["normalization_mapping"] = {kind: mode for kind, (mode,) in modes.items()}
    return out | {"type": "diffusion"}


def declared_fields(option: str, kind: str, content: dict[str, Any]) -> dict[str, Any]:
    """The fields that the config of this type has today; the others are dropped and named."""
    content = dict(content)
    declared = names(PreTrainedConfig.get_choice_class(kind))
    for old, new in RENAMED.get(kind, {}).items():
        if old in content and new in declared and old not in declared:
            content.setdefault(new, content.pop(old))
    unknown = [field for field in content if field not in declared]
    if unknown:
        warn(
            f"{option} has fields in its config.json that {kind} has not in LeRobot {lerobot.__version__}, "
            f"they are dropped: {', '.join(f'{field}={content[field]}' for field in unknown)}"
        )
    return {field: value for field, value in content.items() if field in declared}


def warn(text: str) -> None:
    """Tell one line beside what a command prints."""
    print(f"warning: {text}", file=sys.stderr)


def _kind(key: str) -> str:
    """The type of a feature, as LeRobot tells it from the key."""
    if "image" in key:
        return FeatureType.VISUAL.value
    if key == "observation.environment_state":
        return FeatureType.ENV.value
    return FeatureType.ACTION.value if key == "action" else FeatureType.STATE.value
