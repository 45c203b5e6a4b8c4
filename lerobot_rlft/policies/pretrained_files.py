"""Files of a pretrained policy: in a folder, or in `user/name` on the Hub. What may run code is refused."""

import hashlib
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from httpx import HTTPError
from huggingface_hub import HfApi, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
)
from huggingface_hub.utils import validate_repo_id
from lerobot.processor import ProcessorStepRegistry

from ..utils.errors import UserError, one_line

WEIGHTS = "model.safetensors"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
OUR_CODE = ("lerobot.", "lerobot_rlft.")  # a processor step may name any class that Python can import
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
        said = "" if repo_id.count("/") == 1 else "it must name the user or organisation, too"
    except HFValidationError as error:
        said = one_line(error)
    if said:
        raise UserError(
            f"--{option}={repo_id} is no id on the Hub: give user/name, in letters, digits, -, _ and . "
            f"({said})"
        )


def fetch(path: str, file: str, revision: str | None = None) -> Path:
    """A file of a folder, or of a Hub repository (from the cache where it is there).

    Raises:
        EntryNotFoundError: there is no such file; other OSErrors and HTTPErrors where nothing can be read.
    """
    if Path(path).is_dir():
        if not (found := Path(path) / file).is_file():
            raise EntryNotFoundError(f"{path} has no {file}")
        return found
    return Path(hf_hub_download(path, file, revision=revision))


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
        cached = try_to_load_from_cache(path, "config.json", revision=revision)
        if not isinstance(cached, str):
            raise
        return Path(cached).parent.name


def file_hash(path: Path) -> str:
    """SHA-256 of a file, which the Hub knows large files by."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch_weights(path: str, revision: str | None, trust: bool) -> Path:
    """The weights: safetensors, or, only where they are trusted, a pickle where there is nothing else.

    Raises:
        UserError: the checkpoint holds nothing but pickles, and they are not trusted.
        EntryNotFoundError: it holds no weights.
    """
    try:
        return fetch(path, WEIGHTS, revision)
    except LocalEntryNotFoundError:
        raise  # no network, which says nothing about the repository
    except EntryNotFoundError:
        if Path(path).is_dir():
            names = {file.name for file in Path(path).iterdir()}
        else:
            names = set(HfApi().list_repo_files(path, revision=revision))
        if not (found := pickles(names)):
            raise
        if trust:
            return fetch(path, found[0], revision)
        raise UserError(f"{path} lacks {WEIGHTS}{refusal(names, [WEIGHTS])}") from None


def pickles(names: set[str]) -> list[str]:
    return sorted(name for name in names if name.endswith(PICKLES))


def refusal(names: set[str], missing: list[str]) -> str:
    """Why pickled weights are not read, as the end of a sentence; nothing where there are none."""
    if missing != [WEIGHTS] or not (found := pickles(names)):
        return ""
    return (
        f". It holds {found[0]}, a pickle, which can run any code when it is loaded and is refused: ask for "
        f"safetensors, or load it with {TRUST} if you trust its author"
    )


def check_safe(option: str, processors: list[dict[str, Any]]) -> None:
    """Raise a UserError if a processor step would run code that is not LeRobot's.

    A processor's JSON names classes to be imported and made with arguments of its author's choice.
    """
    for step in (step for processor in processors for step in processor.get("steps", [])):
        named = step.get("class", "")
        if "registry_name" not in step and not named.startswith(OUR_CODE):
            raise UserError(
                f"{option} has a processor step of class {named!r}, code that is not LeRobot's, and is "
                f"refused: load it with {TRUST} if you trust its author"
            )
        if asks_for_remote_code(step):
            raise UserError(
                f"{option} has a processor step {step.get('registry_name', named)} with trust_remote_code, "
                f"which runs code from the Hub, and is refused: load it with {TRUST} if you trust its author"
            )


def asks_for_remote_code(step: dict[str, Any]) -> bool:
    """Whether a step has trust_remote_code, in its own config or by default."""
    field = "trust_remote_code"
    if field in step.get("config", {}):
        return bool(step["config"][field])
    try:
        kind = ProcessorStepRegistry.get(step.get("registry_name", ""))
    except KeyError:  # unknown steps are told of when they are built
        return False
    return is_dataclass(kind) and any(f.name == field and f.default is True for f in fields(kind))
