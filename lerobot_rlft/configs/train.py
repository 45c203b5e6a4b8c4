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
from ..policies.statistics import set_statistics_from, statistics_from
from ..regularizers.mode_balance import BalanceConfig
from ..regularizers.rehearsal import RehearsalConfig
from ..utils.errors import UserError
from ..utils.run_folder import ROUNDS
from .aliases import current
from .check import check_seed, suggest
from .default import DatasetConfig, EvalConfig, RolloutConfig
from .pretrained import load_policy_config

# Under --guard.enable=true, where nothing else was chosen.
RECOMMENDED_BALANCE: dict[str, Any] = {"center": True, "tau": 0.5}
RECOMMENDED_REHEARSAL: dict[str, Any] = {"source": "recent", "coef": 0.05, "batch_size": 128}
TRACKERS = ("none", "wandb", "trackio")
WANDB_MODES = ("online", "offline", "disabled")


@dataclass
class TrainConfig:
    """Fine-tune a pretrained LeRobot policy by reinforcement learning, or clone one from demonstrations.

    lerobot-rlft-train --config_path=quickstart --output_dir=outputs/quickstart
    lerobot-rlft-train --algorithm.type=dppo --policy.path=user/policy --env.type=pusht --iterations=100
    lerobot-rlft-train --resume=outputs/quickstart --iterations=32

    The options of a type are shown once it is chosen: --algorithm.type=dppo --env.type=avoiding --help, or
    --config_path=quickstart --help.
    """

    # Algorithm of training: dppo and nft learn from an environment; recap, filtered_bc and awr learn from
    # recorded episodes, in rounds; bc clones demonstrations.
    algorithm: AlgorithmConfig
    # Pretrained policy. Any of its options can be changed, for example --policy.device=cpu.
    policy: PreTrainedConfig | None = None
    # Environment in which the policy acts, for example --env.type=avoiding or --env.type=pusht.
    env: EnvConfig | None = None
    # Demonstrations, for algorithms that learn from a dataset.
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    # Collection of experience.
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    # Evaluations during training, with the sampler that is deployed and always on the same seeds.
    eval: EvalConfig = field(default_factory=EvalConfig)
    # Modes of behaviour where the environment names none: paths of the successes of the base are clustered.
    atlas: AtlasConfig = field(default_factory=AtlasConfig)
    # Guard of the mode diversity of the base; --guard.enable=true alone is the recommended combination.
    guard: GuardConfig = field(default_factory=GuardConfig)
    # Iterations between comparisons of the policy with the base at fixed states from which several modes are
    # still open; 0 = never. Algorithms that learn in rounds compare after every round.
    probe_freq: int = 5
    # Length of training: iterations of collecting and updating for dppo and nft, gradient steps for bc,
    # gradient steps of each round for recap, filtered_bc and awr. A resumed run may be given more.
    iterations: int = 50
    # Iterations between evaluations; 0 = only before and after training. Algorithms that learn in rounds
    # evaluate after every round.
    eval_freq: int = 5
    # Iterations between checkpoints; 0 = only the last one.
    save_freq: int = 10
    # Whether to go back to the best checkpoint, with half the learning rate, when success falls so far below
    # it that the 95 % intervals do not overlap; for algorithms that learn from rollouts. The run then also
    # keeps the checkpoint of iteration 0, and one for each evaluation that is better than all before.
    rollback: bool = True
    # Iterations between lines of training metrics; 0 = none.
    log_freq: int = 1
    # Random seed of everything except evaluation.
    seed: int = 1000
    # Folder to create for the run; null = outputs/rlft/DATE/TIME_JOB.
    output_dir: Path | None = None
    # Name of the run in the progress bar and in its tracker; null = ENV_POLICY_ALGORITHM.
    job_name: str | None = None
    # Folder of a run to continue from its last checkpoint, with its own options; options given beside it
    # override those. hub:user/name, or hub:user/name@revision, is downloaded to output_dir first.
    resume: Path | None = None
    # Whether to publish the exported checkpoint as repo_id at the end of the run, with a card and its report;
    # see lerobot-rlft-push.
    push_to_hub: bool = False
    # Whether to publish each checkpoint as it is written, with its training state and tagged by its
    # iteration: --policy.path=user/name@000010 reads it, --resume=hub:user/name continues the run on another
    # machine.
    save_checkpoint_to_hub: bool = False
    # Name of the repository on the Hub to publish to, user/name.
    repo_id: str | None = None
    # Whether the repository is private; null = public, or what your organisation prefers.
    private: bool | None = None
    # License of the published policy, for example apache-2.0; null = that of the base.
    license: str | None = None
    # Whether to also load checkpoints that can run code of their author: pickled weights, and processor steps
    # that are not LeRobot's.
    trust_remote_code: bool = False
    # Written by the run, not meant to be set: the packages that --env.discover_packages_path and
    # --policy.discover_packages_path loaded, so that later commands and cards can name them. A package that
    # is set here is not loaded.
    packages: dict[str, str] = field(default_factory=dict)
    # Whether to build everything, run one tiny iteration, print sizes and write nothing. Together with
    # --policy.type=pi0 instead of --policy.path it prints the memory that the policy would take, without its
    # weights.
    dry_run: bool = False
    # Low-rank adapters that are trained instead of the weights of the policy (dppo and nft only), for example
    # --peft.r=16, with the options of lerobot-train. Checkpoints have them merged and are ordinary policies.
    peft: PeftConfig | None = None
    # Dataset, its folder or user/name on the Hub, whose statistics normalise in place of those of the
    # pretrained policy. --policy.stats_from sets it, too.
    stats_from: str | None = None
    # Service that shows the metrics of the run as it goes, beside its metrics.jsonl: "none", "wandb" (Weights
    # & Biases) or "trackio", a local dashboard (pip install 'lerobot_policy_rlft[trackio]'). The project in
    # either is that of --wandb.project.
    tracker: str = "none"
    # Options of Weights & Biases, those of lerobot-train; --wandb.enable=true is --tracker=wandb.
    wandb: WandBConfig = field(default_factory=WandBConfig)

    def __post_init__(self) -> None:
        if self.policy is not None:
            self.stats_from = statistics_from(self.policy) or self.stats_from
            set_statistics_from(self.policy, self.stats_from)

    @classmethod
    def __get_path_fields__(cls) -> list[str]:
        """Fields that `--<field>.path` may fill, for LeRobot's parser."""
        return ["policy"]

    # LeRobot's wandb logger asks for it.
    is_reward_model_training = False

    def to_dict(self) -> dict:
        return draccus.encode(self)

    @property
    def tracked_by(self) -> str:
        """The tracker, chosen by either option."""
        return "wandb" if self.wandb.enable else self.tracker

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
        self.__post_init__()
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
        for name in ("eval_freq", "save_freq", "log_freq", "probe_freq"):
            if getattr(self, name) < 0:
                raise UserError(f"{name}={getattr(self, name)} must not be negative")
        check_seed("seed", self.seed)
        if self.tracker not in TRACKERS:
            raise UserError(f"tracker={self.tracker} is unknown, {suggest(self.tracker, list(TRACKERS))}")
        if self.wandb.enable and self.tracker == "trackio":
            raise UserError("tracker=trackio and wandb.enable=true name two trackers: leave one out")
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
            has_holder = algorithm.balance.enabled or bool(algorithm.regularizers)
            # PPO on the chain made commanded policies deaf (docs/results/avoiding_guarded.md).
            fits = isinstance(algorithm, NFTConfig) and self.peft is None
            commands.enable = self.guard.enable and not has_holder and fits
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
