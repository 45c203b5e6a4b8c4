"""Processing of environment observations into a policy's inputs."""

from collections.abc import Mapping
from typing import Any

import torch
from lerobot.processor import NormalizerProcessorStep, PolicyProcessorPipeline
from lerobot.utils.constants import OBS_PREFIX
from torch import Tensor

from ..utils.errors import UserError
from .base import DenoisingPolicy

TASK = "rlft.task"  # among observations where there are several tasks, (B, 1) long: the number of the task


def task_numbers(task: str | tuple[str, ...], batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """`TASK` for the rows of a dataset's batch, by their instructions; nothing where there is one task.

    Raises:
        ValueError: an instruction is of no task.
    """
    if isinstance(task, str):
        return {}
    sentences = batch["task"]
    if unknown := sorted({*sentences} - {*task}):
        raise ValueError(f"the instruction {unknown[0]!r} is of none of the tasks: {'; '.join(task)}")
    return {TASK: torch.tensor([[task.index(sentence)] for sentence in sentences])}


def instructions(task: str | tuple[str, ...], obs: dict[str, Tensor], batch: int) -> list[str]:
    """The instruction of each of `batch` rows."""
    return [task] * batch if isinstance(task, str) else [task[i] for i in obs[TASK].flatten().tolist()]


def normalise_observations(
    obs: dict[str, Tensor], preprocessor: PolicyProcessorPipeline, task: str | tuple[str, ...] = ""
) -> dict[str, Tensor]:
    """Run a LeRobot preprocessor over observations with a history dimension.

    Stored images are uint8 (a quarter of the memory); they become float in [0, 1] here, as LeRobot feeds
    them.

    Args:
        obs: LeRobot keys, each (B, S, ...), and `TASK` where `task` is one of several.
        preprocessor: works on (B, ...).
        task: the instruction of all rows, for a preprocessor that tokenizes it; or those of several tasks.

    Returns:
        The policy's observation keys (a preprocessor may rename), each (B, S, ...), normalised, on its
        device.

    Raises:
        UserError: the statistics are of another robot or environment.
    """
    batch, steps = next(v for k, v in obs.items() if k != TASK).shape[:2]
    frames = {k: v.flatten(0, 1) for k, v in obs.items() if k != TASK}
    frames = {k: v.float() / 255 if v.dtype == torch.uint8 else v for k, v in frames.items()}
    of_rows = instructions(task, obs, batch)
    try:
        processed = preprocessor(frames | {"task": [text for text in of_rows for _ in range(steps)]})
    except RuntimeError:
        _check_lengths(preprocessor, frames)
        raise
    return {k: v.unflatten(0, (batch, steps)) for k, v in processed.items() if k.startswith(OBS_PREFIX)}


def _check_lengths(preprocessor: PolicyProcessorPipeline, frames: dict[str, Tensor]) -> None:
    """Raise a UserError if the statistics of a vector have another length than the vector."""
    for step in preprocessor.steps:
        if not isinstance(step, NormalizerProcessorStep):
            continue
        for name, value in step.state_dict().items():
            own = frames.get(name.rpartition(".")[0])
            if own is not None and own.ndim == 2 and value.numel() not in (1, own.shape[1]):
                raise UserError(
                    f"the policy's {name} has {value.numel()} numbers and the environment's observation "
                    f"{own.shape[1]}: the statistics are of another robot or environment, give those of this "
                    "one with --policy.stats_from=DATASET"
                )


def check_processors(policy: DenoisingPolicy) -> None:
    """Run both processors once, on zeros: an error of theirs shows here, and not in the middle of a run.

    Raises:
        Exception: of a processor, whatever it raises.
    """
    features = policy.module.config.input_features
    obs = {key: torch.zeros(1, policy.n_obs_steps, *feature.shape) for key, feature in features.items()}
    normalise_observations(obs, policy.preprocessor, policy.task)
    policy.postprocessor(torch.zeros(1, 1, *policy.module.config.action_feature.shape))
