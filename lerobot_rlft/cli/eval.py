"""`lerobot-rlft-eval`: success and mode diversity of policies beside their base."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from ..config_compare import CompareConfig
from ..errors import UserError
from . import run_command


def main() -> None:
    run_command(CompareConfig, run)


def run(config: CompareConfig) -> None:
    """Measure and write the report.

    Raises:
        UserError, EnvironmentFailure, FloatingPointError: to be shown without a traceback.
    """
    from ..comparison import compare  # after --help, which needs no models
    from ..page import REPORT, write_report
    from ..page_table import headlines, markdown, text

    folder = config.output_dir
    with _writing(folder), TemporaryDirectory(dir=next(p for p in folder.absolute().parents if p.exists())):
        pass  # now, and not after hours of playing; permissions alone do not tell, root has them everywhere
    comparison = compare(config)
    with _writing(folder):
        write_report(comparison, folder, shlex.join(["lerobot-rlft-eval", *sys.argv[1:]]))
    m = comparison.metrics
    print("\n" + "\n".join(headlines(m)) + f"\n\n{text(m)}\n\nReport: {folder / REPORT}\n\n{markdown(m)}")


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"--output_dir={folder} cannot be written ({error}): choose another folder"
        ) from error
