"""Processing of environment observations into a policy's inputs."""

import torch
from lerobot.processor import NormalizerProcessorStep, PolicyProcessorPipeline
from lerobot.utils.constants import OBS_PREFIX
from torch import Tensor

from ..utils.errors import UserError


def normalise_observations(
    obs: dict[str, Tensor], preprocessor: PolicyProcessorPipeline, task: str = ""
) -> dict[str, Tensor]:
    """Run a LeRobot preprocessor over observations with a history dimension.

    Stored images are uint8 (a quarter of the memory); they become float in [0, 1] here, as LeRobot feeds
    them.

    Args:
        obs: LeRobot keys, each (B, S, ...).
        preprocessor: works on (B, ...).
        task: the instruction of all rows, for a preprocessor that tokenizes it.

    Returns:
        The policy's observation keys (a preprocessor may rename), each (B, S, ...), normalised, on its
        device.

    Raises:
        UserError: the statistics are of another robot or environment.
    """
    batch, steps = next(iter(obs.values())).shape[:2]
    frames = {k: v.flatten(0, 1) for k, v in obs.items()}
    frames = {k: v.float() / 255 if v.dtype == torch.uint8 else v for k, v in frames.items()}
    try:
        processed = preprocessor(frames | {"task": [task] * (batch * steps)})
    except RuntimeError:
        check_sizes(preprocessor, frames)
        raise
    return {k: v.unflatten(0, (batch, steps)) for k, v in processed.items() if k.startswith(OBS_PREFIX)}


def check_sizes(preprocessor: PolicyProcessorPipeline, frames: dict[str, Tensor]) -> None:
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
