"""Publishing by a run itself, while it trains and at its end."""

import shlex
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..configs.packages import flags
from ..configs.push import PushConfig
from ..configs.train import TrainConfig
from ..utils.errors import UserError, one_line


def push_checkpoint(config: TrainConfig, checkpoint: Path) -> None:
    """Push a checkpoint with its training state under its number as a tag; warns where that fails."""
    name = checkpoint.name
    try:
        _push(config, checkpoint=name, tag=name, training_state=True)
    except Exception as error:  # of any kind: the next one may succeed, and this one lies on disk
        tqdm.write(f"warning: checkpoint {name} was not pushed: {_reason(error)}")


def push_finished(config: TrainConfig) -> None:
    """Push the exported checkpoint of a finished run.

    Raises:
        UserError: it failed; the message says how to do it later.
    """
    try:
        address = _push(config, training_state=config.save_checkpoint_to_hub)
    except Exception as error:  # of any kind: the run is whole
        packages = flags(config.packages)
        later = f"lerobot-rlft-push --run_dir={shlex.quote(str(config.output_dir))}{packages}"
        raise UserError(
            f"the run is finished and lies in {config.output_dir}, but was not pushed: {_reason(error)}. "
            f"Push it later with\n  {later} --repo_id={config.repo_id}"
            + ("" if config.private is None else f" --private={str(config.private).lower()}")
            + ("" if config.license is None else f" --license={shlex.quote(config.license)}")
        ) from error
    print(f"\nPublished: {address}")


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, UserError) else one_line(error)


def _push(config: TrainConfig, **options: Any) -> str:
    """Publish a checkpoint, see `config_push`; returns the commit's address."""
    from .bundle import push_run  # draws; most runs push nothing

    target = {"repo_id": config.repo_id, "private": config.private, "license": config.license}
    return push_run(PushConfig(run_dir=config.output_dir, **target, **options))
