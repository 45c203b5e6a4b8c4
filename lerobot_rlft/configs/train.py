"""The whole run as one draccus dataclass, with the names of `lerobot-train` where it has the same thing."""

import datetime as dt
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import draccus
import lerobot.policies  # noqa: F401  registers the policy types
from draccus.parsers.decoding import decode_dataclass
from lerobot.configs import PreTrainedConfig, parser
from lerobot.configs.default import PeftConfig, WandBConfig
from lerobot.envs import EnvConfig
from lerobot.utils.constants import CHECKPOINTS_DIR

from ..algorithms.base import AlgorithmConfig
from ..algorithms.configuration_on_policy import OnPolicyConfig
from ..algorithms.nft import NFTConfig
from ..algorithms.refit import RefitConfig
from ..diversity.atlas import AtlasConfig
from ..diversity.guard import GuardConfig
from ..policies.pretrained_files import check_repo_id
from ..regularizers.mode_balance import BalanceConfig
from ..regularizers.rehearsal import RehearsalConfig
from ..utils.errors import UserError
from ..utils.run_folder import ROUNDS
from .aliases import current
from .parser import suggest
from .pretrained import load_policy_config

# Under --guard.enable=true, where nothing else was chosen.
RECOMMENDED_BALANCE: dict[str, Any] = {"center": True, "tau": 0.5}
RECOMMENDED_REHEARSAL: dict[str, Any] = {"source": "recent", "coef": 0.1, "batch_size": 128}
WANDB_MODES = ("online", "offline", "disabled")


@dataclass
class DatasetConfig:
    """Demonstrations, for algorithms that learn from a dataset."""

    # Hub id, or any name together with `root`.
    repo_id: str = ""
    # Folder of a local dataset.
    root: Path | None = None
    # Episodes to use; null = all.
    episodes: list[int] | None = None


