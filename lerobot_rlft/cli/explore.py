"""`lerobot-rlft-explore`: how a pretrained policy explores, beside Gaussian noise of equal size."""

import datetime as dt
import json
import math
import time
from dataclasses import dataclass, field
from pathlib import Path

from lerobot import policies  # noqa: F401  registers --policy.type
from lerobot.configs import PreTrainedConfig
from lerobot.envs import EnvConfig
from lerobot.utils.constants import OBS_STATE

from ..configs.check import check_seed
from ..configs.train import pretrained_config
from ..utils.errors import UserError
from ..utils.files import write_text
from . import run_command

NUMBERS, PICTURE = "exploration.json", "exploration.png"


@dataclass
class ExploreConfig:
    """Measure how a pretrained policy explores with its denoising noise, beside Gaussian noise of equal size.

    lerobot-rlft-explore --config_path=structured_exploration --output_dir=outputs/exploration
    lerobot-rlft-explore --policy.path=user/policy --env.type=avoiding
    lerobot-rlft-explore --policy.path=user/policy --env.type=grasps --floors='[0.1, 0.2]' --n_episodes=120

    Nothing is trained.
    """

    # Pretrained policy. Any of its options can be changed, for example --policy.device=cpu.
    policy: PreTrainedConfig | None = None
    # Environment in which the policy acts, for example --env.type=avoiding.
    env: EnvConfig | None = None
    # Smallest standard deviations of the noise of a denoising step; each way of exploring is played at each
    # of them.
    floors: list[float] = field(default_factory=lambda: [0.05, 0.1, 0.2, 0.3])
    # Episodes of each way of exploring at each floor; the base plays twice as many.
    n_episodes: int = 240
    # Chunks of actions drawn from the deployed and from the exploratory sampler at each decision, to fit the
    # Gaussian noise to.
    samples: int = 32
    # Environments that run side by side.
    batch_size: int = 60
    # Random seed of episodes and noise.
    seed: int = 1000
    # Whether to also load checkpoints that can run code of their author: pickled weights, and processor steps
    # that are not LeRobot's.
    trust_remote_code: bool = False
    # Folder to create for exploration.json and exploration.png; null = outputs/rlft_explore/DATE/TIME_ENV.
    output_dir: Path | None = None

    @classmethod
    def __get_path_fields__(cls) -> list[str]:
        """Fields that `--<field>.path` may fill, for LeRobot's parser."""
        return ["policy"]

    def resolve(self) -> None:
        """Load the policy's config and check the fields.

        Raises:
            UserError: something is missing, unknown or out of range.
        """
        self.policy = pretrained_config("policy", self.trust_remote_code) or self.policy
        if self.policy is None or self.policy.pretrained_path is None:
            raise UserError("no policy: give --policy.path=HUB_ID_OR_FOLDER")
        if self.env is None:
            choices = ", ".join(sorted(EnvConfig.get_known_choices()))
            raise UserError(f"no environment: give --env.type=..., one of {choices}")
        if not self.floors or not all(0 < floor < math.inf for floor in self.floors):
            raise UserError(f"floors={self.floors} must hold numbers > 0, for example --floors=[0.1,0.2]")
        self.floors = sorted(set(self.floors))
        for name, least in (("n_episodes", 2), ("samples", 2), ("batch_size", 1)):
            if getattr(self, name) < least:
                raise UserError(f"{name}={getattr(self, name)} must be at least {least}")
        check_seed("seed", self.seed)
        if self.output_dir is None:
            self.output_dir = (
                Path("outputs/rlft_explore") / f"{dt.datetime.now():%Y-%m-%d/%H-%M-%S}_{self.env.type}"
            )
        if self.output_dir.exists():
            raise UserError(f"--output_dir={self.output_dir} exists: choose another folder, or delete it")


def main() -> None:
    run_command(ExploreConfig, run)


def run(config: ExploreConfig) -> None:
    """Measure, write numbers and picture, and say what they mean.

    Raises:
        UserError, EnvironmentFailure, FloatingPointError: to be shown without a traceback.
    """
    # After --help, which needs no models.
    from ..evaluation.exploration_report import conclusion, draw, table
    from ..evaluation.structured_exploration import measure
    from ..policies.loading import load_policy
    from ..rollout.environments import make_runner

    policy = load_policy(config.policy, config.policy.pretrained_path, trust=config.trust_remote_code)
    policy.module.requires_grad_(False)
    runner = make_runner(config.env, policy, min(config.batch_size, config.n_episodes))
    folder, start = config.output_dir, time.perf_counter()
    try:
        check_state(config, runner.vector_sizes)
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise UserError(f"--output_dir={folder} cannot be made ({error}): choose another") from error
        try:
            numbers = measure(runner, config.floors, config.n_episodes, config.samples, config.seed)
        except BaseException:
            folder.rmdir()
            raise
    finally:
        runner.close()
    summary = conclusion(**numbers)
    result = {
        "policy": str(config.policy.pretrained_path),
        "env": config.env.type,
        "seed": config.seed,
        "samples": config.samples,
        "seconds": round(time.perf_counter() - start, 1),
        **numbers,
        "conclusion": summary,
    }
    write_text(folder / NUMBERS, json.dumps(result, indent=2) + "\n")
    draw(folder / PICTURE, **numbers)
    print(f"\n{table(**numbers)}\n\n{summary}\n\nNumbers and picture: {folder}")


def check_state(config: ExploreConfig, vectors: dict[str, int]) -> None:
    """Raise a UserError if the environment's observations hold no path to compare.

    Args:
        vectors: LeRobot key -> numbers in a vector that the environment gives.
    """
    if OBS_STATE not in vectors:
        raise UserError(
            f"env.type={config.env.type} gives no {OBS_STATE}, whose path is compared (it gives "
            f"{', '.join(vectors) or 'no vectors'}): choose an environment or obs_type with agent_pos"
        )
