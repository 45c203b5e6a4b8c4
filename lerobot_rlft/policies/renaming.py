"""`--rename_map`: an environment's observations under the names that a policy reads, as in stock LeRobot.

The map stands in the policy's preprocessor, and so in every checkpoint that is saved.
"""

from collections.abc import Collection
from typing import Any

from lerobot.processor import RenameObservationsProcessorStep
from lerobot.utils.constants import OBS_IMAGES

from ..utils.errors import UserError
from .base import DenoisingPolicy


def rename_inputs(policy: DenoisingPolicy, rename_map: dict[str, str] | None) -> None:
    """Let a policy read observations by these names, environment's -> policy's; None changes nothing."""
    if rename_map is None:
        return
    steps = policy.preprocessor.steps
    for step in steps:
        if isinstance(step, RenameObservationsProcessorStep):
            step.rename_map = dict(rename_map)
            return
    policy.preprocessor.steps = [RenameObservationsProcessorStep(rename_map=dict(rename_map)), *steps]


def renames_of(policy: DenoisingPolicy) -> dict[str, str]:
    """The names, environment's -> policy's, that a policy's preprocessor gives to observations."""
    return next(
        (s.rename_map for s in policy.preprocessor.steps if isinstance(s, RenameObservationsProcessorStep)),
        {},
    )


def saved_renames(processors: list[Any] | None) -> dict[str, str]:
    """The same of a checkpoint, from the JSON of its processors; None where it has none."""
    for step in processors[0]["steps"] if processors else ():
        if step.get("registry_name") == "rename_observations_processor":
            return step.get("config", {}).get("rename_map", {})
    return {}


def check_rename_map(rename_map: dict[str, str] | None) -> None:
    """Raise a UserError if a map gives two observations the same name, or one no name."""
    sources: dict[str, str] = {}
    for source, target in (rename_map or {}).items():
        if not (source and target):
            raise UserError(
                f"rename_map={rename_map} renames {source!r} to {target!r}: give a name on both sides, or "
                "leave it out"
            )
        if target in sources:
            raise UserError(
                f"rename_map={rename_map} renames both {sources[target]} and {source} to {target}: give each "
                "a name of its own"
            )
        sources[target] = source


def rename_problems(
    rename_map: dict[str, str], offered: Collection[str], reads: Collection[str]
) -> list[str]:
    """What is wrong with a map beside an environment and a policy, in words.

    Args:
        offered: names of the environment's observations.
        reads: those of the policy.
    """
    problems = []
    for source, target in rename_map.items():
        if source not in offered:
            problems.append(f"rename_map renames {source}, which the environment does not give")
        elif target not in reads:
            problems.append(f"rename_map renames {source} to {target}, which the policy does not read")
        elif target in offered and target not in rename_map:
            problems.append(f"rename_map renames {source} to {target}, which the environment gives, too")
    return problems


def not_given(missing: list[str], empty_cameras: int) -> list[str]:
    """Those of a policy's missing inputs that `policy.empty_cameras` does not fill with black."""
    cameras = [key for key in missing if key.startswith(OBS_IMAGES)]
    filled = cameras if len(cameras) <= empty_cameras else []
    return [key for key in missing if key not in filled]
