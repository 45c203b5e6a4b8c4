"""Options of `lerobot-rlft-eval`."""

import datetime as dt
import re
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from httpx import HTTPError
from huggingface_hub.errors import EntryNotFoundError
from lerobot.configs import PreTrainedConfig, parser
from lerobot.envs import EnvConfig

from ..diversity.atlas import AtlasConfig
from ..metrics.keys import MOST_ATTEMPTS
from ..policies.pretrained_files import check_repo_id, fetch
from ..policies.statistics import STATS_FROM
from ..utils.errors import UserError
from ..utils.recipes import recipe
from ..utils.run_folder import CONFIG_NAME
from .check import check_seed
from .pretrained import load_policy_config
from .train import pretrained_config

# What families call the choice of their sampler.
SAMPLER = ("noise_scheduler_type", "num_inference_steps", "num_integration_steps", "num_steps")
BASE = "base"  # its name in tables and pictures
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,19}")  # is in file names and in narrow columns


@dataclass
class EvalPipelineConfig:
    """Measure success and mode diversity of tuned policies beside their base.

    lerobot-rlft-eval --policy.path=outputs/quickstart/checkpoints/best/pretrained_model --env.type=avoiding
    lerobot-rlft-eval --policy.path=user/tuned --base.path=user/base --env.type=pusht --n_episodes=480
    lerobot-rlft-eval --policy.path=user/tuned --others='{plain: user/plain}' --env.type=grasps

    The report is a folder with report.html, diversity.json and pictures/.
    """

    # Tuned policy. Any of its options can be changed, for example --policy.device=cpu.
    policy: PreTrainedConfig | None = None
    # Name of the tuned policy in tables and pictures.
    name: str = "tuned"
    # Further policies tuned from the same base, by name: --others='{plain: HUB_ID_OR_FOLDER, kl: ...}'. They
    # get the device and the sampler that are given beside --policy.path.
    others: dict[str, str] = field(default_factory=dict)
    # Policy that the tuned one started from; it may be left out for a checkpoint of lerobot-rlft-train, which
    # names its base.
    base: PreTrainedConfig | None = None
    # Environment in which the policies act, for example --env.type=avoiding.
    env: EnvConfig | None = None
    # Episodes of each policy, on the same seeds. A claim about modes takes 20 successes for each mode.
    n_episodes: int = 960
    # Environments that run side by side.
    batch_size: int = 240
    # First random seed of the episodes: episode i is reset with seed + i.
    seed: int = 1_000_000
    # Initial states at which the entropy of modes is measured, where the environment has several; at most
    # n_episodes more are played from them, at least two from each. 0 = leave out.
    n_initial_states: int = 30
    # Attempts of each policy at the task with each way blocked, where the environment can block ways; 0 =
    # leave out.
    n_attempts: int = 64
    # Modes of behaviour where the environment names none: paths of the successes of the base are clustered.
    atlas: AtlasConfig = field(default_factory=AtlasConfig)
    # Share of the mode entropy of the base that was to be kept, drawn as a line in the picture of success and
    # diversity; null = no line.
    floor: float | None = None
    # Whether to write the episodes of the tuned policy as a LeRobotDataset into output_dir/dataset, with
    # reward, success, mode and intervention beside observations and actions.
    record: bool = False
    # Name of the dataset repository on the Hub to publish those episodes to, user/name; null = do not
    # publish.
    push_dataset: str | None = None
    # Whether the repository is private; null = public, or what your organisation prefers.
    private: bool | None = None
    # Whether to also load checkpoints that can run code of their author: pickled weights, and processor steps
    # that are not LeRobot's.
    trust_remote_code: bool = False
    # Folder to create for the report; null = outputs/rlft_eval/DATE/TIME_ENV.
    output_dir: Path | None = None

    @classmethod
    def __get_path_fields__(cls) -> list[str]:
        return ["policy", "base"]

    def resolve(self) -> None:
        """Load the configs of the policies and check the fields.

        Raises:
            UserError: something is missing, unknown or out of range.
        """
        self.policy = pretrained_config("policy", self.trust_remote_code) or self.policy
        if self.policy is None or self.policy.pretrained_path is None:
            raise UserError("no policy: give --policy.path=HUB_ID_OR_FOLDER")
        self.base = pretrained_config("base", self.trust_remote_code) or self.base
        if self.base is None:
            self.base = _base_of(self.policy, self.trust_remote_code)
        if self.env is None:
            choices = ", ".join(sorted(EnvConfig.get_known_choices()))
            raise UserError(f"no environment: give --env.type=..., one of {choices}")
        for name, least in (
            ("n_episodes", 2), ("batch_size", 1), ("n_initial_states", 0), ("n_attempts", 0),
        ):  # fmt: skip
            if getattr(self, name) < least:
                raise UserError(f"{name}={getattr(self, name)} must be at least {least}")
        check_seed("seed", self.seed)
        if 0 < self.n_attempts < MOST_ATTEMPTS:
            raise UserError(
                f"n_attempts={self.n_attempts} is too few for success at {MOST_ATTEMPTS} attempts: give at "
                f"least {MOST_ATTEMPTS}, or 0 to leave blocked ways out"
            )
        if self.floor is not None and not 0 < self.floor <= 1:
            raise UserError(f"floor={self.floor} is no share: give a number above 0, at most 1, or null")
        if self.push_dataset is not None:
            check_repo_id(self.push_dataset, "push_dataset")
            if not self.record:
                raise UserError(
                    f"push_dataset={self.push_dataset} needs recorded episodes: give --record=true, too"
                )
        self.check_names()
        self.tuned()
        if self.output_dir is None:
            self.output_dir = (
                Path("outputs/rlft_eval") / f"{dt.datetime.now():%Y-%m-%d/%H-%M-%S}_{self.env.type}"
            )
        if self.output_dir.exists():
            raise UserError(f"--output_dir={self.output_dir} exists: choose another folder")

    def check_names(self) -> None:
        """Raise a UserError unless all policies have names that tell them apart."""
        for option, name in (("name", self.name), *(("others", name) for name in self.others)):
            if not NAME.fullmatch(name):
                raise UserError(
                    f"{option}: {name!r} is no name for a policy, give a plain word: a letter, then up to 19 "
                    "letters, digits, _ or -"
                )
            if name.lower() == BASE:
                raise UserError(f"{option}: {name!r} is the name of the base, choose another")
        names = [name.lower() for name in (self.name, *(_names_given() or self.others))]
        for name in self.others:
            if names.count(name.lower()) > 1:
                raise UserError(
                    f"others: {name!r} is the name of two policies (--name={self.name} is that of "
                    "--policy.path): choose another, capitals make no difference"
                )

    def option(self, name: str) -> str:
        """The option by which the tuned policy `name` was given, for messages."""
        return "--policy.path" if name == self.name else f"--others={{{name}: {self.others[name]}}}"

    def tuned(self) -> dict[str, PreTrainedConfig]:
        """The configs of the tuned policies by name, the main one last.

        Raises:
            UserError: see `load_policy_config`.
        """
        beside = (parser.get_cli_overrides("policy") or []) + parser.get_yaml_overrides("policy")
        sampler = [
            f"--{key}={value}" for key in SAMPLER if (value := parser.parse_arg(key, beside)) is not None
        ]
        out = {}
        for name, path in self.others.items():
            if not path:
                raise UserError(f"others: {name!r} has no path, give {{{name}: HUB_ID_OR_FOLDER}}")
            try:
                device = f"--device={self.policy.device}"
                out[name] = load_policy_config(path, [device, *sampler], name, self.trust_remote_code)
            except UserError as error:
                raise UserError(str(error).replace(f"--{name}.path={path}", self.option(name))) from error
        return out | {self.name: self.policy}


