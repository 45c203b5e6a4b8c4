"""Console commands, one short file each."""

import logging

# Where FFmpeg is missing, LeRobot logs pages of loader tracebacks of torchcodec and then decodes with PyAV, which works.
logging.getLogger("lerobot.utils.import_utils").setLevel(logging.ERROR)
