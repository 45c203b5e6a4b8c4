"""Options of `lerobot-rlft-eval`."""

import datetime as dt
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from lerobot.configs import PreTrainedConfig
from lerobot.envs import EnvConfig

from .config import CONFIG_NAME, AtlasConfig, load_policy_config, pretrained_config
from .errors import UserError

SAMPLER = ("noise_scheduler_type", "num_inference_steps")
MOST_ATTEMPTS = 16  # success with a way blocked is reported for up to so many attempts


@dataclass
class CompareConfig:
    """Measure success and mode diversity of a policy beside its base, with the deployed sampler:
    lerobot-rlft-eval --policy.path=TUNED --base.path=BASE --env.type=avoiding --n_episodes=960

    Writes diversity.json, report.html and pictures/.
    """

    # The tuned policy: --policy.path=HUB_ID_OR_FOLDER.
    policy: PreTrainedConfig | None = None
    # What it was tuned from: --base.path=HUB_ID_OR_FOLDER; for a checkpoint of lerobot-rlft-train the base of
    # its run if not given.
    base: PreTrainedConfig | None = None
    env: EnvConfig | None = None
    # Episodes of each policy, on the same seeds. A claim about modes takes 20 successes for each mode.
    n_episodes: int = 960
    # Environments side by side.
    batch_size: int = 240
    # First seed; episode i resets with seed + i.
    seed: int = 1_000_000
    # Initial states for the entropy at a fixed initial state, where the env has several; 0 = leave out.
    n_initial_states: int = 30
    # Attempts at each way blocked, where the environment can block ways; 0 = leave out.
    n_attempts: int = 64
    atlas: AtlasConfig = field(default_factory=AtlasConfig)
    # Folder to create; null = outputs/rlft_eval/DATE/TIME_ENV.
    output_dir: Path | None = None

    @classmethod
    def __get_path_fields__(cls) -> list[str]:
        return ["policy", "base"]

    def resolve(self) -> None:
        """Load the configs of both policies and check the fields.

        Raises:
            UserError: something is missing, unknown or out of range.
        """
        self.policy = pretrained_config("policy") or self.policy
        if self.policy is None or self.policy.pretrained_path is None:
            raise UserError("no policy: give --policy.path=HUB_ID_OR_FOLDER")
        self.base = pretrained_config("base") or self.base
        if self.base is None:
            self.base = _base_of(Path(self.policy.pretrained_path), self.policy.device)
        if self.env is None:
            known = ", ".join(sorted(EnvConfig.get_known_choices()))
            raise UserError(f"no environment: give --env.type=..., one of {known}")
        for name, least in (
            ("n_episodes", 2), ("batch_size", 1), ("seed", 0), ("n_initial_states", 0), ("n_attempts", 0),
        ):  # fmt: skip
            if getattr(self, name) < least:
                raise UserError(f"{name}={getattr(self, name)} must be at least {least}")
        if 0 < self.n_attempts < MOST_ATTEMPTS:
            raise UserError(
                f"n_attempts={self.n_attempts} is too few for success at {MOST_ATTEMPTS} attempts: give at "
                f"least {MOST_ATTEMPTS}, or 0 to leave blocked ways out"
            )
        if self.output_dir is None:
            self.output_dir = (
                Path("outputs/rlft_eval") / f"{dt.datetime.now():%Y-%m-%d/%H-%M-%S}_{self.env.type}"
            )
        if self.output_dir.exists():
            raise UserError(f"--output_dir={self.output_dir} exists: choose another folder")


def _base_of(checkpoint: Path, device: str) -> PreTrainedConfig:
    """The config of the policy that the run of `checkpoint` started from.

    Raises:
        UserError: no run wrote it.
    """
    file = checkpoint / CONFIG_NAME
    if not file.is_file():
        raise UserError(
            f"no base: --policy.path={checkpoint} has no {CONFIG_NAME} that names what it was tuned from, "
            "give --base.path=HUB_ID_OR_FOLDER"
        )
    run = yaml.safe_load(file.read_text())["policy"]
    path = run["pretrained_path"]
    if path is None:
        raise UserError(
            f"no base: the run of --policy.path={checkpoint} began from scratch, give --base.path=..."
        )
    # The run may have given its base another sampler.
    sampler = [f"--{key}={run[key]}" for key in SAMPLER if run.get(key) is not None]
    config = load_policy_config(str(path), [f"--device={device}", *sampler], "base")
    config.pretrained_path = Path(path)
    return config
