"""A run on disk and the checkpoint of it that is published; what is damaged is left out and told of."""

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import draccus
import yaml
from draccus.utils import DraccusException
from lerobot.envs import EnvConfig
from lerobot.utils.constants import CHECKPOINTS_DIR, LAST_CHECKPOINT_LINK, PRETRAINED_MODEL_DIR
from tqdm import tqdm

from .. import algorithms  # noqa: F401  registers them
from ..algorithms.base import AlgorithmConfig
from ..configs.aliases import current
from ..configs.packages import flags
from ..utils.errors import UserError, one_line
from ..utils.run_folder import BEST_CHECKPOINT_LINK, CONFIG_NAME, METRICS, SUMMARY


@dataclass(frozen=True)
class Run:
    """A run and one of its checkpoints.

    Attributes:
        checkpoint: its folder, named by the iteration.
        config: content of its rlft_config.yaml.
        policy_config: content of its config.json; a run may wrap the policy that it began with.
        metrics: the lines of metrics.jsonl that can be read, and whether those are all.
        summary: content of summary.json; None where there is none or it cannot be read.
        final: whether it is the checkpoint that the run exported at its end.
    """

    folder: Path
    checkpoint: Path
    config: dict[str, Any]
    policy_config: dict[str, Any]
    algorithm: AlgorithmConfig
    env: EnvConfig | None
    metrics: list[dict[str, Any]]
    whole_metrics: bool
    summary: dict[str, Any] | None
    final: bool

    @classmethod
    def open(cls, folder: Path, name: str | None) -> "Run":
        """The checkpoint `name`; None means the exported one.

        Raises:
            UserError: no run, no such checkpoint, a configuration that is not a run's, or without a name a
                run that has not finished.
        """
        checkpoint = _checkpoint(folder, name)
        policy = checkpoint / PRETRAINED_MODEL_DIR
        config, policy_config = _mapping(policy / CONFIG_NAME), _mapping(policy / "config.json")
        algorithm, env = _decoded(policy / CONFIG_NAME, config)
        metrics, whole = _lines(folder / METRICS)
        summary = _summary(folder / SUMMARY)
        if env is None:  # nothing is evaluated at the end
            final = int(checkpoint.name) == config["iterations"]
        else:
            reloads = [line["iteration"] for line in metrics if line.get("reloaded")]
            final = summary is not None and max(reloads, default=None) == int(checkpoint.name)
        if not final and name is None:
            resume = f"--resume={shlex.quote(str(folder))}{flags(config.get('packages'))}"
            raise UserError(
                f"--run_dir={folder} has not finished: go on with lerobot-rlft-train {resume}, or push what "
                f"there is with --checkpoint={checkpoint.name}"
            )
        return cls(folder, checkpoint, config, policy_config, algorithm, env, metrics, whole, summary, final)

    @property
    def policy(self) -> Path:
        return self.checkpoint / PRETRAINED_MODEL_DIR

    @property
    def iteration(self) -> int:
        return int(self.checkpoint.name)

    @property
    def policy_type(self) -> str:
        return self.policy_config["type"]


def left_out(file: Path, error: object) -> None:
    """Tell that a file is not part of what is published."""
    tqdm.write(f"warning: {file} cannot be read and is left out ({error})")


def _checkpoint(folder: Path, name: str | None) -> Path:
    checkpoints = folder / CHECKPOINTS_DIR
    if not checkpoints.is_dir():
        raise UserError(f"--run_dir={folder} is not the folder of a run: it has no {CHECKPOINTS_DIR}/")
    default = BEST_CHECKPOINT_LINK if (checkpoints / BEST_CHECKPOINT_LINK).exists() else LAST_CHECKPOINT_LINK
    path = (checkpoints / (name or default)).resolve()
    if path.parent != checkpoints.resolve():
        raise UserError(
            f"--checkpoint={name or default} is no checkpoint of --run_dir={folder}: give the name of a "
            f"folder in its {CHECKPOINTS_DIR}/"
        )
    if not (path / PRETRAINED_MODEL_DIR / CONFIG_NAME).is_file() or not path.name.isdecimal():
        whole = sorted(p.parents[1].name for p in checkpoints.glob(f"[0-9]*/*/{CONFIG_NAME}"))
        choices = f"known: {', '.join(whole)}" if whole else "the run has none: let it go on"
        raise UserError(f"--run_dir={folder} has no whole checkpoint {name or default}, {choices}")
    return path


def _mapping(file: Path) -> dict[str, Any]:
    """Content of a YAML or JSON file without which nothing can be published.

    Raises:
        UserError: it cannot be read, or is no mapping.
    """
    try:
        content = yaml.safe_load(file.read_text())  # which reads JSON as well
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{file} cannot be read ({one_line(error)}): choose another --checkpoint") from error
    if not isinstance(content, dict):
        raise UserError(f"{file} holds no names with values: choose another --checkpoint")
    return content


def _decoded(file: Path, config: dict[str, Any]) -> tuple[AlgorithmConfig, EnvConfig | None]:
    """Algorithm and environment of a configuration.

    Raises:
        UserError: it is not that of a run, or names what only a package knows that is not loaded.
    """
    try:
        algorithm = draccus.decode(AlgorithmConfig, current(config)["algorithm"])
        env = draccus.decode(EnvConfig, config["env"]) if config["env"] is not None else None
        for name in ("policy", "dataset", "eval"):
            config[name].items()
        for name in ("iterations", "seed"):
            int(config[name])
    except (DraccusException, KeyError, TypeError, ValueError, AttributeError) as error:
        packages = flags(config.get("packages"))
        raise UserError(
            f"{file} is no configuration that lerobot-rlft-train of this version and with these packages "
            f"wrote ({one_line(error)}): "
            + (f"give{packages}" if packages else "put it back, or choose another --checkpoint")
        ) from error
    return algorithm, env


def _lines(file: Path) -> tuple[list[dict[str, Any]], bool]:
    """The lines of metrics.jsonl that can be read, and whether those are all."""
    if not file.is_file():
        return [], True
    raw_lines, lines = file.read_bytes().splitlines(), []
    for line in raw_lines:
        try:
            content = json.loads(line)
        except ValueError:
            continue
        if isinstance(content, dict):
            lines.append(content)
    if num_broken := len(raw_lines) - len(lines):
        left_out(file, f"{num_broken} of {len(raw_lines)} lines, the others are kept")
    return lines, not num_broken


def _summary(file: Path) -> dict[str, Any] | None:
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_text())
        return content | {"tuned": dict(content["tuned"])}
    except (ValueError, KeyError, TypeError) as error:
        left_out(file, one_line(error))
        return None
