"""`lerobot-rlft-demos`: write demonstrations as a LeRobotDataset."""

import logging
from dataclasses import dataclass
from pathlib import Path

from lerobot.envs import EnvConfig

from ..configs.check import check_seed
from ..utils.errors import UserError
from ..utils.recipes import folder
from . import run_command

WITH_DEMONSTRATIONS = ("avoiding", "grasps", "pusht")


@dataclass
class DemosConfig:
    """Write demonstrations of a task as a LeRobotDataset, to clone a base policy from.

    lerobot-rlft-demos --env.type=avoiding --root=outputs/avoiding_demos
    lerobot-rlft-demos --env.type=grasps --root=outputs/grasps_demos --episodes_per_mode=10 --noise=0.05
    lerobot-rlft-demos --env.type=pusht --root=outputs/pusht_demos --episodes=50

    Demonstrations of avoiding and grasps are scripted, every mode equally often; those of pusht are human
    recordings that come with this package.
    """

    # Task to demonstrate: avoiding, grasps or pusht.
    env: EnvConfig | None = None
    # Folder to create for the dataset.
    root: Path | None = None
    # Name of the dataset; null = local/ENV_TYPE.
    repo_id: str | None = None
    # Scripted tasks: episodes in each mode; null = 4 in each of the 24 modes of avoiding, 40 in each of the 5
    # of grasps.
    episodes_per_mode: int | None = None
    # Scripted tasks: standard deviation of the noise on actions; null = .003 metres for avoiding, .1 for
    # grasps.
    noise: float | None = None
    # Scripted tasks: random seed of paths and noise.
    seed: int = 0
    # Push-T: npz file of the recordings; null = those that come with this package.
    source: Path | None = None
    # Push-T: number of episodes to convert, from the first on; null = all.
    episodes: int | None = None

    def resolve(self) -> None:
        """Check the fields.

        Raises:
            UserError: something is missing.
        """
        if self.env is None or self.env.type not in WITH_DEMONSTRATIONS:
            raise UserError(f"no task: give --env.type=..., one of {', '.join(WITH_DEMONSTRATIONS)}")
        if self.root is None:
            raise UserError("no place: give --root=FOLDER, which is created")
        check_seed("seed", self.seed)
        self.repo_id = self.repo_id or f"local/{self.env.type}"
        self.source = self.source or folder() / "data/pusht_human_206.npz"


def main() -> None:
    run_command(DemosConfig, run)


def run(config: DemosConfig) -> None:
    """Write the dataset.

    Raises:
        UserError: to be shown without a traceback.
    """
    logging.disable(logging.INFO)
    options = {"episodes_per_mode": config.episodes_per_mode, "noise": config.noise, "seed": config.seed}
    # What is not given stays the task's own default.
    overrides = {name: value for name, value in options.items() if value is not None}
    try:
        if config.env.type == "avoiding":
            from ..envs.avoiding.demonstrations import write_demonstrations

            dataset = write_demonstrations(config.root, config.repo_id, **overrides, lag=config.env.lag)
        elif config.env.type == "grasps":
            from ..envs.grasps.demonstrations import write_demonstrations

            dataset = write_demonstrations(config.root, config.repo_id, **overrides)
        else:
            from ..envs.pusht.demonstrations import write_demonstrations

            dataset = write_demonstrations(config.source, config.root, config.repo_id, config.episodes)
    except (ValueError, OSError, ImportError) as error:
        raise UserError(str(error)) from error
    print(
        f"{dataset.num_episodes} episodes, {dataset.num_frames} frames in {config.root}. Train on them with\n"
        f"  --dataset.repo_id={config.repo_id} --dataset.root={config.root}"
    )
