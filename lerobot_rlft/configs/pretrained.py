"""The config of a pretrained policy: in a folder, or in `user/name` or `user/name@revision` on the Hub."""

import json
from pathlib import Path

import draccus
import lerobot.policies  # noqa: F401  registers the policy types
from httpx import HTTPError
from huggingface_hub.errors import EntryNotFoundError, HFValidationError
from lerobot.configs import PreTrainedConfig, parser

from ..policies.pretrained_files import (
    PROCESSORS,
    WEIGHTS,
    check_own_files,
    check_safe,
    commit_of,
    fetch,
    fetch_weights,
    pickles,
    read_processors,
    refusal,
    split_revision,
)
from ..utils.errors import UserError, one_line
from ..utils.recipes import located
from .check import suggest
from .parser import build, split

CHECKPOINT_FILES = ("config.json", WEIGHTS, *PROCESSORS)


def load_policy_config(
    path: str, overrides: list[str], name: str = "policy", trust: bool = False
) -> PreTrainedConfig:
    """Read a checkpoint's `config.json` from the Hub or from disk.

    Args:
        path: Hub id, with `@revision` or without, or folder.
        overrides: `--name=value` for fields of the policy.
        name: of the option, `--<name>.path`, for messages.
        trust: load also what may run code of its author, see `check_safe`.

    Returns:
        The config with its `pretrained_path`, and the commit on the Hub as `pretrained_revision`; None there
        marks a folder.

    Raises:
        UserError: there is none, it is not readable, not whole or not safe, or an override does not fit.
    """
    option = f"--{name}.path={path}"
    path, revision = split_revision(located(path))
    revision = parser.parse_arg("pretrained_revision", overrides) or revision
    on_disk = Path(path).exists()
    if on_disk or path.count("/") != 1:
        names = {file.name for file in Path(path).iterdir()} if Path(path).is_dir() else set()
        missing = [part for part in CHECKPOINT_FILES if part not in names]
        if missing and not (trust and missing == [WEIGHTS] and pickles(names)):
            raise UserError(
                f"{option} is no checkpoint, it lacks {', '.join(missing)}: give the folder of one (a run's "
                f"checkpoints/last/pretrained_model) or a Hub id user/name{refusal(names, missing)}"
            )
    try:
        commit = commit_of(path, revision)
        content = json.loads(fetch(path, CHECKPOINT_FILES[0], commit).read_text())
        kind = content.pop("type")
        processors = read_processors(path, commit)
        if not on_disk:
            fetch_weights(path, commit, trust)
    except UserError:
        raise
    except (EntryNotFoundError, HTTPError, OSError, HFValidationError) as error:
        raise UserError(
            f"{option} is no folder here and cannot be read from the Hub: {one_line(error)}"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{option} has a corrupt config.json or processor ({type(error).__name__}: {error}): download or "
            "save it again"
        ) from error
    check = check_own_files if trust else check_safe
    check(option, processors)
    choices = PreTrainedConfig.get_known_choices()
    if kind not in choices:
        raise UserError(
            f"{option} is a policy of type {kind!r}, {suggest(kind, list(choices))} A plugin's "
            f"types need --{name}.discover_packages_path=PACKAGE"
        )
    with draccus.config_type("json"):  # as LeRobot reads overrides of a policy: `off` is a word
        flags, _ = split(overrides)
        config = build(choices[kind], content, flags, prefix=f"{name}.")
    config.pretrained_path, config.pretrained_revision = Path(path), commit
    return config


def needs_plugin(policy_type: str) -> bool:
    """Whether a policy type is not LeRobot's own."""
    return not PreTrainedConfig.get_choice_class(policy_type).__module__.startswith("lerobot.")
