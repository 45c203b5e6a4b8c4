"""The options of a command as its dataclasses declare them, for `--help`, suggestions and the reference."""

import typing
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any

from draccus import ChoiceRegistry
from draccus.utils import is_choice_type
from draccus.wrappers import docstring
from lerobot.configs import PreTrainedConfig, parser
from lerobot.envs import EnvConfig

from ..policies import load_adapters
from ..policies.base import ADAPTERS
from ..policies.statistics import STATS_FROM

# Fields of LeRobot's environments and policies that say how they are wired, and not what a user chooses.
WIRING = ("features", "features_map", "input_features", "output_features")
PLAIN_NAMES = {
    int: "INT",
    float: "NUMBER",
    str: "TEXT",
    bool: "true|false",
    Path: "PATH",
    dict: "{NAME: VALUE}",
}
PATH_TEXT = "A pretrained policy, as user/name on the Hub or as a folder; its type is read from it."
STATS_TEXT = (
    "Dataset, its folder or user/name on the Hub, whose statistics normalise in place of those of the "
    "pretrained policy."
)
PLUGIN_TEXT = "Python package to import first, which registers further types."


@dataclass(frozen=True)
class Option:
    """One `--name=VALUE`.

    Attributes:
        name: with the groups that it lies in, "rollout.n_envs".
        values: what may be given, for a reader.
        default: as a user would write it; None where there is none.
        text: one or more sentences; empty where LeRobot has none.
    """

    name: str
    values: str
    default: str | None
    text: str


@dataclass(frozen=True)
class Group:
    """Options that share a prefix. `name` is empty for those of the command itself."""

    name: str
    text: str
    options: list[Option]


def groups(config_class: type, selection: dict[str, Any] | None = None, prefix: str = "") -> Iterator[Group]:
    """All groups of options of a command; of what has types, those of the type in `selection`."""
    own, inner = [], []
    for field in shown(config_class):
        name = prefix + field.name
        below = (selection or {}).get(field.name)
        below = below if isinstance(below, dict) else {}
        kind = holds(hints(config_class)[field.name])
        if kind is None:
            own.append(Option(name, values(config_class, field), default(field), text(config_class, field)))
        elif is_registry(kind):
            inner += _choice(config_class, field, name, kind, below)
        else:
            summary = text(config_class, field)
            first, *rest = groups(kind, below, f"{name}.")
            inner += [Group(name, summary, first.options), *rest]
    yield Group(prefix.removesuffix("."), summary_of(config_class), own)
    yield from inner


def _choice(holder: type, field: Field, name: str, registry: type, picks: dict[str, Any]) -> Iterator[Group]:
    types = choices(registry)
    kind = types.get(picks.get("type", ""))
    options = [Option(f"{name}.type", "|".join(sorted(types)), None, f"Type of {name}.")]
    if field.name in getattr(holder, "__get_path_fields__", list)():
        options.insert(0, Option(f"{name}.{parser.PATH_KEY}", "HUB_ID_OR_FOLDER", None, PATH_TEXT))
        options.insert(1, Option(f"{name}.{STATS_FROM}", "DATASET", None, STATS_TEXT))
    if issubclass(registry, PreTrainedConfig | EnvConfig):
        options.append(Option(f"{name}.{parser.PLUGIN_DISCOVERY_SUFFIX}", "PACKAGE", None, PLUGIN_TEXT))
    rest: list[Group] = []
    meaning = text(holder, field)
    if kind is not None:
        first, *rest = groups(kind, picks, f"{name}.")
        options += first.options
        meaning += f" {picks['type']}: {first.text}"
    return iter([Group(name, meaning, options), *rest])


def shown(config_class: type) -> list[Field]:
    """The fields that a user may set."""
    return [f for f in fields(config_class) if f.init and f.name not in WIRING and not f.name.startswith("_")]


def choices(registry: type[ChoiceRegistry]) -> dict[str, type]:
    """The types by name; of policies those that can be trained here."""
    types = registry.get_known_choices()
    if not issubclass(registry, PreTrainedConfig):
        return types
    load_adapters()
    return {name: kind for name, kind in types.items() if name in ADAPTERS}


hints = cache(typing.get_type_hints)


def alternatives(hint: Any) -> list[Any]:
    """The members of a union but None, or the type itself."""
    is_union = typing.get_origin(hint) not in (None, list, tuple, dict, type)
    return [kind for kind in (typing.get_args(hint) if is_union else (hint,)) if kind is not NoneType]


def holds(hint: Any) -> type | None:
    """The group of options, or the registry of their types, that a field of this type holds."""
    kinds = alternatives(hint)
    kind = kinds[0] if len(kinds) == 1 else None
    return kind if isinstance(kind, type) and (is_registry(kind) or is_dataclass(kind)) else None


def is_registry(kind: type) -> bool:
    """Whether a `type` chooses the class."""
    return is_choice_type(kind)


def text(config_class: type, field: Field) -> str:
    """The comment above the field in its class; of a group, else the summary of the group."""
    docs = _described(config_class, field.name)
    meaning = docs.comment_above or docs.comment_inline or docs.docstring_below
    kind = holds(hints(config_class)[field.name])
    if not meaning and kind is not None:
        meaning = summary_of(kind)
    return "" if meaning.startswith(("type:", "noqa")) else " ".join(meaning.split())


_described = cache(docstring.get_attribute_docstring)


def summary_of(config_class: type) -> str:
    """First paragraph of the docstring."""
    summary = (config_class.__doc__ or "").split("\n\n")[0]
    return "" if summary.startswith(f"{config_class.__name__}(") else " ".join(summary.split())


def values(config_class: type, field: Field) -> str:
    """Values that may be written, for a reader."""
    return "|".join(_written(kind) for kind in alternatives(hints(config_class)[field.name]))


def _written(kind: Any) -> str:
    origin, inner = typing.get_origin(kind) or kind, typing.get_args(kind)
    if origin is typing.Literal:
        return "|".join(map(str, inner))
    if origin in (list, tuple, set):
        item = inner[0] if inner else str
        if isinstance(item, type) and is_registry(item):
            return "[{type: NAME, ...}, ...]"
        return f"[{_written(item)}, ...]"
    if isinstance(origin, type) and issubclass(origin, Enum):
        return "|".join(member.name for member in origin)
    return PLAIN_NAMES.get(origin, "{NAME: VALUE}" if is_dataclass(origin) else "VALUE")


def default(field: Field) -> str | None:
    """The default as a user would write it; None where the option is required."""
    value = field.default
    if value is MISSING:
        if field.default_factory is MISSING:
            return None
        value = field.default_factory()
    return "" if is_dataclass(value) else as_yaml(value)


def as_yaml(value: Any) -> str:
    """A value as a user writes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(as_yaml, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {as_yaml(item)}' for key, item in value.items())}}}"
    if isinstance(value, Enum):
        return value.name
    return f"{value:g}" if isinstance(value, float) else str(value) if value != "" else '""'
