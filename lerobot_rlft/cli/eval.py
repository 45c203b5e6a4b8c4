"""`lerobot-rlft-eval`: success and mode diversity of policies beside their base."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from ..configs.eval import EvalPipelineConfig
from ..utils.errors import StorageFailure, UserError
from ..utils.files import write_text
from . import run_command

if TYPE_CHECKING:
    from ..evaluation.comparison import Comparison


def main() -> None:
    run_command(EvalPipelineConfig, run)


def run(config: EvalPipelineConfig) -> None:
    """Measure and write the report.

    Raises:
        UserError, EnvironmentFailure, FloatingPointError: to be shown without a traceback.
    """
    from ..evaluation.comparison import compare  # after --help, which needs no models
    from ..evaluation.report import REPORT, write_report
    from ..evaluation.tables import headlines, markdown, text
    from ..hub.client import check_login
    from ..hub.dataset import FOLDER

    folder = config.output_dir
    with _writing(folder), TemporaryDirectory(dir=next(p for p in folder.absolute().parents if p.exists())):
        pass  # now, and not after hours of playing; permissions alone do not tell, root has them everywhere
    if config.push_dataset is not None:
        check_login(config.push_dataset)
    comparison = compare(config)
    with _writing(folder):
        write_report(comparison, folder, shlex.join(["lerobot-rlft-eval", *sys.argv[1:]]))
    m = comparison.metrics
    print("\n" + "\n".join(headlines(m)) + f"\n\n{text(m)}\n\nReport: {folder / REPORT}\n\n{markdown(m)}")
    if config.record:
        try:
            record_episodes(config, comparison)
        except KeyboardInterrupt:
            remainder = "report and dataset are" if (folder / FOLDER).is_dir() else "the report is"
            sys.exit(f"\nstopped: {remainder} whole: {folder}")


def record_episodes(config: EvalPipelineConfig, comparison: "Comparison") -> None:
    """Write the dataset beside the report, and push it where that is asked for.

    Raises:
        UserError: it could not be pushed; the message says where it lies.
    """
    from ..hub.dataset import FOLDER, push_dataset, record

    folder, repo_id = config.output_dir / FOLDER, config.push_dataset
    with _writing(config.output_dir):
        dataset, card = record(comparison, folder, repo_id or f"local/{config.env.type}")
        write_text(folder / "README.md", card)
    print(f"\nDataset: {folder}, {dataset.num_episodes} episodes, {dataset.num_frames} frames")
    if repo_id is None:
        return
    try:
        print(f"Published: {push_dataset(folder, repo_id, config.private)}")
    except UserError as error:
        raise UserError(
            f"the dataset lies in {folder}, but was not pushed: {error}. Push it later with\n"
            f"  hf upload {repo_id} {shlex.quote(str(folder))} --repo-type=dataset"
        ) from error


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, StorageFailure) as error:
        reason = error.__cause__ if isinstance(error, StorageFailure) else error
        raise UserError(
            f"--output_dir={folder} cannot be written ({reason}): choose another folder, or make room"
        ) from error
