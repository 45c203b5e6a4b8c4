"""Packages that register environments and policies: installed ones, and those named on the command line."""

import logging
import sys

from lerobot.configs import parser
from lerobot.utils.import_utils import register_third_party_plugins

from ..utils.errors import UserError, one_line

DISCOVER = parser.PLUGIN_DISCOVERY_SUFFIX


def load_plugins() -> None:
    """Import what LeRobot finds by itself (`lerobot_env_*`, `lerobot_policy_*`, ...), then
    `--env.discover_packages_path=PACKAGE` and its like.

    An installed package that cannot be imported is a warning, as nobody may want it now.

    Raises:
        UserError: a package that was named cannot be imported.
    """
    root = logging.getLogger()
    root.addFilter(_without_traceback)
    try:
        register_third_party_plugins()
    finally:
        root.removeFilter(_without_traceback)
    for option, package in parser.parse_plugin_args(DISCOVER, sys.argv[1:]).items():
        _load(option, package)


def _load(option: str, package: str) -> None:
    try:
        parser.load_plugin(package)
    except Exception as error:  # a package may raise anything
        module = sys.modules.get(package)
        if module is not None and not hasattr(module, "__path__"):
            reason = f"is a single file, and LeRobot wants a package: move it to {package}/__init__.py"
        else:
            reason = f"cannot be imported: {one_line(error.__cause__ or error)}"
        raise UserError(f"--{option.lstrip('-')}={package} {reason}") from error


def _without_traceback(record: logging.LogRecord) -> bool:
    """Let LeRobot's message about a package name the reason instead of showing the traceback."""
    if record.exc_info and record.exc_info[1] is not None:
        reason = one_line(record.exc_info[1])
        record.msg, record.args, record.exc_info = f"{record.getMessage()} ({reason})", (), None
    return True
