"""Console commands, one short file each."""

import logging
import warnings

# Where FFmpeg is missing, LeRobot logs pages of loader tracebacks of torchcodec and then decodes with PyAV,
# which works.
logging.getLogger("lerobot.utils.import_utils").setLevel(logging.ERROR)
# pygame, which draws Push-T.
warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
