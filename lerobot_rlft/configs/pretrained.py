"""The config of a pretrained policy: in a folder, or in `user/name` or `user/name@revision` on the Hub."""

import json
from pathlib import Path
from typing import Any

import draccus
import lerobot.policies  # noqa: F401  registers the policy types
from httpx import HTTPError
from huggingface_hub.errors import EntryNotFoundError, HFValidationError, LocalEntryNotFoundError
from lerobot.configs import PreTrainedConfig, parser
from safetensors import SafetensorError

from ..policies.layouts import check_processed, find_files, has_weights, list_files, pickles, refusal
from ..policies.pretrained_files import PROCESSORS, WEIGHTS, commit_of, fetch, split_revision
from ..policies.statistics import STATS_FROM, set_statistics_from
from ..utils.errors import UserError, one_line
from ..utils.recipes import located
from .check import suggest
from .old_policy import current_policy, declared_fields, warn
from .parser import build, split

CHECKPOINT_FILES = ("config.json", WEIGHTS, *PROCESSORS)


def load_policy_config(
    path: str, overrides: list[str], name: str = "policy", trust: bool = False
) -> PreTrainedConfig:
    """Read a checkpoint's `config.json` from the Hub or from disk.

    Args:
        path: Hub id, with `@revision` or without, or folder.
        overrides: `--name=value` for fields of the policy, and `--stats_from=DATASET`.
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
    dataset = parser.parse_arg(STATS_FROM, overrides)
    overrides = parser.filter_arg(STATS_FROM, overrides)
    if Path(path).exists() or path.count("/") != 1:
        _check_folder(option, path, trust)
    try:
        commit = commit_of(path, revision)
        content = _read_config(option, path, commit)
        kind = content.pop("type")
        files = find_files(option, path, commit, trust)
        processed, buffers = files.processed.processors is not None, files.processed.buffers
    except UserError:
        raise
    except EntryNotFoundError as error:
        if isinstance(error, LocalEntryNotFoundError):  # no network, which says nothing about the repository
            raise UserError(
                f"{option} is no folder here and cannot be read from the Hub: {one_line(error)}"
            ) from error
        raise UserError(
            f"{option} lacks a file of a policy ({one_line(error)}): give a repository or folder with "
            f"{', '.join(CHECKPOINT_FILES)}"
        ) from error
    except (HTTPError, OSError, HFValidationError) as error:
        raise UserError(
            f"{option} is no folder here and cannot be read from the Hub: {one_line(error)}"
        ) from error
    except SafetensorError as error:
        raise UserError(
            f"{option} is not a whole checkpoint ({one_line(error)}): download or save it again"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{option} has a corrupt config.json or processor ({type(error).__name__}: {error}): download or "
            "save it again"
        ) from error
    choices = PreTrainedConfig.get_known_choices()
    if kind not in choices:
        raise UserError(
            f"{option} is a policy of type {kind!r}, {suggest(kind, list(choices))} A plugin's "
            f"types need --{name}.discover_packages_path=PACKAGE"
        )
    check_processed(option, files, dataset)
    if buffers and not processed:
        warn(
            f"{option} has its statistics inside the weights, as LeRobot wrote it before 0.4; what is saved "
            "has today's layout"
        )
    elif buffers:
        warn(f"{option} has statistics inside the weights, too: those of its processors are used")
    with draccus.config_type("json"):  # as LeRobot reads overrides of a policy: `off` is a word
        flags, _ = split(overrides)
        config = build(choices[kind], declared_fields(option, kind, content), flags, prefix=f"{name}.")
    if config.use_peft and files.base is None:
        warn(f"policy.use_peft=true is left out, {option} holds no adapters: --peft.r=16 trains new ones")
    config.use_peft = False  # adapters are merged when they are loaded
    config.pretrained_path, config.pretrained_revision = Path(path), commit
    set_statistics_from(config, dataset)
    return config


def _check_folder(option: str, path: str, trust: bool) -> None:
    """Raise a UserError unless a folder holds a checkpoint in one of the layouts."""
    held = list_files(path) if Path(path).is_dir() else set()
    missing = [part for part in CHECKPOINT_FILES if part not in held]
    if has_weights(held) or (trust and pickles(held)):
        missing = [part for part in missing if part != WEIGHTS]
        # Their statistics may lie inside the weights.
        missing = missing if set(PROCESSORS) & held else [part for part in missing if part not in PROCESSORS]
    if missing:
        raise UserError(
            f"{option} is no checkpoint, it lacks {', '.join(missing)}: give the folder of one (a run's "
            f"checkpoints/last/pretrained_model) or a Hub id user/name{refusal(held, missing)}"
        )


def _read_config(option: str, path: str, commit: str | None) -> dict[str, Any]:
    """The content of config.json.

    Raises:
        UserError: it is empty, or older than its type; see `load_policy_config` for the other errors.
    """
    text = fetch(path, CHECKPOINT_FILES[0], commit).read_text()
    if not text.strip():
        raise UserError(
            f"{option} has an empty config.json, as LeRobot's migrate_policy_normalization leaves it: give "
            "the checkpoint that was to be migrated, which is read as it is"
        )
    return current_policy(option, json.loads(text))


def needs_plugin(policy_type: str) -> bool:
    """Whether a policy type is not LeRobot's own."""
    return not PreTrainedConfig.get_choice_class(policy_type).__module__.startswith("lerobot.")