@dataclass
class RolloutConfig:
    """Collection of experience."""

    # Environments side by side.
    n_envs: int = 50
    # Whole episodes of one iteration, a multiple of n_envs.
    n_episodes: int = 100
    # Episodes of the base, played first, whose modes and paths the balance of modes, regularizers and the
    # guard hold on to; not played without them.
    n_reference: int = 1000
    # One process for each environment, also in evaluations; for slow simulators.
    use_async_envs: bool = False
    # What is learned from: "env", the environment's reward; "success", 1 where an episode ends with success
    # and 0 before; or "best", every increase of the episode's best reward. The last two are for tasks like
    # Push-T whose reward is a level: its sum would pay for never finishing.
    reward: str = "env"
    # Added to the reward when an episode ends with success.
    success_bonus: float = 0.0
    # What a time limit means: "bootstrap", the task would go on and is worth what the critic says, or
    # "failure", the episode is over and nothing more is earned (tasks that must succeed in time: with sparse
    # success a critic that bootstraps from itself hardly ever learns that being stuck is worth nothing).
    time_limit: str = "bootstrap"

    def __post_init__(self) -> None:
        if self.reward not in ("env", "success", "best"):
            raise ValueError(f"rollout.reward={self.reward!r} is unknown, choose env, success or best")
        if self.time_limit not in ("bootstrap", "failure"):
            raise ValueError(
                f"rollout.time_limit={self.time_limit!r} is unknown, choose bootstrap or failure"
            )
        if self.success_bonus < 0:
            raise ValueError(f"rollout.success_bonus={self.success_bonus} must not be negative")
        if self.n_reference < 1:
            raise ValueError(f"rollout.n_reference={self.n_reference} must be at least 1")
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
    # First seed; episode i resets with seed + i. Evaluations in between, by which the guard chooses what is
    # exported, begin 500,000 seeds later: no episode both chooses and reports.
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
    """Fine-tune a pretrained LeRobot policy:
    lerobot-rlft-train --algorithm.type=dppo --policy.path=user/policy --env.type=avoiding

    Show the options of one choice with, for example, --algorithm.type=dppo --env.type=avoiding --help.
    """

    algorithm: AlgorithmConfig
    # The pretrained policy: --policy.path=HUB_ID_OR_FOLDER, any of its fields can be overridden
    # (--policy.device=cpu).
    policy: PreTrainedConfig | None = None
    # Where it acts, for example --env.type=avoiding or --env.type=pusht.
    env: EnvConfig | None = None
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    atlas: AtlasConfig = field(default_factory=AtlasConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)
    # Iterations between comparisons with the base at fixed branching states (every round of episodes is
    # compared); 0 = never.
    probe_freq: int = 5
    # dppo: rounds of collect + update. bc: gradient steps. recap, filtered_bc, awr: gradient steps of each
    # round's refit. A resumed run may be given more.
    iterations: int = 50
    # Iterations between evaluations; 0 = only before and after. recap, filtered_bc, awr: every round has one.
    eval_freq: int = 5
    # Iterations between checkpoints; 0 = only the last one.
    save_freq: int = 10
    # Algorithms that learn from rollouts: where an evaluation finds success below the best one beyond doubt
    # (95 % intervals apart), go back to that checkpoint, with half the learning rate. A run then also keeps
    # the checkpoint of iteration 0 and that of each evaluation better than all before.
    rollback: bool = True
    # Iterations between lines of training metrics; 0 = none.
    log_freq: int = 1
    # Of everything random but evaluations (eval.seed).
    seed: int = 1000
    # Folder of the run; it must not exist. null = outputs/rlft/DATE/TIME_JOB.
    output_dir: Path | None = None
    # Name of the run in the progress bar and in wandb; null = env_policy_algorithm.
    job_name: str | None = None
    # Continue the run in this folder from its last checkpoint, with its own configuration; other options
    # given with it override that. hub:user/name, or hub:user/name@revision, downloads it to output_dir first.
    resume: Path | None = None
    # At the end of the run push the exported checkpoint to `repo_id` on the Hub, with a card and everything
    # that was measured; see lerobot-rlft-push.
    push_to_hub: bool = False
    # Push each checkpoint as it is written, with its training state, tagged by its iteration:
    # --policy.path=user/name@000010, and --resume=hub:user/name on another machine.
    save_checkpoint_to_hub: bool = False
    # Where to: user/name.
    repo_id: str | None = None
    # Whether others cannot see it; null = public, or what your organisation prefers.
    private: bool | None = None
    # Of the published policy, for example apache-2.0; null = that of the base.
    license: str | None = None
    # Load also checkpoints that may run code of their author: pickled weights, processor steps that are not
    # LeRobot's.
    trust_remote_code: bool = False
    # Packages that --env.discover_packages_path and --policy.discover_packages_path loaded, by what they were
    # named for. Remembered for commands and cards; naming a package here loads nothing.
    packages: dict[str, str] = field(default_factory=dict)
    # Build everything, run one tiny iteration, print sizes, write nothing. With --policy.type=pi0 instead of
    # --policy.path: print the memory that the policy would take, without its weights.
    dry_run: bool = False
    # Train low-rank adapters instead of the policy's weights, for example --peft.r=16, with the options of
    # lerobot-train; checkpoints have them merged and are ordinary policies. dppo only.
    peft: PeftConfig | None = None
    wandb: WandBConfig = field(default_factory=WandBConfig)

    @classmethod
    def __get_path_fields__(cls) -> list[str]:
        """Fields that `--<field>.path` may fill, for LeRobot's parser."""
        return ["policy"]

    # LeRobot's wandb logger asks for it.
    is_reward_model_training = False

    def to_dict(self) -> dict:
        return draccus.encode(self)

    @property
    def only_sizes(self) -> bool:
        """A dry run that asks what a policy without weights would take."""
        return self.dry_run and self.algorithm.consumes == "rollouts" and self.policy.pretrained_path is None

    def resolve(self) -> None:
        """Load the pretrained policy's config and check the fields against each other.

        Raises:
            UserError: something is missing, unknown or contradictory.
        """
        if self.resume is not None:
            raise UserError(f"resume={self.resume} belongs on the command line: --resume={self.resume}")
        self.policy = pretrained_config("policy", self.trust_remote_code) or self.policy
        if self.policy is None:
            raise UserError(
                "no policy: give --policy.path=HUB_ID_OR_FOLDER (a pretrained one) or, to clone behaviour "
                "from scratch, --policy.type=diffusion"
            )
        base = self.policy.pretrained_path and Path(self.policy.pretrained_path)
        if base and base.exists():
            # `checkpoints/last` moves on. What was given relative stays so: the path goes into what is
            # published.
            real = base.resolve()
            self.policy.pretrained_path = real if base.is_absolute() else Path(os.path.relpath(real))
        self.check()
        self.job_name = self.job_name or "_".join(
            part
            for part in (self.env.type if self.env else "", self.policy.type, self.algorithm.type)
            if part
        )
        if self.output_dir is None:
            self.output_dir = Path("outputs/rlft") / f"{dt.datetime.now():%Y-%m-%d/%H-%M-%S}_{self.job_name}"
        if self.output_dir.exists() and not self.dry_run:
            way_out = f"or continue that run with --resume={self.output_dir}"
            if not any((self.output_dir / name).is_dir() for name in (CHECKPOINTS_DIR, ROUNDS)):
                way_out = "or delete it: it holds no checkpoint"
            raise UserError(f"--output_dir={self.output_dir} exists: choose another folder, {way_out}")

    def check(self) -> None:
        """Check the fields, each alone and against each other.

        Raises:
            UserError: one is out of range, missing or contradictory.
        """
        if self.iterations < 1:
            raise UserError(f"iterations={self.iterations} must be at least 1")
        for name in ("eval_freq", "save_freq", "log_freq", "probe_freq", "seed"):
            if getattr(self, name) < 0:
                raise UserError(f"{name}={getattr(self, name)} must not be negative")
        if self.wandb.mode is not None and self.wandb.mode not in WANDB_MODES:
            raise UserError(
                f"wandb.mode={self.wandb.mode} is unknown, {suggest(self.wandb.mode, list(WANDB_MODES))}"
            )
        if self.push_to_hub or self.save_checkpoint_to_hub:
            if self.repo_id is None:
                raise UserError(
                    "push_to_hub=true and save_checkpoint_to_hub=true need a place: give --repo_id=user/name"
                )
            check_repo_id(self.repo_id)
        self._recommend()
        if self.only_sizes:
            return
        if self.algorithm.consumes in ("rollouts", "episodes") and self.policy.pretrained_path is None:
            raise UserError(
                f"algorithm.type={self.algorithm.type} improves a pretrained policy: give --policy.path=..."
            )
        if isinstance(self.algorithm, RefitConfig):
            self._check_episodes(self.algorithm)
        elif self.algorithm.consumes == "rollouts":
            if self.env is None:
                raise UserError(
                    f"algorithm.type={self.algorithm.type} needs an environment: give --env.type=..., one of "
                    f"{', '.join(sorted(EnvConfig.get_known_choices()))}"
                )
        elif not self.dataset.repo_id:
            raise UserError(
                f"algorithm.type={self.algorithm.type} learns from a dataset: give --dataset.repo_id=HUB_ID, "
                "or --dataset.repo_id=local/name --dataset.root=FOLDER"
            )

    def _check_episodes(self, algorithm: RefitConfig) -> None:
        """Raise a UserError unless there are episodes to learn from."""
        if self.env is None and (algorithm.collect or algorithm.stage == "collect"):
            raise UserError(
                f"algorithm.collect={algorithm.collect} and algorithm.stage={algorithm.stage} need an "
                f"environment: give --env.type=..., one of {', '.join(sorted(EnvConfig.get_known_choices()))}"
            )
        collects = self.env is not None and algorithm.collect is not False
        if not (self.dataset.repo_id or algorithm.data or collects):
            raise UserError(
                f"algorithm.type={algorithm.type} learns from recorded episodes: give "
                "--algorithm.data='[{repo_id: HUB_ID}]', demonstrations (--dataset.repo_id=HUB_ID), or an "
                "environment to collect in"
            )

    def _recommend(self) -> None:
        """Fill what was left open: under a guard with the recommended combination."""
        algorithm = self.algorithm
        if not isinstance(algorithm, OnPolicyConfig):
            if self.peft is not None:
                raise UserError(
                    f"peft trains adapters with RL, algorithm.type={algorithm.type} does not know it: choose "
                    "--algorithm.type=dppo, or leave peft out"
                )
            if self.guard.enable:
                raise UserError(
                    f"guard.enable=true holds the modes of a policy tuned by RL, algorithm.type="
                    f"{algorithm.type} is not: choose --algorithm.type=dppo, or switch the guard off"
                )
            return
        commands = algorithm.commands
        if commands.enable is None:
            chosen = algorithm.balance.enabled or bool(algorithm.regularizers)
            # PPO on the chain made commanded policies deaf (recipes/avoiding_guarded.yaml).
            fits = isinstance(algorithm, NFTConfig) and self.peft is None
            commands.enable = self.guard.enable and not chosen and fits
        if commands.enable and self.peft is not None:
            raise UserError(
                "algorithm.commands.enable=true trains an embedding that low-rank adapters do not merge into "
                "the policy: leave --peft out, or choose --algorithm.commands.enable=false"
            )
        if self.guard.enable and not commands.enable:
            if not algorithm.balance.enabled:
                algorithm.balance = BalanceConfig(**RECOMMENDED_BALANCE)
            if not algorithm.regularizers:
                algorithm.regularizers = [RehearsalConfig(**RECOMMENDED_REHEARSAL)]
        if self.guard.enable and not self.eval_freq:
            raise UserError(
                "guard.enable=true exports the best checkpoint that respects the floor and needs evaluations "
                "to find it: give --eval_freq=1 or more"
            )


@draccus.decode.register(TrainConfig)
def _decode(raw: dict[str, Any], path: Sequence[str] = ()) -> TrainConfig:
    return decode_dataclass(TrainConfig, current(raw), path)


def pretrained_config(name: str, trust: bool = False) -> PreTrainedConfig | None:
    """The config of `--<name>.path`, with the overrides beside it; None where it is not given.

    Args:
        trust: see `load_policy_config`.

    Raises:
        UserError: see `load_policy_config`.
    """
    path = parser.get_path_arg(name)
    if not path:
        return None
    overrides = parser.get_yaml_overrides(name) + (parser.get_cli_overrides(name) or [])
    # The plugin is loaded already; LeRobot leaves its name among the policy's fields.
    overrides = parser.filter_arg(parser.PLUGIN_DISCOVERY_SUFFIX, overrides)
    return load_policy_config(path, overrides, name, trust)
