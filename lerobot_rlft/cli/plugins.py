"""Installed packages that register environments and policies."""

import logging

from lerobot.utils.import_utils import register_third_party_plugins

from ..utils.errors import one_line


def load_plugins() -> None:
    """Import what LeRobot finds by itself: `lerobot_env_*`, `lerobot_policy_*` and their like.

    One that cannot be imported is a warning, as nobody may want it now.
    """
    root = logging.getLogger()
    root.addFilter(_without_traceback)
    try:
        register_third_party_plugins()
    finally:
        root.removeFilter(_without_traceback)


def _without_traceback(record: logging.LogRecord) -> bool:
    """Let LeRobot's message about a package name the reason instead of showing the traceback."""
    if record.exc_info and record.exc_info[1] is not None:
        reason = one_line(record.exc_info[1])
        record.msg, record.args, record.exc_info = f"{record.getMessage()} ({reason})", (), None
    return True
