"""The Hub: who is logged in, and one commit with everything. Uploads are huggingface_hub's own (LFS, Xet)."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

import yaml
from httpx import HTTPError
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from lerobot.common.train_utils import get_step_checkpoint_dir
from lerobot.utils.constants import LAST_CHECKPOINT_LINK, PRETRAINED_MODEL_DIR, TRAINING_STATE_DIR

from ..policies.pretrained_files import check_repo_id, fetch, split_revision
from ..utils.errors import UserError, one_line
from ..utils.files import make_folder, replacing
from ..utils.run_folder import CONFIG_NAME, METRICS, STATE_JSON

# Of an earlier push, which would belong to other weights now. What others added to the repository stays.
OURS = (
    "*.safetensors", "diversity.json", "report.html", "metrics.jsonl", "rlft_config.yaml", "pictures/*",
    "diversity/*", "training_state/*",
)  # fmt: skip
# What a resume reads.
RUN_FILES = [
    "*.safetensors", "config.json", "policy_*.json", CONFIG_NAME, METRICS, "diversity/*",
    f"{TRAINING_STATE_DIR}/*",
]  # fmt: skip
LOG_IN = "log in with `hf auth login`, or set HF_TOKEN, with a token that may write"


@contextmanager
def explained(repo_id: str) -> Iterator[None]:
    """Turn what the Hub and the network answer into a `UserError`. Tokens are in none of these messages."""
    try:
        yield
    except RuntimeError as error:  # of the upload of a large file, around the actual reason
        raise UserError(_said(error.__cause__ or error, repo_id)) from error
    except (HTTPError, ConnectionError, LocalEntryNotFoundError) as error:
        raise UserError(_said(error, repo_id)) from error
    except (KeyError, json.JSONDecodeError) as error:  # of an answer of another form
        raise UserError(f"the Hub's answer cannot be read ({one_line(error)}): try again later") from error


def _said(error: BaseException, repo_id: str) -> str:
    """The cause of an error and its remedy, in words."""
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE=1 keeps the Hub out of reach: unset it"
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        if status == 401:
            return f"the token was refused: {LOG_IN}"
        if status == 403:
            return f"the token gives no right to write to {repo_id}: use another one, or another --repo_id"
        if isinstance(error, RevisionNotFoundError):
            return f"{repo_id} has no such revision: give a branch, tag or commit of it"
        if isinstance(error, RepositoryNotFoundError):
            return f"there is no {repo_id} that this token may see: check the name"
        return f"the Hub answered {status} ({one_line(error)}): try again later"
    return f"the Hub cannot be reached ({one_line(error)}): check the network, and HF_ENDPOINT if it is set"


def check_login(repo_id: str) -> None:
    """Raise a UserError unless somebody is logged in who may write; asks the Hub.

    Before hours of training, and before a repository is made.
    """
    token = get_token()
    if token is None:
        raise UserError(f"nobody is logged in to the Hub: {LOG_IN}")
    if not token.isascii():  # nothing else may stand in a header
        raise UserError(f"the token holds letters that no token has: {LOG_IN}")
    with explained(repo_id):
        login = HfApi().whoami().get("auth") or {}
    if (login.get("accessToken") or {}).get("role") == "read":
        raise UserError(f"the token may only read: {LOG_IN}")


def published_type(repo_id: str, revision: str | None) -> str | None:
    """The policy type of what is on the Hub already; None where nothing is."""
    try:
        content = json.loads(fetch(repo_id, "config.json", revision).read_text())
        return content.get("type") if isinstance(content, dict) else None
    except LocalEntryNotFoundError:
        raise
    except (EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError, ValueError):
        return None


def download_run(name: str, folder: Path) -> None:
    """Make the folder of a run from what `save_checkpoint_to_hub` or `training_state` published.

    Args:
        name: user/name or user/name@revision.
        folder: to create; it appears when it is whole.

    Raises:
        UserError: there is no such repository, it has no training state, the folder exists or cannot be
            written.
    """
    repo, revision = split_revision(name)
    check_repo_id(repo, "resume=hub:")
    if folder.exists():
        raise UserError(
            f"--output_dir={folder} exists: choose another folder, or continue that run with "
            f"--resume={folder}"
        )
    with explained(repo):
        info = HfApi().model_info(repo, revision=revision)
        if f"{TRAINING_STATE_DIR}/{STATE_JSON}" not in {file.rfilename for file in info.siblings}:
            tags = ", ".join(sorted(ref.name for ref in HfApi().list_repo_refs(repo).tags))
            raise UserError(
                f"--resume=hub:{name} holds no training state: push it with --save_checkpoint_to_hub=true or "
                f"lerobot-rlft-push --training_state=true, or give a revision that has one, @TAG"
                + (f" (tags: {tags})" if tags else "")
            )
        snapshot = Path(snapshot_download(repo, revision=info.sha, allow_patterns=RUN_FILES))
    try:
        iteration = int(json.loads((snapshot / TRAINING_STATE_DIR / STATE_JSON).read_text())["iteration"])
        total = int(yaml.safe_load((snapshot / CONFIG_NAME).read_text())["iterations"])
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise UserError(
            f"--resume=hub:{name} holds a training state or {CONFIG_NAME} that cannot be read "
            f"({one_line(error)}): give another revision, @TAG"
        ) from error
    make_folder(folder.parent)
    with replacing(folder, exist_ok=False) as partial:
        checkpoint = get_step_checkpoint_dir(partial, total, iteration)
        for file in sorted(path for path in snapshot.rglob("*") if path.is_file()):
            inside = file.relative_to(snapshot)
            if inside.parts[0] == TRAINING_STATE_DIR:
                place = checkpoint / inside
            elif inside.name == METRICS or len(inside.parts) > 1:
                place = partial / inside
            else:
                place = checkpoint / PRETRAINED_MODEL_DIR / inside
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)
        (checkpoint.parent / LAST_CHECKPOINT_LINK).symlink_to(checkpoint.name)


def names(folder: Path) -> list[str]:
    """The files of a folder as they are called in a repository."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def push(
    repo_id: str,
    folder: Path,
    message: str,
    private: bool | None = None,
    branch: str | None = None,
    tag: str | None = None,
    kind: str = "model",
    policy_type: str | None = None,
) -> str:
    """Publish a folder in one commit, which is made when all is uploaded; may be repeated.

    Not by `upload_folder`: with Xet that makes a commit every few minutes, and half a policy is public.

    Args:
        folder: holds what is published, and nothing else.
        private: None leaves an existing repository as it is, and a new one as the account prefers.
        branch: made from the main one where it does not exist; None is the main one.
        tag: to put on the commit, moved if it exists.
        kind: "model" or "dataset".
        policy_type: of a model; a repository that holds another type is refused.

    Returns:
        The commit's address.

    Raises:
        UserError: not logged in, no right to write, no network, another policy type, or the Hub's answer.
    """
    check_login(repo_id)
    api = HfApi()
    with explained(repo_id):
        old = policy_type and published_type(repo_id, branch)
        if old != policy_type and old is not None:
            raise UserError(
                f"--repo_id={repo_id} holds a policy of type {old}, this one is {policy_type}: choose "
                "another name, or delete it on the Hub"
            )
        if not api.repo_exists(repo_id, repo_type=kind):
            api.create_repo(repo_id, repo_type=kind, private=private, exist_ok=True)
        if private and not api.repo_info(repo_id, repo_type=kind).private:
            raise UserError(
                f"--private=true, but {repo_id} exists and is public: make it private on the Hub, or choose "
                "another name"
            )
        if branch is not None:
            api.create_branch(repo_id, branch=branch, repo_type=kind, exist_ok=True)
        files = {name: folder / name for name in names(folder)}
        there = api.list_repo_files(repo_id, revision=branch, repo_type=kind)
        stale = [f for f in there if f not in files and any(fnmatch(f, pattern) for pattern in OURS)]
        commit = api.create_commit(
            repo_id,
            [
                *(CommitOperationDelete(path) for path in stale if kind == "model"),
                *(CommitOperationAdd(name, path) for name, path in files.items()),
            ],
            commit_message=message,
            repo_type=kind,
            revision=branch,
        )
        if tag is not None:
            if any(ref.name == tag for ref in api.list_repo_refs(repo_id, repo_type=kind).tags):
                api.delete_tag(repo_id, tag=tag, repo_type=kind)
            api.create_tag(repo_id, tag=tag, revision=commit.oid, repo_type=kind)
    return commit.commit_url
