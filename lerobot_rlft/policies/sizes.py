"""Bounds of the sizes in a policy's config, checked before anything of that size is made."""

from dataclasses import fields
from typing import Any

from lerobot.configs import PreTrainedConfig

from ..utils.errors import UserError
from .wrapped.configuration_wrapped import WrappedConfig

# What counts steps, or must be there at least once: a thousand times what anybody uses is no size.
COUNTS = ("n_obs_steps", "horizon", "chunk_size", "n_action_steps", "num_inference_steps",
          "num_train_timesteps", "down_dims", "n_groups", "kernel_size")  # fmt: skip
MOST_COUNT, MOST_SIZE = 10_000, 1_000_000
FREE = ("optimizer_", "scheduler_")  # steps of training, of which there may be any number


def check_sizes(config: PreTrainedConfig, path: Any = None) -> None:
    """Check the whole numbers of a config.

    Args:
        path: where it was read from, for the message.

    Raises:
        UserError: one is negative, zero, or so large that making the policy would fill the memory.
    """
    if isinstance(config, WrappedConfig) and config.inner:
        check_sizes(config.policy, path)
    for field in fields(config):
        value = vars(config).get(field.name)
        if field.name.startswith(FREE):
            continue
        least, most = (1, MOST_COUNT) if field.name in COUNTS else (-1, MOST_SIZE)  # -1: LeRobot's "all"
        numbers = value if isinstance(value, list | tuple) else [value]
        wrong = [n for n in numbers if type(n) is int and not least <= n <= most]
        if wrong or (field.name == "down_dims" and not numbers):
            place = "" if path is None else f" of {path}"
            raise UserError(
                f"policy.{field.name}={value}{place} is out of range: choose {least} to {most}"
                + ("" if path is None else ", or download or save the checkpoint again")
            )
    for name, feature in {**(config.input_features or {}), **(config.output_features or {})}.items():
        size = feature.shape
        if not size or not all(type(n) is int and 1 <= n <= MOST_SIZE for n in size):
            place = "" if path is None else f" of {path}"
            raise UserError(
                f"the shape of {name} in the policy's config{place} is {list(size)}: give whole numbers from "
                "1 up, or download or save the checkpoint again"
            )
