"""Files of a pretrained policy: in a folder, or in `user/name` on the Hub. What may run code is refused."""

import hashlib
import importlib
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from httpx import HTTPError
from huggingface_hub import _CACHED_NO_EXIST, HfApi, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
)
from huggingface_hub.utils import validate_repo_id
from lerobot.processor import ProcessorStep, ProcessorStepRegistry

from ..utils.errors import UserError, one_line

WEIGHTS = "model.safetensors"
PROCESSORS = ("policy_preprocessor.json", "policy_postprocessor.json")
OUR_CODE = ("lerobot.", "lerobot_rlft.")  # a processor step may name any class that Python can import
COMMIT = re.compile(r"[0-9a-f]{40}")
TRUST = "--trust_remote_code=true"


def split_revision(path: str) -> tuple[str, str | None]:
    """`user/name@revision` as (`user/name`, revision); a folder, or an id without one, as it is."""
    name, _, revision = path.partition("@")
    if Path(path).exists() or not revision or name.count("/") != 1:
        return path, None
    return name, revision


def check_repo_id(repo_id: str, option: str = "repo_id") -> None:
    """Raise a UserError unless it has the form user/name."""
    try:
        validate_repo_id(repo_id)
        reason = "" if repo_id.count("/") == 1 else "it must name the user or organisation, too"
    except HFValidationError as error:
        reason = one_line(error)
    if reason:
        raise UserError(
            f"--{option}={repo_id} is no id on the Hub: give user/name, in letters, digits, -, _ and . "
            f"({reason})"
        )


def fetch(path: str, file: str, revision: str | None = None) -> Path:
    """A file of a folder, or of a Hub repository (from the cache where it is there).

    Raises:
        EntryNotFoundError: there is no such file; other OSErrors and HTTPErrors where nothing can be read.
    """
    if Path(path).is_dir():
        if not (local := Path(path) / file).is_file():
            raise EntryNotFoundError(f"{path} has no {file}")
        return local
    try:
        return Path(hf_hub_download(path, file, revision=revision))
    except LocalEntryNotFoundError as error:
        if try_to_load_from_cache(path, file, revision=revision) is _CACHED_NO_EXIST:
            raise EntryNotFoundError(f"{path} has no {file}") from error
        raise


def pinned(path: str, revision: str | None = None) -> str | None:
    """The commit that everything is read from, so that what was checked is what is loaded; None of a folder.

    Raises:
        HTTPError, OSError: see `commit_of`.
    """
    return revision if revision and COMMIT.fullmatch(revision) else commit_of(path, revision)


def commit_of(path: str, revision: str | None = None) -> str | None:
    """The commit of a revision on the Hub, without network the one in the cache; None of a folder.

    Raises:
        HTTPError, OSError: neither can be read. Without network that is known at once: a download tries for
            half a minute.
    """
    if Path(path).is_dir():
        return None
    try:
        return HfApi().model_info(path, revision=revision).sha
    except HfHubHTTPError:
        raise
    except (HTTPError, ConnectionError):
        config = try_to_load_from_cache(path, "config.json", revision=revision)
        if not isinstance(config, str):
            raise
        return Path(config).parent.name


def file_hash(path: Path) -> str:
    """SHA-256 of a file, which the Hub knows large files by."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_safe(option: str, processors: list[Any]) -> None:
    """Raise a UserError if a processor would run code that is not LeRobot's, or read files that are not its.

    A processor's JSON names classes to be imported and made with arguments of its author's choice, and the
    files of their state.
    """
    for step in (step for processor in processors for step in _steps(option, processor)):
        _check_state_file(option, step)
        _check_step(option, step)


def check_own_files(option: str, processors: list[Any]) -> None:
    """Raise a UserError if a processor names files outside of its checkpoint, which no trust allows."""
    for step in (step for processor in processors for step in _steps(option, processor)):
        _check_state_file(option, step)


def _steps(option: str, processor: Any) -> list[dict[str, Any]]:
    """The steps of a processor.

    Raises:
        UserError: the JSON has another form.
    """
    steps = processor.get("steps") if isinstance(processor, dict) else None
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise UserError(f"{option} has a processor without a list of steps: download or save it again")
    return steps


def _check_state_file(option: str, step: dict[str, Any]) -> None:
    name = step.get("state_file")
    if name is None:
        return
    plain = isinstance(name, str) and "\\" not in name and Path(name).name == name
    if not plain or not name.endswith(".safetensors"):
        raise UserError(
            f"{option} has a processor step with state_file {name!r}, which is no .safetensors file of the "
            "checkpoint itself, and is refused: download or save it again"
        )


def _check_step(option: str, step: dict[str, Any]) -> None:
    """Raise a UserError unless a step is a ProcessorStep of LeRobot, of ours or of a loaded plugin."""
    name, class_name = step.get("registry_name"), step.get("class", "")
    label = class_name if name is None else name
    if "registry_name" not in step and not (isinstance(class_name, str) and class_name.startswith(OUR_CODE)):
        raise UserError(
            f"{option} has a processor step of class {class_name!r}, code that is not LeRobot's, and is "
            f"refused: load it with {TRUST} if you trust its author"
        )
    step_class = _resolved(step)
    if step_class is None:  # unknown steps are told of when they are built
        return
    if not (isinstance(step_class, type) and issubclass(step_class, ProcessorStep)):
        raise UserError(
            f"{option} has a processor step {label!r}, which is no ProcessorStep, and is refused: load it "
            f"with {TRUST} if you trust its author"
        )
    if asks_for_remote_code(step, step_class):
        raise UserError(
            f"{option} has a processor step {label} with trust_remote_code, "
            f"which runs code from the Hub, and is refused: load it with {TRUST} if you trust its author"
        )


def _resolved(step: dict[str, Any]) -> Any:
    """The class or function that LeRobot would call to make a step; None where there is nothing."""
    if "registry_name" in step:
        try:
            return ProcessorStepRegistry.get(step["registry_name"])
        except (KeyError, TypeError):
            return None
    module, _, name = step["class"].rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        return None


def asks_for_remote_code(step: dict[str, Any], kind: type) -> bool:
    """Whether a step has trust_remote_code, in its own config or by the default of its class."""
    field, config = "trust_remote_code", step.get("config") or {}
    if isinstance(config, dict) and field in config:
        return bool(config[field])
    return is_dataclass(kind) and any(f.name == field and f.default is True for f in fields(kind))
