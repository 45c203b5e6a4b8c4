"""Published values say nothing about the machine they were written on: paths lose their folders."""

import re
from typing import Any

import yaml

# How a path begins that is not simply a name in the working folder: those may as well be ids on the Hub.
START = r"(?:file://|~[\w.-]*[/\\]|\.{1,2}[/\\]|[A-Za-z]:[/\\]|\\\\|/)"
WHOLE = re.compile(START)
QUOTED = re.compile(rf"""(["'])({START}[^"'\n]*)\1""")
# Not inside of a word, a URL, a fraction or base64.
BARE = re.compile(rf"""(?<![^\s="'(\[{{,;>`]){START}[^\s"'<>,;)\]}}`]*""")
OPTION = re.compile(r"(--[\w.]+=)(.+)", re.DOTALL)


def without_folders(value: Any) -> Any:
    """A copy of JSON or YAML content in which every path out of the working folder is cut to its last name.

    A string that begins as a path does is one, blanks included. In others, as in prose, quoted paths and
    paths without blanks are found. An option, `--name=value`, has its value cut.
    """
    if isinstance(value, dict):
        return {key: without_folders(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [without_folders(entry) for entry in value]
    if not isinstance(value, str):
        return value
    if option := OPTION.fullmatch(value):
        return option[1] + _argument(option[2])
    if WHOLE.match(value):
        return last_name(value)
    text = QUOTED.sub(lambda match: f"{match[1]}{last_name(match[2])}{match[1]}", value)
    return BARE.sub(lambda match: last_name(match[0]), text)


def _argument(text: str) -> str:
    """The value of an option, which may be a list or a mapping in YAML."""
    if text.startswith(("[", "{")):
        try:
            content = yaml.safe_load(text)
        except yaml.YAMLError:
            content = None
        if content is not None:
            document = yaml.safe_dump(
                without_folders(content), default_flow_style=True, sort_keys=False, width=10**6
            )
            return document.strip()
    return without_folders(text)


def last_name(path: str) -> str:
    """The last part of a path of any system; a path without one (`/`, `.`) as it is."""
    parts = _parts(path)
    return parts[-1] if parts else path


def short_name(path: str) -> str:
    """The published name of a policy in a folder: its run's, or the folder's own."""
    parts = [part for part in _parts(path) if part not in ("..", ".")]
    if "checkpoints" in parts[1:]:
        return parts[parts.index("checkpoints", 1) - 1]
    return parts[-1] if parts else "unnamed"


def _parts(path: str) -> list[str]:
    return [part for part in path.removeprefix("file:").replace("\\", "/").split("/") if part]
