"""`lerobot-rlft-train`: fine-tune a pretrained policy, or clone behaviour."""

import sys
from pathlib import Path
from typing import Any

import yaml
from lerobot.configs import parser

from .. import algorithms  # noqa: F401  registers --algorithm.type
from ..configs.options import as_yaml
from ..configs.packages import explained_packages, given_packages
from ..configs.parser import parse_command_line, split
from ..configs.train import TrainConfig
from ..training.checkpoint import saved_config
from ..utils.errors import EnvironmentFailure, RatioError, UserError
from ..utils.signals import Interrupted, sigterm_as_interrupt
from . import quiet
from .plugins import load_plugins

# With --resume the run's own configuration decides about these.
HUB = "hub:"
NOT_WITH_RESUME = ("config_path", "output_dir", "policy.path")


def main() -> None:
    try:
        with sigterm_as_interrupt():
            load_plugins()
            quiet()
            run(read_config())
    except (UserError, EnvironmentFailure, FloatingPointError, RatioError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("\nstopped before the run began, nothing was changed")


def read_config() -> TrainConfig:
    """Parse the command line; with `--resume`, on top of the configuration of that run's last checkpoint.

    Raises:
        UserError: an option is unknown or not usable.
    """
    resume = parser.parse_arg("resume")
    if resume is None:
        config = _parse()
        config.resolve()
        return config
    from_hub = resume.startswith(HUB)
    for name in NOT_WITH_RESUME:
        if from_hub and name == "output_dir":
            continue
        if parser.parse_arg(name) is not None:
            raise UserError(
                f"--{name} does not go with --resume={resume}, which continues that run: leave one out"
            )
    run_dir = Path(resume)
    if from_hub:
        from ..hub.client import download_run

        name = resume.removeprefix(HUB)
        run_dir = Path(parser.parse_arg("output_dir") or Path("outputs/rlft") / name.replace("/", "_"))
        download_run(name, run_dir)
        print(f"{resume} is in {run_dir}")
    file = saved_config(run_dir)
    sys.argv.append(f"--config_path={file}")
    config = _parse()
    check_same_task(config, yaml.safe_load(file.read_text())["env"], resume)
    config.output_dir = config.resume = run_dir
    if config.algorithm.consumes == "episodes" and parser.parse_arg("algorithm.stage") is None:
        config.algorithm.stage = "all"  # a stage is asked for once; --resume goes on with what is left
    config.check()
    return config


def _parse() -> TrainConfig:
    with explained_packages():
        config = parse_command_line(TrainConfig)
    config.packages |= given_packages()
    return config


def check_same_task(config: TrainConfig, env: dict[str, Any] | None, resume: str) -> None:
    """Raise a UserError if an option on the command line changes the environment of the run."""
    flags, _ = split(sys.argv[1:])
    now = config.to_dict()["env"] or {}
    for name in (name.removeprefix("env.") for name in flags if env and name.startswith("env.")):
        if name in env and now.get(name) != env[name]:
            raise UserError(
                f"--env.{name}={flags[f'env.{name}']} does not go with --resume={resume}: that run has "
                f"env.{name}={as_yaml(env[name])}, and another task is another run. Leave it out, or begin "
                "a run of its own"
            )


def run(config: TrainConfig) -> None:
    """Build the trainer and run it.

    Raises:
        UserError, EnvironmentFailure, FloatingPointError, RatioError: to be shown without a traceback.
        SystemExit: after Ctrl-C, once the run is saved; says how to go on.
    """
    if config.only_sizes:
        from ..training.footprint import plan

        print(plan(config))
        return
    from ..training.rounds import Rounds  # after --help, which needs no models
    from ..training.trainer import Trainer

    trainer = Rounds(config) if config.algorithm.consumes == "episodes" else Trainer(config)
    if config.dry_run:
        trainer.dry_run()
        return
    try:
        trainer.train()
    except Interrupted as stop:
        sys.exit(f"\n{stop}")
