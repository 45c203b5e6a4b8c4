"""Text of `--help` and `--version`."""

import inspect
import shutil
import textwrap
from importlib.metadata import version as installed
from typing import Any

from .. import __version__
from .options import Option, groups

WIDEST = 100
FILE_TEXT = "YAML file of options, or a recipe such as quickstart; the command line has the last word."
HELP_TEXT = "Show this text, with the options of the types that are chosen beside it."
VERSION_TEXT = "Show the versions of this package, LeRobot and PyTorch."
COMMON = [
    Option("config_path", "FILE_OR_RECIPE", None, FILE_TEXT),
    Option("help", "", None, HELP_TEXT),
    Option("version", "", None, VERSION_TEXT),
]


def version() -> str:
    """One line."""
    return f"lerobot_rlft {__version__} (lerobot {installed('lerobot')}, torch {installed('torch')})"


def help_text(config_class: type, selection: dict[str, Any]) -> str:
    """Purpose and examples from the docstring of the command's config, then all options.

    Args:
        selection: what file and command line say, as nested dicts: of what has types, those are shown.
    """
    own, *others = groups(config_class, selection)
    sections = [inspect.cleandoc(config_class.__doc__ or "")]
    plain = [option for option in own.options if option.name == getattr(config_class, "POSITIONAL", None)]
    rest = [option for option in own.options if option not in plain]
    sections += ["\n".join((f"{option.name} ...", *_wrapped(option.text, "  "))) for option in plain]
    sections.append("\n".join(["Options", *map(_option, (*rest, *COMMON))]))
    for group in others:
        heading = [f"--{group.name}.*", *_wrapped(group.text, "  ")]
        sections.append("\n".join([*heading, *map(_option, group.options)]))
    return "\n\n".join(sections)


def _option(option: Option) -> str:
    default = f"  (default {option.default})" if option.default else ""
    value = f"={option.values}" if option.values else ""
    return "\n".join((f"  --{option.name}{value}{default}", *_wrapped(option.text, " " * 6)))


def _wrapped(text: str, indent: str) -> list[str]:
    width = min(shutil.get_terminal_size().columns, WIDEST)
    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent)
