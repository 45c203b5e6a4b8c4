"""Inputs of policies whose preprocessor writes the whole prompt: its outputs are not observations alone."""

from typing import Any

import torch
from lerobot.processor import PolicyProcessorPipeline
from torch import Tensor

from ..utils.errors import UserError


def prompt_inputs(obs: dict[str, Tensor], preprocessor: PolicyProcessorPipeline, task: str) -> dict[str, Any]:
    """Everything that a LeRobot preprocessor makes of the last observation, as `lerobot-eval` feeds it.

    Args:
        obs: LeRobot keys, each (B, S, ...), images uint8.
        task: the instruction of all rows.

    Raises:
        UserError: an observation is missing of which the prompt is made.
    """
    frames = {key: value[:, -1] for key, value in obs.items()}
    batch = len(next(iter(frames.values())))
    frames = {k: v.float() / 255 if v.dtype == torch.uint8 else v for k, v in frames.items()}
    try:
        return preprocessor(frames | {"task": [task] * batch})
    except KeyError as error:
        raise UserError(
            f"the policy's inputs lack {error.args[0]}; there are {', '.join(sorted(obs))}. Give the "
            "environment's cameras the policy's names (env.features_map)"
        ) from error
