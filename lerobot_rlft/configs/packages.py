"""Packages that register parts of a run, `--env.discover_packages_path=PACKAGE`, which the run remembers.

A file never loads one: a package is code, and is named on the command line by whoever trusts it.
"""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from lerobot.configs import parser

from ..utils.errors import UserError

OPTION = parser.PLUGIN_DISCOVERY_SUFFIX


def given_packages() -> dict[str, str]:
    """The packages on the command line, by what they were named for: `env`, `policy`, or nothing."""
    packages = parser.parse_plugin_args(OPTION, sys.argv[1:])
    return {key.removesuffix(OPTION).rstrip("."): package for key, package in packages.items()}


def flags(packages: Any) -> str:
    """The options that load them again, with a blank before each.

    Args:
        packages: as a configuration has it, which others may have written.
    """
    if not isinstance(packages, dict):
        return ""
    return "".join(
        f" --{f'{place}.' if place else ''}{OPTION}={shlex.quote(str(package))}"
        for place, package in packages.items()
    )


def stock_flags(packages: dict[str, str]) -> str:
    """The same for LeRobot's own commands, which take `--policy.` options for fields of the policy."""
    return flags({"" if place == "policy" else place: package for place, package in packages.items()})


@contextmanager
def explained_packages() -> Iterator[None]:
    """Name the packages of the `--config_path` that are not loaded where its content is not understood."""
    try:
        yield
    except UserError as error:
        packages = _saved_packages()
        for place in given_packages():
            packages.pop(place, None)
        if not packages:
            raise
        raise UserError(f"{error}. The run was made with packages: give{flags(packages)}, too") from error


def _saved_packages() -> dict[str, str]:
    file = Path(parser.parse_arg("config_path") or "")
    try:
        content = yaml.safe_load(file.read_text())
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    packages = content.get("packages") if isinstance(content, dict) else None
    return dict(packages) if isinstance(packages, dict) else {}
