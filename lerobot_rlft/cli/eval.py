"""`lerobot-rlft-eval`: success and mode diversity of a policy beside its base."""

import shlex
import sys

from lerobot.utils.import_utils import register_third_party_plugins

from ..arguments import parse_command_line
from ..config import CompareConfig
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
    from ..page import headline, write_report

    comparison = compare(config)
    try:
        config.output_dir.mkdir(parents=True)
    except OSError as error:
        raise UserError(
            f"--output_dir={config.output_dir} cannot be made ({error}): choose another"
        ) from error
    page = write_report(comparison, shlex.join(["lerobot-rlft-eval", *sys.argv[1:]]))
    print(f"\n{headline(comparison.metrics)}\n\nReport: {page}")
