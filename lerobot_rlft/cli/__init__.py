"""Console commands, one short file each."""

import logging
import sys
import warnings
from collections.abc import Callable
from typing import Any

# Where FFmpeg is missing, LeRobot logs pages of loader tracebacks of torchcodec and then decodes with PyAV,
# which works.
logging.getLogger("lerobot.utils.import_utils").setLevel(logging.ERROR)
# pygame, which draws Push-T.
warnings.filterwarnings("ignore", message="pkg_resources is deprecated")


def quiet() -> None:
    """Logging as in `lerobot-train`, without what its libraries say about themselves."""
    from lerobot.utils.utils import init_logging

    init_logging()
    for name in ("lerobot", "matplotlib"):
        logging.getLogger(name).setLevel(logging.WARNING)


def run_command(config_class: type, run: Callable[[Any], None]) -> None:
    """Read the options, check them (`config_class.resolve`) and run; mistakes are told without traceback.

    SIGTERM stops like Ctrl-C.
    """
    from ..configs.parser import parse_command_line
    from ..utils.errors import EnvironmentFailure, UserError
    from ..utils.signals import sigterm_as_interrupt
    from .plugins import load_plugins

    try:
        load_plugins()
        quiet()
        config = parse_command_line(config_class)
        config.resolve()
        with sigterm_as_interrupt():
            run(config)
    except (UserError, EnvironmentFailure, FloatingPointError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("\nstopped, nothing was written")
