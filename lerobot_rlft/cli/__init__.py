"""Console commands, one short file each."""

import logging
import warnings

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
