"""Layouts of a pretrained policy's files: today's, and those that older or other tools left on the Hub."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lerobot
from huggingface_hub import HfApi
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from ..utils.errors import UserError
from .pretrained_files import PROCESSORS, TRUST, WEIGHTS, check_own_files, check_safe, commit_of, fetch
from .statistics import STATS_FROM, is_buffer
from .weights import INDEX, shapes

ADAPTERS, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
READABLE = (WEIGHTS, INDEX, ADAPTERS)  # without running code, the first that is there
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
DISTRIBUTED = ".distcp"  # shards of torch.distributed.checkpoint
CONVERTER = "lerobot-convert-dcp"


@dataclass(frozen=True)
class PretrainedFiles:
    """The files of a policy, on this machine and checked.

    Attributes:
        path: Hub id or folder.
        revision: commit on the Hub; None of a folder.
        weights: model.safetensors, the index of several files, a trusted pickle, or low-rank adapters.
        processors: content of the two JSON files; None of a layout without them.
        base: the policy that adapters belong to; None where the weights are whole.
    """

    path: str
    revision: str | None
    weights: Path
    processors: list[Any] | None
    base: "PretrainedFiles | None" = None

    @property
    def buffers(self) -> list[str]:
        """Names of the statistics inside the weights, as LeRobot wrote them before 0.4."""
        return [name for name in shapes(self.weights) if is_buffer(name)]

    @property
    def processed(self) -> "PretrainedFiles":
        """Whose processors are used: adapters without their own have those of their base."""
        return self if self.processors is not None or self.base is None else self.base.processed


def find_files(
    option: str, path: str, revision: str | None, trust: bool, of_adapters: bool = False
) -> PretrainedFiles:
    """Fetch the weights and processors of a policy in any layout, and check that they run no foreign code.

    Args:
        option: of the command line that named the policy, for messages.
        path: Hub id or folder.
        revision: commit on the Hub, see `commit_of`.
        trust: let through what may run code of its author.
        of_adapters: it is the base of adapters, and must not be adapters itself.

    Raises:
        UserError: there are no weights that can be used, or the files are not safe.
        EntryNotFoundError: the repository has no weights; other OSErrors and HTTPErrors where nothing can be
            read; ValueError: a processor is no JSON.
    """
    processors = read_processors(path, revision)
    check = check_own_files if trust else check_safe
    check(option, processors or [])
    weights = fetch_weights(path, revision, trust)
    base = None
    if weights.name == ADAPTERS:
        base_path, base_revision = _base_of_adapters(option, weights.parent / ADAPTER_CONFIG)
        if of_adapters:
            raise UserError(
                f"{option} holds low-rank adapters of {path}, which holds adapters, too, of {base_path}: "
                "merge those with peft's merge_and_unload() and save_pretrained(), and name that policy"
            )
        base = find_files(option, base_path, commit_of(base_path, base_revision), trust, of_adapters=True)
    return PretrainedFiles(path, revision, weights, processors, base)


def check_processed(option: str, files: PretrainedFiles, dataset: str | None) -> None:
    """Raise a UserError if nothing says how to normalise: LeRobot then does not, without a word.

    Args:
        option: of the command line that named the policy, for messages.
        dataset: whose statistics are taken; None of those of the checkpoint.
    """
    source = files.processed
    if source.processors is None and not source.buffers and dataset is None:
        raise UserError(
            f"{option} lacks {', '.join(PROCESSORS)}, and its weights hold no statistics: give those of the "
            f"dataset that it was trained on, with --policy.{STATS_FROM}=DATASET"
        )


def read_processors(path: str, revision: str | None = None) -> list[Any] | None:
    """The content of the two processors' JSON files; None where there is neither. Nothing is imported.

    Raises:
        OSError, HTTPError, EntryNotFoundError: one is missing or cannot be read; ValueError: it is no JSON.
    """
    missing, content = [], []
    for name in PROCESSORS:
        try:
            content.append(json.loads(fetch(path, name, revision).read_text()))
        except LocalEntryNotFoundError:
            raise  # no network, which says nothing about the repository
        except EntryNotFoundError as error:
            missing.append(error)
    if missing and content:
        raise missing[0]
    return content or None


def list_files(path: str, revision: str | None = None) -> set[str]:
    """Paths of the files of a folder, at most one folder deep, or of a Hub repository."""
    if Path(path).is_dir():
        files = (file for pattern in ("*", "*/*") for file in Path(path).glob(pattern))
        return {file.relative_to(path).as_posix() for file in files if file.is_file()}
    return set(HfApi().list_repo_files(path, revision=revision))


def fetch_weights(path: str, revision: str | None, trust: bool) -> Path:
    """The weights: safetensors, or, only where they are trusted, a pickle where there is nothing else.

    Returns:
        model.safetensors, else the index beside its files, else adapters beside their config, else a pickle.

    Raises:
        UserError: there is nothing but pickles, and they are not trusted, or a distributed checkpoint.
        EntryNotFoundError: there are no weights.
    """
    for name, beside in ((WEIGHTS, None), (INDEX, _named_by), (ADAPTERS, _config_of)):
        try:
            weights = fetch(path, name, revision)
        except LocalEntryNotFoundError:
            raise  # no network, which says nothing about the repository
        except EntryNotFoundError:
            continue
        for other in beside(path, weights) if beside else ():
            fetch(path, other, revision)
        return weights
    names = list_files(path, revision)
    if reason := refusal(names, [WEIGHTS]):
        if not trust or distributed(names):
            raise UserError(f"{path} lacks {WEIGHTS}{reason}")
        return fetch(path, pickles(names)[0], revision)
    raise EntryNotFoundError(f"{path} has no weights, none of {', '.join(READABLE)}")


def has_weights(names: set[str]) -> bool:
    """Whether there are weights that run no code when they are read."""
    return bool(names & set(READABLE))


def pickles(names: set[str]) -> list[str]:
    return sorted(name for name in names if name.endswith(PICKLES) and "/" not in name)


def distributed(names: set[str]) -> list[str]:
    """Shards of a distributed checkpoint."""
    return sorted(name for name in names if name.endswith(DISTRIBUTED))


def refusal(names: set[str], missing: list[str]) -> str:
    """The reason not to read weights in another format, as the end of a sentence; empty where there are
    none.
    """
    if missing[:1] != [WEIGHTS]:
        return ""
    if shards := distributed(names):
        installed = shutil.which(CONVERTER)
        where = "" if installed else f" of a LeRobot newer than {lerobot.__version__}, which lacks it"
        return (
            f". It holds {shards[0]}, a shard of a distributed checkpoint: turn it into {WEIGHTS} with "
            f"{CONVERTER}{where}"
        )
    if missing != [WEIGHTS] or not (files := pickles(names)):
        return ""
    return (
        f". It holds {files[0]}, a pickle, which can run any code when it is loaded and is refused: ask for "
        f"safetensors, or load it with {TRUST} if you trust its author"
    )


def _named_by(path: str, index: Path) -> list[str]:
    """Names of the files of an index.

    Raises:
        UserError: it names none, or files that are not beside it.
    """
    content = json.loads(index.read_text())
    names = content.get("weight_map") if isinstance(content, dict) else None
    names = set(names.values()) if isinstance(names, dict) else set()
    if not names or any(Path(name).name != name or not name.endswith(".safetensors") for name in names):
        raise UserError(
            f"{path} has an {INDEX} whose weight_map does not name .safetensors files beside it: download or "
            "save it again"
        )
    return sorted(names)


def _config_of(path: str, adapters: Path) -> list[str]:
    return [ADAPTER_CONFIG]


def _base_of_adapters(option: str, config: Path) -> tuple[str, str | None]:
    """Hub id or folder, and revision, of the policy that adapters were trained on.

    Raises:
        UserError: their config does not name it.
    """
    content = json.loads(config.read_text())
    path = content.get("base_model_name_or_path") if isinstance(content, dict) else None
    if not isinstance(path, str) or not path:
        raise UserError(
            f"{option} holds low-rank adapters, and its {ADAPTER_CONFIG} names no base_model_name_or_path: "
            "write the Hub id or folder of the policy that they were trained on there"
        )
    if not Path(path).is_dir() and path.count("/") != 1:
        raise UserError(
            f"{option} holds low-rank adapters of {path}, which is no folder here: write the Hub id or "
            f"folder of that policy as base_model_name_or_path into its {ADAPTER_CONFIG}"
        )
    return path, content.get("revision")
