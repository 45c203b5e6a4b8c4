"""`lerobot-rlft-eval`: success and mode diversity of a policy beside its base."""

import os
import shlex
import sys

from lerobot.utils.import_utils import register_third_party_plugins

from ..arguments import parse_command_line
from ..config_compare import CompareConfig
from ..errors import EnvironmentFailure, UserError
from . import quiet


def main() -> None:
    register_third_party_plugins()
    quiet()
    try:
        config = parse_command_line(CompareConfig)
        config.resolve()
        run(config)
    except (UserError, EnvironmentFailure, FloatingPointError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("\nstopped, nothing was written")


def run(config: CompareConfig) -> None:
    """Measure and write the report.

    Raises:
        UserError, EnvironmentFailure, FloatingPointError: to be shown without a traceback.
    """
    from ..comparison import compare  # after --help, which needs no models
    from ..page import REPORT, headline, write_report

    folder = config.output_dir
    if not os.access(next(path for path in folder.absolute().parents if path.exists()), os.W_OK):
        raise UserError(f"--output_dir={folder} cannot be written: choose another folder")
    comparison = compare(config)
    try:
        write_report(comparison, folder, shlex.join(["lerobot-rlft-eval", *sys.argv[1:]]))
    except OSError as error:
        raise UserError(f"--output_dir={folder} cannot be written ({error}): choose another") from error
    print(f"\n{headline(comparison.metrics)}\n\nReport: {folder / REPORT}")
