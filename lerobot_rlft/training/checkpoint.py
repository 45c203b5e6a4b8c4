"""Checkpoints: `pretrained_model/` is an ordinary LeRobot policy, `training_state/` is what a resume needs.

A checkpoint is written under a temporary name and renamed when whole, so a kill at any moment leaves the
last whole one. Only safetensors, JSON and YAML are written and read.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import draccus
import torch
import yaml
from lerobot.common.train_utils import get_step_checkpoint_dir
from lerobot.utils.constants import (
    CHECKPOINTS_DIR,
    LAST_CHECKPOINT_LINK,
    PRETRAINED_MODEL_DIR,
    TRAINING_STATE_DIR,
)
from lerobot.utils.random_utils import load_rng_state, save_rng_state
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..configs.train import TrainConfig
from ..utils.errors import UserError
from ..utils.files import explained, make_folder, remove, replacing, write_text
from ..utils.run_folder import CONFIG_NAME, ROUNDS, STATE_JSON, STATE_TENSORS

TENSOR = "tensor:"  # marks a string in state.json that stands for an entry of state.safetensors


def save_checkpoint(
    config: TrainConfig, iteration: int, save_pretrained: Callable[[Path], None], state: dict[str, Any]
) -> Path:
    """Write `checkpoints/<iteration>/` and point `checkpoints/last` to it.

    Args:
        save_pretrained: writes policy and processors into a folder.
        state: nested dicts and lists of tensors and JSON values; keys are names or ints.

    Returns:
        The checkpoint's folder.

    Raises:
        StorageFailure: it cannot be written; nothing is left of it.
    """
    final = get_step_checkpoint_dir(config.output_dir, config.iterations, iteration)
    # An earlier run may have left one beyond the point that it was resumed from.
    with replacing(final) as partial:
        make_folder(final.parent, parents=False)  # the folder of the run may have been moved away
        partial.mkdir()
        save_pretrained(partial / PRETRAINED_MODEL_DIR)
        write_config(config, partial / PRETRAINED_MODEL_DIR / CONFIG_NAME)
        write_state(partial, state)
    link_last(final)
    return final


def link_last(checkpoint: Path) -> None:
    """Let `checkpoints/last` point to a checkpoint."""
    with replacing(checkpoint.parent / LAST_CHECKPOINT_LINK) as link:
        link.symlink_to(checkpoint.name)


def write_state(checkpoint: Path, state: dict[str, Any]) -> None:
    """Write `training_state/`, with the random states of all libraries, for `load_state`."""
    folder = checkpoint / TRAINING_STATE_DIR
    folder.mkdir(parents=True)
    save_rng_state(folder)
    tensors: dict[str, torch.Tensor] = {}
    (folder / STATE_JSON).write_text(json.dumps(_flatten(state, "", tensors)))
    save_file(tensors, folder / STATE_TENSORS)


def load_state(checkpoint: Path) -> dict[str, Any]:
    """Read what `save_checkpoint` was given as `state` and restore the random states of its libraries.

    Raises:
        UserError: a file is missing or truncated.
    """
    folder = checkpoint / TRAINING_STATE_DIR
    try:
        tensors = load_file(folder / STATE_TENSORS)
        state = _unflatten(json.loads((folder / STATE_JSON).read_text()), tensors)
        if not isinstance(state, dict):
            raise ValueError(f"{STATE_JSON} holds no object")
        load_rng_state(folder)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise UserError(
            f"--resume: {folder} is missing or truncated ({type(error).__name__}: {error}); point "
            f"{checkpoint.parent}/{LAST_CHECKPOINT_LINK} to an older whole checkpoint, or start a new run"
        ) from error
    return state


def last_checkpoint(run_dir: Path) -> Path:
    """The newest whole checkpoint of a run.

    Raises:
        UserError: there is no such run, or it has no whole checkpoint.
    """
    checkpoints = run_dir / CHECKPOINTS_DIR
    if not checkpoints.is_dir():
        raise UserError(f"--resume={run_dir} is not the folder of a run: it has no {CHECKPOINTS_DIR}/")
    link = checkpoints / LAST_CHECKPOINT_LINK
    # Not resolved: a relative `run_dir` stays relative in what is printed and written.
    folders = [checkpoints / link.readlink()] if link.is_symlink() else []
    folders += sorted((folder for folder in checkpoints.iterdir() if folder.name.isdigit()), reverse=True)
    for folder in folders:
        if (folder / PRETRAINED_MODEL_DIR / CONFIG_NAME).is_file():
            return folder
    raise UserError(
        f"--resume={run_dir} has no whole checkpoint in {CHECKPOINTS_DIR}/: delete it and start the run anew"
    )


def way_on(run_dir: Path, resume_command: str) -> str:
    """Advice after a run ended early."""
    try:
        checkpoint = last_checkpoint(run_dir)
    except UserError:
        return f"No checkpoint was written yet: delete {run_dir} and start again"
    return f"The checkpoint of iteration {int(checkpoint.name)} is whole; continue with\n  {resume_command}"


def saved_config(run_dir: Path) -> Path:
    """The configuration file of a run: of its last checkpoint, or, where it learns in rounds, its own.

    Raises:
        UserError: there is no such run, or nothing to continue.
    """
    own = run_dir / CONFIG_NAME
    if (run_dir / ROUNDS).is_dir() and own.is_file():
        return own
    return last_checkpoint(run_dir) / PRETRAINED_MODEL_DIR / CONFIG_NAME


def remove_partial(run_dir: Path) -> None:
    """Delete what a kill in the middle of writing left.

    Raises:
        StorageFailure: it cannot be deleted.
    """
    earlier = (run_dir / CHECKPOINTS_DIR).glob(".*.partial")  # as versions before this one called them
    for path in [*run_dir.rglob(".partial.*"), *earlier]:
        with explained(path):
            remove(path)


def write_config(config: TrainConfig, path: Path) -> None:
    """Write the configuration as YAML.

    What belongs to this run alone is left out, so that `--config_path` of the file starts a new one: how it
    was started, its folder, its run of wandb, and whose code was trusted.
    """
    wandb = replace(config.wandb, run_id=None)
    public = replace(
        config, resume=None, dry_run=False, output_dir=None, wandb=wandb, trust_remote_code=False
    )
    # By way of JSON: draccus hands over enums that are strings, which YAML would write as Python objects.
    plain = json.loads(json.dumps(draccus.encode(public)))
    write_text(path, yaml.safe_dump(plain, sort_keys=False))


def forget_revision(folder: Path) -> None:
    """Take the commit of the base out of a policy's config: uploaded, stock LeRobot takes it for its own."""
    config = folder / "config.json"
    content = json.loads(config.read_text()) | {"pretrained_revision": None}
    config.write_text(json.dumps(content, indent=4) + "\n")


def _flatten(value: Any, key: str, tensors: dict[str, torch.Tensor]) -> Any:
    """Replace tensors by markers, collecting them in `tensors`."""
    if isinstance(value, torch.Tensor):
        tensors[key] = value.detach().cpu().contiguous().clone()
        return TENSOR + key
    if isinstance(value, dict):
        return {str(k): _flatten(v, f"{key}/{k}", tensors) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_flatten(v, f"{key}/{i}", tensors) for i, v in enumerate(value)]
    return value


def _unflatten(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """Inverse of `_flatten`; dict keys that are digits become ints again, as torch optimizers want them."""
    if isinstance(value, str) and value.startswith(TENSOR):
        return tensors[value.removeprefix(TENSOR)]
    if isinstance(value, dict):
        return {int(k) if k.isdigit() else k: _unflatten(v, tensors) for k, v in value.items()}
    if isinstance(value, list):
        return [_unflatten(v, tensors) for v in value]
    return value
