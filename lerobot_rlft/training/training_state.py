"""State of a trainer beside the policy, for a resume that gives the same numbers."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lerobot.utils.constants import LAST_CHECKPOINT_LINK, TRAINING_STATE_DIR

from ..hub.push import push_checkpoint
from ..rollout.modes import modes_told
from ..utils.errors import UserError, one_line
from ..utils.run_folder import STATE_JSON
from .checkpoint import forget_revision, load_state, save_checkpoint

if TYPE_CHECKING:
    from .trainer import Trainer


def save_training(trainer: "Trainer") -> None:
    """Write a checkpoint of the trainer as it is, and publish it where that is asked for."""
    state: dict[str, Any] = {
        "algorithm": trainer.algorithm.state_dict(),
        "iteration": trainer.iteration,
        "env_steps": trainer.env_steps,
        "seconds": trainer.seconds,
        "metrics_bytes": trainer.records.size,
        "base_hash": trainer.base_hash,
        "rollback": trainer.rollback.state_dict(),
        "wandb_run_id": trainer.config.wandb.run_id,
    }
    if trainer.batches is not None:
        state["loader"] = trainer.batches.state_dict()
    if trainer.monitor is not None:
        state["monitor"] = trainer.monitor.state_dict()

    def export(folder: Path) -> None:
        # Only here: the state above refers to the weights in place.
        with trainer.algorithm.deployed_weights():
            trainer.policy.save_pretrained(folder)
        if trainer.monitor is not None and trainer.monitor.atlas is not None and modes_told(trainer.policy):
            trainer.monitor.atlas.save(folder)  # commands are numbers of its modes
        forget_revision(folder)

    checkpoint = save_checkpoint(trainer.config, trainer.iteration, export, state)
    trainer.records.saved(checkpoint)
    if trainer.config.save_checkpoint_to_hub and trainer.iteration:
        push_checkpoint(trainer.config, checkpoint)


def load_training(trainer: "Trainer", checkpoint: Path) -> None:
    """Put a trainer where a checkpoint was written.

    Raises:
        UserError: the checkpoint does not fit the configuration.
    """
    config, state = trainer.config, load_state(checkpoint)
    kinds = {
        "algorithm": dict,
        "iteration": int,
        "env_steps": int,
        "seconds": int | float,
        "metrics_bytes": int,
    }
    for name, kind in kinds.items():
        value = state.get(name)
        if not isinstance(value, kind) or (kind is int and value < 0):
            raise UserError(
                f"--resume: {checkpoint / TRAINING_STATE_DIR / STATE_JSON} is damaged, {name} is "
                f"{value!r:.40}: put it back, or let "
                f"{checkpoint.parent / LAST_CHECKPOINT_LINK} point to another checkpoint"
            )
    if state["iteration"] > config.iterations:
        raise UserError(
            f"iterations={config.iterations}, but --resume={config.resume} is already at iteration "
            f"{state['iteration']}: give at least as many"
        )
    if state.get("base_hash", trainer.base_hash) != trainer.base_hash:
        raise UserError(
            f"the base policy at {config.policy.pretrained_path} is not the one this run began with: "
            "put that back, or name its place with --policy.pretrained_path=FOLDER"
        )
    try:
        trainer.algorithm.load_state_dict(state["algorithm"])
        if trainer.batches is not None:
            trainer.batches.load_state_dict(state["loader"])
        if trainer.monitor is not None:
            trainer.monitor.load_state_dict(state["monitor"])
            if trainer.monitor.guard is None:  # switched off by the resume: back to what is configured
                trainer.algorithm.hold(1.0)
        if "rollback" in state:
            trainer.rollback.load_state_dict(state["rollback"])
    except UserError:
        raise
    except Exception as error:  # algorithms and regularizers may be anybody's
        raise UserError(
            f"--resume: the training state in {checkpoint} does not fit the configuration "
            f"({one_line(error)}): resume without changing options that shape the algorithm"
        ) from error
    trainer.iteration, trainer.collector.env_steps = state["iteration"], state["env_steps"]
    trainer.seconds, trainer.log_bytes = state["seconds"], state["metrics_bytes"]
    config.wandb.run_id = config.wandb.run_id or state.get("wandb_run_id")
