"""`lerobot-rlft-eval`: success and mode diversity of policies beside their base."""

import os
import shlex
import sys

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
    if not os.access(next(path for path in folder.absolute().parents if path.exists()), os.W_OK):
        raise UserError(f"--output_dir={folder} cannot be written: choose another folder")
    comparison = compare(config)
    try:
        write_report(comparison, folder, shlex.join(["lerobot-rlft-eval", *sys.argv[1:]]))
    except OSError as error:
        raise UserError(f"--output_dir={folder} cannot be written ({error}): choose another") from error
    m = comparison.metrics
    print("\n" + "\n".join(headlines(m)) + f"\n\n{text(m)}\n\nReport: {folder / REPORT}\n\n{markdown(m)}")
