"""One tiny iteration, which shows what a run would take and writes nothing."""

from typing import TYPE_CHECKING

from .console import show_dry_run

if TYPE_CHECKING:
    from .trainer import Trainer

DRY_RUN_ENVS, DRY_RUN_DECISIONS = 2, 2


def dry_run(trainer: "Trainer") -> None:
    """Collect and update once, in `DRY_RUN_ENVS` environments for a few decisions, and print sizes."""
    runner = trainer.runner
    max_steps = runner.max_steps if runner else 0
    if runner is not None:
        runner.max_steps = min(max_steps, DRY_RUN_DECISIONS * trainer.policy.n_action_steps)
    data, _ = trainer.collector.collect(0, DRY_RUN_ENVS)
    show_dry_run(trainer, max_steps, data, trainer.algorithm.update(data))
    trainer.close()
