"""`lerobot-rlft-train`: fine-tune a pretrained policy, or clone behaviour."""

import logging
import sys
from pathlib import Path

from lerobot.configs import parser
from lerobot.utils.import_utils import register_third_party_plugins
from lerobot.utils.utils import init_logging

from .. import algorithms  # noqa: F401  registers --algorithm.type
from ..checkpoint import last_checkpoint
from ..config import CONFIG_NAME, TrainConfig
from ..errors import EnvironmentFailure, UserError


def main() -> None:
    register_third_party_plugins()
    init_logging()
    logging.getLogger("lerobot").setLevel(logging.WARNING)
    resume = parser.parse_arg("resume")
    try:
        config = read_config(Path(resume) if resume else None)
        run(config)
    except (UserError, EnvironmentFailure, FloatingPointError) as error:
        sys.exit(f"error: {error}")


def read_config(resume: Path | None) -> TrainConfig:
    """Parse the command line; with `--resume`, on top of the configuration of that run's last checkpoint."""
    if resume is None:
        config = _parse()
        config.resolve()
        return config
    from lerobot.utils.constants import PRETRAINED_MODEL_DIR

    saved = last_checkpoint(resume) / PRETRAINED_MODEL_DIR / CONFIG_NAME
    sys.argv.append(f"--config_path={saved}")
    config = _parse()
    config.output_dir = resume
    return config


@parser.wrap()
def _parse(config: TrainConfig) -> TrainConfig:
    return config


def run(config: TrainConfig) -> None:
    """Build the trainer and run it; on Ctrl-C say how to go on."""
    from ..trainer import Interrupted, Trainer  # after --help, which needs no torch models

    trainer = Trainer(config)
    if config.dry_run:
        trainer.dry_run()
        return
    command = f"lerobot-rlft-train --resume={config.output_dir}"
    try:
        trainer.train()
    except (Interrupted, KeyboardInterrupt):
        sys.exit(f"\nStopped at iteration {trainer.iteration}. Continue with:\n  {command}")
    except (EnvironmentFailure, FloatingPointError) as error:
        saved = (config.output_dir / "checkpoints").exists()
        hint = f"; the last checkpoint is whole, continue with {command}" if saved else ""
        raise type(error)(f"iteration {trainer.iteration + 1}: {error}{hint}") from error
