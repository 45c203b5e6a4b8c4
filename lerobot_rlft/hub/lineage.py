"""What a policy was tuned from, what that was tuned from, and so on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from httpx import HTTPError
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.errors import EntryNotFoundError

from ..policies.pretrained_files import WEIGHTS, check_repo_id, fetch, file_hash, split_revision
from ..utils.errors import UserError
from ..utils.run_folder import CONFIG_NAME
from .anonymise import short_name

MOST_ANCESTORS = 20


@dataclass(frozen=True)
class Ancestor:
    """A policy that another one was tuned from.

    Attributes:
        name: id on the Hub, or what its folder is called elsewhere.
        path: where it is read from: the id, or the folder.
        revision: its commit on the Hub; None for a folder.
    """

    name: str
    path: str
    revision: str | None

    @classmethod
    def of(cls, run: dict[str, Any]) -> "Ancestor | None":
        """The base of a run; None where it began from scratch.

        Args:
            run: content of rlft_config.yaml.
        """
        path, revision = run["policy"]["pretrained_path"], run["policy"].get("pretrained_revision")
        if path is None:
            return None
        return cls(path if revision else short_name(path), path, revision)

    def read(self, file: str) -> str | None:
        """Content of one of its files; None where there is none or it cannot be read now."""
        try:
            return fetch(self.path, file, self.revision).read_text()
        except (EntryNotFoundError, HTTPError, OSError, ValueError):
            return None

    def card_field(self, name: str) -> Any:
        """What its own card says, for example its licence; None where it says nothing."""
        text = self.read("README.md")
        return text and ModelCard(text, ignore_metadata_errors=True).data.to_dict().get(name)

    def __str__(self) -> str:
        if self.revision is None:
            return f"`{self.name}`, which is not on the Hub"
        url = f"https://huggingface.co/{self.name}/tree/{self.revision}"
        return f"[{self.name}]({url}) at commit `{self.revision[:8]}`"


def on_hub(base: Ancestor, option: str) -> Ancestor:
    """The base as it lies on the Hub, where `--base_model` says it does.

    Raises:
        UserError: it is not there, or its weights are others.
    """
    repo, revision = split_revision(option)
    check_repo_id(repo, "base_model")
    commit = HfApi().model_info(repo, revision=revision).sha
    (weights,) = HfApi().get_paths_info(repo, [WEIGHTS], revision=commit) or (None,)
    local = Path(base.path) / WEIGHTS
    if weights is None or (local.is_file() and weights.lfs and weights.lfs.sha256 != file_hash(local)):
        raise UserError(
            f"--base_model={option} is not what the run was tuned from: its {WEIGHTS} is missing or "
            f"differs from {base.name}'s. Push that one first, or leave --base_model out"
        )
    return Ancestor(repo, repo, commit)


def lineage(run: dict[str, Any], iteration: int, base: Ancestor | None) -> list[str]:
    """One line for each step, from the policy's own run up to what is no longer known.

    Args:
        run: content of the policy's rlft_config.yaml.
        iteration: of its checkpoint; that of an ancestor is not known.
        base: of that run, see `Ancestor.of` and `on_hub`.
    """
    lines, where = [], f"iteration {iteration} of"
    while len(lines) < MOST_ANCESTORS:
        how = f"{run['algorithm']['type']}, {where} {run['iterations']} iterations, seed {run['seed']}"
        where = "a run of"
        if base is None:
            data = run["dataset"]
            name = f"`{data['repo_id']}`" if data["repo_id"] else "data that is not named"
            return [*lines, f"trained from scratch by {how}, on {name}"]
        lines.append(f"tuned by {how}, from {base}")
        text = base.read(CONFIG_NAME)
        if text is None:
            return lines
        run = yaml.safe_load(text)
        base = Ancestor.of(run)
    return lines
