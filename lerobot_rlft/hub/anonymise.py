"""Published text says nothing about the machine it was written on: absolute paths lose their folders."""

import re
from pathlib import PurePath
from typing import Any

# Not after a letter, a slash, `.`, `+` or `<`: URLs, fractions, closing tags and base64 hold no paths.
PATH = re.compile(r"""(?<![\w/.+<])~?/(?:[^\s/"'<>,;]+/)*([^\s/"'<>,;]+)""")


def without_folders(value: Any) -> Any:
    """A copy of JSON or YAML content in which every string that is a path out of the working folder is cut to
    its last part."""
    if isinstance(value, dict):
        return {key: without_folders(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [without_folders(entry) for entry in value]
    if not isinstance(value, str):
        return value
    if value.startswith(("/", "~", "..")) or re.match(r"[A-Za-z]:[/\\]", value):
        return PurePath(value.replace("\\", "/")).name
    return text_without_folders(value)


def text_without_folders(text: str) -> str:
    """Prose, HTML or a command whose absolute paths are cut to their last part."""
    return PATH.sub(r"\1", text)


def short_name(path: str) -> str:
    """What a policy in a folder is called elsewhere: its run, or the folder's own name."""
    parts = [p for p in PurePath(path).parts if p not in ("/", "..", ".")]
    if "checkpoints" in parts[1:]:
        return parts[parts.index("checkpoints", 1) - 1]
    return parts[-1] if parts else "unnamed"
