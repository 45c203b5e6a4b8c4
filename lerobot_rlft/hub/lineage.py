"""Lineage of a policy: its base, the base of that, and so on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from httpx import HTTPError
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.errors import EntryNotFoundError

from ..policies.layouts import READABLE
from ..policies.pretrained_files import COMMIT, WEIGHTS, check_repo_id, fetch, file_hash, split_revision
from ..utils.errors import UserError, one_line
from ..utils.run_folder import CONFIG_NAME
from .anonymise import short_name
from .escape import escaped, one_text
from .finished_run import left_out

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
        return cls(str(path) if revision else short_name(str(path)), str(path), revision and str(revision))

    def read(self, file: str) -> str | None:
        """Content of one of its files; None where there is none or it cannot be read now."""
        try:
            return fetch(self.path, file, self.revision).read_text()
        except UnicodeDecodeError as error:
            left_out(Path(file), f"of {one_text(self.name)}, {one_line(error)}")
            return None
        except (EntryNotFoundError, HTTPError, OSError, ValueError):
            return None

    def card_field(self, name: str) -> Any:
        """A field of its own card, for example its licence; None where the card lacks it."""
        try:
            text = self.read("README.md")
            return ModelCard(text).data.to_dict().get(name) if text else None
        except (
            Exception
        ) as error:  # of any kind: others wrote it, and huggingface_hub says little of what may come
            left_out(Path("README.md"), f"of {one_text(self.name)}, {one_line(error)}")
            return None

    @property
    def license(self) -> str | None:
        """The licence that its card names."""
        name = self.card_field("license")
        return name if isinstance(name, str) else None

    @property
    def datasets(self) -> list[str]:
        """Ids of the datasets in its card."""
        field = self.card_field("datasets")
        return [n for n in ([field] if isinstance(field, str) else field or []) if is_repo_id(n)]

    def __str__(self) -> str:
        if self.revision is None:
            return f"`{escaped(self.name)}`, which is not on the Hub"
        if not is_repo_id(self.name) or not COMMIT.fullmatch(self.revision):
            return f"`{escaped(self.name)}`"
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
    held = {file.path: file for file in HfApi().get_paths_info(repo, list(READABLE), revision=commit)}
    weights = next((held[name] for name in READABLE if name in held), None)
    local = Path(base.path) / (weights.path if weights else WEIGHTS)
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
        kind, total, seed = (escaped(v) for v in (run["algorithm"]["type"], run["iterations"], run["seed"]))
        how = f"{kind}, {where} {total} iterations, seed {seed}"
        where = "a run of"
        if base is None:
            data = run["dataset"]
            name = f"`{escaped(data['repo_id'])}`" if data["repo_id"] else "data that is not named"
            return [*lines, f"trained from scratch by {how}, on {name}"]
        lines.append(f"tuned by {how}, from {base}")
        text = base.read(CONFIG_NAME) if base.path else None
        if text is None:
            return lines
        pair = _read_run(text, base)
        if pair is None:
            return lines
        run, base = pair
    return lines


def _read_run(text: str, of: Ancestor) -> tuple[dict[str, Any], Ancestor | None] | None:
    """An ancestor's configuration and what it was tuned from; None where others wrote something else."""
    try:
        run = yaml.safe_load(text)
        base = Ancestor.of(run)
        run["algorithm"]["type"], run["iterations"], run["seed"], run["dataset"]["repo_id"]
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError) as error:
        left_out(Path(CONFIG_NAME), f"of {one_text(of.name)}, {one_line(error)}")
        return None
    if base is not None and of.revision is not None and base.revision is None:
        base = Ancestor(base.name, "", None)  # a folder of somebody else's machine, not of this one
    return run, base


def is_repo_id(name: Any) -> bool:
    try:
        check_repo_id(name)
    except (UserError, TypeError, AttributeError):
        return False
    return True
