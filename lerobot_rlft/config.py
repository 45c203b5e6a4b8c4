"""The whole run as one draccus dataclass, with the names that `lerobot-train` uses where it has the same thing."""

import datetime as dt
import difflib
from dataclasses import dataclass, field
from pathlib import Path

import draccus
from lerobot.configs import PreTrainedConfig, parser
from lerobot.configs.default import WandBConfig
from lerobot.envs import EnvConfig, env_to_policy_features
from lerobot.utils.constants import ACTION

from .algorithms.base import AlgorithmConfig
from .errors import UserError

CONFIG_NAME = "rlft_config.yaml"


@dataclass
class DatasetConfig:
    """Demonstrations, for algorithms that learn from a dataset."""

    # Hub id, or any name together with `root`.
    repo_id: str = ""
    # Folder of a local dataset.
    root: Path | None = None
    # Episodes to use; null = all.
    episodes: list[int] | None = None
    # Branch, tag or commit of a Hub dataset.
    revision: str | None = None


@dataclass
class RolloutConfig:
    """Collection of experience."""

    # Environments side by side.
    n_envs: int = 50
    # Whole episodes of one iteration, a multiple of n_envs.
    n_episodes: int = 100
    # One process for each environment; for slow simulators.
    use_async_envs: bool = False

    def __post_init__(self) -> None:
        if self.n_envs < 1:
            raise ValueError(f"rollout.n_envs={self.n_envs} must be at least 1")
        if self.n_episodes < self.n_envs or self.n_episodes % self.n_envs:
            raise ValueError(
                f"rollout.n_episodes={self.n_episodes} must be a multiple of rollout.n_envs={self.n_envs}, "
                f"for example {max(1, round(self.n_episodes / self.n_envs)) * self.n_envs}"
            )


@dataclass
class EvalConfig:
    """Evaluation of the deployed sampler, always on the same seeds."""

    # Episodes of the first and the last evaluation.
    n_episodes: int = 240
    # Episodes of evaluations in between.
    n_episodes_during: int = 120
    # Environments side by side.
    batch_size: int = 120
    # First seed; episode i resets with seed + i.
    seed: int = 1_000_000
    # Episodes filmed at the first and the last evaluation; 0 = no videos.
    n_videos: int = 4

    def __post_init__(self) -> None:
        for name in ("n_episodes", "n_episodes_during", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"eval.{name}={getattr(self, name)} must be at least 1")
        if self.seed < 0 or self.n_videos < 0:
            raise ValueError(f"eval.seed={self.seed} and eval.n_videos={self.n_videos} must not be negative")


