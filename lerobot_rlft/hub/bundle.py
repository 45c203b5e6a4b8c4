"""The published folder of a run: policy, configuration, metrics, report, card.

None of it names the machine.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

import draccus
import yaml
from draccus.utils import DraccusException
from httpx import HTTPError
from huggingface_hub.errors import LocalEntryNotFoundError
from lerobot.configs.default import WandBConfig
from lerobot.utils.constants import TRAINING_STATE_DIR

from ..configs.push import PushConfig
from ..evaluation.report import DIVERSITY, PICTURES
from ..utils.errors import StorageFailure, UserError, one_line
from ..utils.files import explained as explained_storage
from ..utils.files import make_folder, replacing, write_text
from ..utils.run_folder import CONFIG_NAME, METRICS
from ..utils.run_folder import DIVERSITY as DIVERSITY_FOLDER
from ..utils.tables import plain_table
from .anonymise import short_name, without_folders
from .card import run_card
from .client import check_login, explained, names, push
from .finished_run import Run, left_out
from .lineage import Ancestor, on_hub
from .results import eval_report, measured, run_report

CARD, POLICY_CONFIG = "README.md", "config.json"
KEPT = (".safetensors", ".json")
# Of a run, not of what it made: a published configuration starts a new run that pushes nowhere.
OWN = {
    "push_to_hub": False, "save_checkpoint_to_hub": False, "repo_id": None, "private": None, "license": None,
    "trust_remote_code": False, "wandb": draccus.encode(WandBConfig()),
}  # fmt: skip


def push_run(options: PushConfig) -> str:
    """Publish a checkpoint of a run; returns the commit's address.

    Raises:
        UserError: see `staged` and `client.push`.
    """
    run = Run.open(options.run_dir, options.checkpoint)
    check_login(options.repo_id)
    with staged(run, options) as folder:
        return push(
            options.repo_id,
            folder,
            f"Upload iteration {run.iteration} of {run.config['job_name']}",
            private=options.private,
            branch=options.branch,
            tag=options.tag,
            policy_type=run.policy_type,
        )


def dry_run(options: PushConfig) -> str:
    """Write what would be published into `output_dir`; returns the list of it with sizes.

    Raises:
        UserError: see `staged` and `copy`.
    """
    with staged(Run.open(options.run_dir, options.checkpoint), options) as folder:
        copy(folder, options.output_dir)
        listing = sizes(folder)
    where = f"{options.repo_id}{f' (branch {options.branch})' if options.branch else ''}"
    return f"{listing}\nwould be sent to {where}, written to {options.output_dir}; nothing was sent"


@contextmanager
def staged(run: Run, options: PushConfig) -> Iterator[Path]:
    """A temporary folder that holds exactly what is published; large files are links to the run's.

    Raises:
        UserError: the evaluation, the base or the card template that was named does not fit, or a file that
            cannot be left out is damaged.
    """
    with explained_storage(Path(gettempdir())):
        temporary = TemporaryDirectory(prefix="rlft_push_", ignore_cleanup_errors=True)
    with temporary:
        folder = Path(temporary.name)
        try:
            with explained(options.repo_id):
                gather(run, options, folder)
        except (UserError, HTTPError, ConnectionError, LocalEntryNotFoundError):
            raise
        except (LookupError, TypeError, ValueError, AttributeError, OSError, DraccusException) as error:
            raise UserError(
                f"--run_dir={run.folder} cannot be published, a file of it is damaged or of another version "
                f"({one_line(error)}): choose another --checkpoint"
            ) from error
        yield folder


def gather(run: Run, options: PushConfig, folder: Path) -> None:
    """Fill an empty folder.

    Raises:
        UserError: see `staged`.
    """
    base = Ancestor.of(run.config)
    m, report, gaps = measured(run, base, options.eval_dir)
    if options.base_model is not None:
        if base is None:
            raise UserError(
                f"--base_model={options.base_model}, but the run began from scratch: leave it out"
            )
        base = on_hub(base, options.base_model)
    for path in sorted(run.policy.iterdir()):
        if path.suffix in KEPT and path.name != POLICY_CONFIG:
            _add(path, folder / path.name)
    config = published_config(run.config, base)
    _write(folder / CONFIG_NAME, yaml.safe_dump(config, sort_keys=False))
    policy = run.policy_config
    policy = policy | {"repo_id": None, "private": None, "license": options.license or policy["license"]}
    policy["pretrained_path"] = base.name if base is not None and base.revision is not None else None
    policy["pretrained_revision"] = None  # stock LeRobot would look for it in this repository
    _write(folder / POLICY_CONFIG, _json(without_folders(policy)))
    _add_metrics(run, folder / METRICS)
    if options.training_state:
        _add_all(run.checkpoint / TRAINING_STATE_DIR, folder / TRAINING_STATE_DIR)
        _add_all(run.folder / DIVERSITY_FOLDER, folder / DIVERSITY_FOLDER)
    if run.final or report is not None:
        _add_all(run.folder / "pictures", folder / PICTURES / "training", (".png",))
    if report is not None:
        _add_all(report / PICTURES, folder / PICTURES, (".png",))
    if m is not None:
        m = m | {"policy": options.repo_id, "base": base and base.name}
        m["base_revision"] = base and base.revision
        m["others"] = {
            name: side | {"policy": short_name(side["policy"]), "base": m["base"]}
            for name, side in m["others"].items()
        }
        m = without_folders(m)
        _write(folder / DIVERSITY, _json(m))
        if report is not None:
            eval_report(m, report, folder)
        else:
            run_report(m, run.folder / "pictures", folder)
    _write(folder / CARD, run_card(run, base, config, m, gaps, names(folder), options))


def published_config(run: dict[str, Any], base: Ancestor | None) -> dict[str, Any]:
    """The configuration, with the base by its name and without folders of this machine."""
    policy = run["policy"] | {"pretrained_path": base and base.name}
    policy |= {"pretrained_revision": base and base.revision, "repo_id": None, "private": None}
    return without_folders(run | OWN | {"policy": policy, "dataset": run["dataset"] | {"root": None}})


def copy(staging: Path, folder: Path) -> None:
    """Make `folder` with what would be published; it appears when it is whole.

    Raises:
        UserError: it cannot be written, for example because the disk is full.
    """
    try:
        make_folder(folder.parent)
        with replacing(folder, exist_ok=False) as partial:
            for name in names(staging):
                (partial / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(staging / name, partial / name)
    except StorageFailure as failure:
        raise UserError(
            f"--output_dir={folder} cannot be written ({failure.__cause__}): choose another folder, or make "
            "room"
        ) from failure


def sizes(folder: Path) -> str:
    """A line for each file, the largest first, and the sum."""
    size = {name: (folder / name).stat().st_size for name in names(folder)}
    lines = [[f"{size[name]:,}", name] for name in sorted(size, key=lambda name: (-size[name], name))]
    return plain_table([*lines, [f"{sum(size.values()):,}", f"bytes in {len(size)} files"]], ">")


def _add_all(source: Path, folder: Path, suffixes: tuple[str, ...] = KEPT) -> None:
    for path in sorted(source.iterdir()) if source.is_dir() else ():
        if path.suffix in suffixes and not path.name.startswith("."):
            _add(path, folder / path.name)


def _add(source: Path, target: Path) -> None:
    """Put a file into the folder: JSON without paths of this machine, others as links."""
    if source.suffix == ".json":
        try:
            content = json.loads(source.read_text())
        except ValueError as error:
            left_out(source, one_line(error))
            return
        if (text := without_folders(content)) != content:
            _write(target, _json(text))
            return
    make_folder(target.parent)
    with replacing(target) as partial:
        partial.symlink_to(source.resolve())


def _add_metrics(run: Run, target: Path) -> None:
    lines = without_folders(run.metrics)
    if run.whole_metrics and lines == run.metrics and (run.folder / METRICS).is_file():
        _add(run.folder / METRICS, target)
    else:
        _write(target, "".join(f"{json.dumps(line)}\n" for line in lines))


def _write(target: Path, text: str) -> None:
    make_folder(target.parent)
    write_text(target, text)  # replaces a link: through one it would write into the run


def _json(content: Any) -> str:
    return json.dumps(content, indent=2) + "\n"