def _names_given() -> list[str]:
    """The names in `--others` as they were written: of equal ones, YAML silently keeps the last."""
    text = parser.parse_arg("others")
    if text is not None:
        node = yaml.compose(text)
    else:
        path = parser.parse_arg("config_path")
        file = None if path is None else recipe(path)
        if file is None:
            return []
        whole = yaml.compose(file.read_text())
        node = next((value for key, value in whole.value if key.value == "others"), None)
    return [key.value for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []


def _base_of(policy: PreTrainedConfig, trust: bool) -> PreTrainedConfig:
    """The config of the policy that the run of a tuned policy started from.

    Raises:
        UserError: no run wrote the policy, or its base cannot be read.
    """
    place = str(policy.pretrained_path)
    try:
        file = fetch(place, CONFIG_NAME, policy.pretrained_revision)
    except (EntryNotFoundError, HTTPError, OSError) as error:
        raise UserError(
            f"no base: --policy.path={place} has no {CONFIG_NAME} that names what it was tuned from, "
            "give --base.path=HUB_ID_OR_FOLDER"
        ) from error
    content = yaml.safe_load(file.read_text())
    run = content["policy"]
    path, revision = run["pretrained_path"], run.get("pretrained_revision")
    if path is None:
        raise UserError(f"no base: the run of --policy.path={place} began from scratch, give --base.path=...")
    # The run may have given its base another sampler.
    options = [f"--{key}={run[key]}" for key in SAMPLER if run.get(key) is not None]
    if content.get(STATS_FROM) is not None:
        options.append(f"--{STATS_FROM}={content[STATS_FROM]}")
    if revision is not None:
        options.append(f"--pretrained_revision={revision}")
    elif policy.pretrained_revision is not None and not Path(path).exists():
        raise UserError(
            f"no base: --policy.path={place} was tuned from {path!r}, which is not on the Hub: give "
            "--base.path=HUB_ID_OR_FOLDER"
        )
    return load_policy_config(path, [f"--device={policy.device}", *options], "base", trust)