@dataclass
class TrainConfig:
    """Fine-tune a pretrained LeRobot policy: lerobot-rlft-train --policy.path=user/policy --env.type=avoiding

    Show the options of one choice with, for example, --algorithm.type=dppo --env.type=avoiding --help.
    """

    algorithm: AlgorithmConfig
    # The pretrained policy: --policy.path=HUB_ID_OR_FOLDER, any of its fields can be overridden (--policy.device=cpu).
    policy: PreTrainedConfig | None = None
    # Where it acts, for example --env.type=avoiding or --env.type=pusht.
    env: EnvConfig | None = None
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    # dppo: rounds of collect + update. bc: gradient steps.
    iterations: int = 50
    # Iterations between evaluations, checkpoints and lines of metrics; 0 = only at the end.
    eval_freq: int = 5
    save_freq: int = 10
    log_freq: int = 1
    seed: int = 1000
    # Folder of the run; it must not exist.
    output_dir: Path | None = None
    job_name: str | None = None
    # Continue the run in this folder from its last checkpoint, with its own configuration.
    resume: Path | None = None
    # Build everything, run one tiny iteration, print sizes, write nothing.
    dry_run: bool = False
    wandb: WandBConfig = field(default_factory=WandBConfig)

    @classmethod
    def __get_path_fields__(cls) -> list[str]:
        """Fields that `--<field>.path` may fill, for LeRobot's parser."""
        return ["policy"]

    # LeRobot's wandb logger asks for it.
    is_reward_model_training = False

    def to_dict(self) -> dict:
        return draccus.encode(self)

    def resolve(self) -> None:
        """Load the pretrained policy's config and check the fields against each other.

        Raises:
            UserError: something is missing, unknown or contradictory.
        """
        path = parser.get_path_arg("policy")
        if path:
            overrides = parser.get_yaml_overrides("policy") + (parser.get_cli_overrides("policy") or [])
            self.policy = load_policy_config(path, overrides)
            self.policy.pretrained_path = Path(path)
        if self.policy is None:
            raise UserError(
                "no policy: give --policy.path=HUB_ID_OR_FOLDER (a pretrained one) or, to clone behaviour from scratch, "
                "--policy.type=diffusion"
            )
        self._check_sizes()
        if self.algorithm.consumes == "rollouts":
            if self.policy.pretrained_path is None:
                raise UserError(
                    f"algorithm.type={self.algorithm.type} improves a pretrained policy: give --policy.path=..."
                )
            if self.env is None:
                raise UserError(
                    f"algorithm.type={self.algorithm.type} needs an environment: give --env.type=..., one of "
                    f"{', '.join(sorted(EnvConfig.get_known_choices()))}"
                )
        elif not self.dataset.repo_id:
            raise UserError(
                f"algorithm.type={self.algorithm.type} learns from a dataset: give --dataset.repo_id=HUB_ID, or "
                "--dataset.repo_id=local/name --dataset.root=FOLDER"
            )
        if self.env is not None and self.policy.input_features:
            check_features(self.policy, self.env)
        self.job_name = self.job_name or "_".join(
            part
            for part in (self.env.type if self.env else "", self.policy.type, self.algorithm.type)
            if part
        )
        if self.output_dir is None:
            self.output_dir = Path("outputs/rlft") / f"{dt.datetime.now():%Y-%m-%d/%H-%M-%S}_{self.job_name}"
        if self.output_dir.exists() and not self.dry_run:
            raise UserError(
                f"--output_dir={self.output_dir} exists: choose another folder, or continue that run with "
                f"--resume={self.output_dir}"
            )

    def _check_sizes(self) -> None:
        if self.iterations < 1:
            raise UserError(f"iterations={self.iterations} must be at least 1")
        for name in ("eval_freq", "save_freq", "log_freq", "seed"):
            if getattr(self, name) < 0:
                raise UserError(f"{name}={getattr(self, name)} must not be negative")


def load_policy_config(path: str, overrides: list[str]) -> PreTrainedConfig:
    """Read a checkpoint's `config.json` from the Hub or from disk.

    Raises:
        UserError: there is none, or it is not readable.
    """
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if (Path(path).exists() or path.count("/") != 1) and not (Path(path) / "config.json").is_file():
        raise UserError(
            f"--policy.path={path} is no checkpoint: a folder with config.json and model.safetensors is wanted "
            "(a run's checkpoints/last/pretrained_model), or a Hub id user/name"
        )
    try:
        return PreTrainedConfig.from_pretrained(path, cli_overrides=overrides)
    except (FileNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        raise UserError(f"--policy.path={path} cannot be read: {error}") from error
    except (ValueError, draccus.utils.ParsingError) as error:
        raise UserError(f"--policy.path={path} has an unusable config.json: {error}") from error


def check_features(policy: PreTrainedConfig, env: EnvConfig) -> None:
    """Compare what the policy expects with what the environment gives.

    Raises:
        UserError: names every feature that is missing or has another shape.
    """
    offered = env_to_policy_features(env)
    problems = [
        f"{key} is {'missing' if key not in offered else tuple(offered[key].shape)} instead of {tuple(ft.shape)}"
        for key, ft in {**(policy.input_features or {}), **(policy.output_features or {})}.items()
        if key not in offered or tuple(offered[key].shape) != tuple(ft.shape)
    ]
    if problems:
        known = ", ".join(f"{key} {tuple(ft.shape)}" for key, ft in offered.items())
        raise UserError(
            f"policy and env.type={env.type} do not fit: {'; '.join(problems)}. The environment offers {known}. "
            "Choose the environment (or its obs_type) that the policy was trained for"
        )
    assert ACTION in offered


def suggest(unknown: str, known: list[str]) -> str:
    """The end of an error sentence: the closest name, or all of them."""
    close = difflib.get_close_matches(unknown, known, n=1)
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(sorted(known))}"
