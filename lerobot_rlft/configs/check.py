"""Names and shapes of the options that a user wrote, checked before they are decoded."""

import difflib
import typing
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Any

from draccus import CHOICE_TYPE_KEY

from ..utils.errors import UserError
from .options import alternatives, as_yaml, choices, groups, hints, is_registry, values, written

MOST_SEED = 2**32 - 1  # of NumPy
SCALARS = (bool, int, float, str, Path)
MOST_LISTED = 30  # longer lists hide the answer


def suggest(name: str, names: list[str]) -> str:
    """The end of an error sentence: the closest of the `names`, or all of them."""
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"did you mean {close[0]}?"
    return f"known: {', '.join(sorted(names))}" if len(names) <= MOST_LISTED else "--help lists what is known"


def check_seed(name: str, seed: int) -> None:
    """Raise a UserError unless every library takes the seed."""
    if seed < 0:
        raise UserError(f"{name}={seed} must not be negative: choose 0 to {MOST_SEED}")
    if seed > MOST_SEED:
        raise UserError(f"{name}={seed} is too large: choose 0 to {MOST_SEED}")


def names(kind: type) -> list[str]:
    """Names of the fields of a dataclass."""
    return [field.name for field in fields(kind)]


def is_needed(config_class: type, field: Field) -> bool:
    """Whether null is no value of a field: neither its type nor its default says so."""
    hint = hints(config_class)[field.name]
    return hint is not Any and NoneType not in (hint, *typing.get_args(hint)) and field.default is not None


class Check:
    """Finds what the dataclasses do not know.

    Args:
        config_class: what is described.
        raw: what the file and the command line say, as nested dicts.
        given: full names of the options of the command line, which are answered with `--name`.
        prefix: where `config_class` sits in the whole config, for example "policy.".
    """

    def __init__(self, config_class: type, raw: dict[str, Any], flags: set[str], prefix: str = "") -> None:
        self.config_class, self.raw, self.flags, self.prefix = config_class, raw, flags, prefix

    def mistakes(self) -> list[str]:
        """A sentence for each; about missing types only where everything else is right."""
        mistakes = list(self._group(self.config_class, self.raw, self.prefix, []))
        return mistakes or list(self._missing())

    def _missing(self) -> Iterator[str]:
        for field in fields(self.config_class):
            is_required = field.default is MISSING and field.default_factory is MISSING and field.init
            if is_required and field.name not in self.raw:
                yield from self._value(hints(self.config_class)[field.name], {}, self.prefix + field.name)

    def _group(self, kind: type, raw: dict[str, Any], place: str, siblings: list[type]) -> Iterator[str]:
        """Mistakes in a dataclass; `siblings` are the other types that could have been chosen."""
        by_name = {field.name: field for field in fields(kind)}
        for name, value in raw.items():
            if name in by_name and value is None and is_needed(kind, by_name[name]):
                option = self._name(place + name)
                yield f"{option}=null is no value: give {values(kind, by_name[name])}, or leave it out"
            elif name in by_name:
                yield from self._value(hints(kind)[name], value, place + name)
            else:
                yield self._unknown(name, kind, place, siblings)

    def _value(self, hint: Any, value: Any, place: str) -> Iterator[str]:
        """Mistakes in a value whose type has options of its own; the others show when they are decoded."""
        kinds = alternatives(hint)
        if isinstance(value, list | dict) and all(kind in SCALARS for kind in kinds):
            yield f"{self._name(place)}={as_yaml(value)} is no single value: give {written(hint)}"
        if len(kinds) != 1 or value is None:
            return
        (kind,) = kinds
        origin = typing.get_origin(kind) or kind
        if origin in (list, tuple) and not isinstance(value, list | tuple):
            yield f"{self._name(place)}={value} is no list: write [...]"
        elif origin is list and typing.get_args(kind):
            for i, item in enumerate(value):
                yield from self._value(typing.get_args(kind)[0], item, f"{place}.{i}")
        elif origin is dict and not isinstance(value, dict):
            option = self._name(place)
            yield f"{option}={value} gives no names: write {option}='{{NAME: VALUE, ...}}'"
        elif not isinstance(kind, type) or not (is_registry(kind) or is_dataclass(kind)):
            return
        elif not isinstance(value, dict):
            if is_registry(kind):
                yield f"{place}: {value!r} has no options of its own: write {{type: {value}}}"
            else:
                option = self._name(place)
                yield f"{option}={value} is a group of options: write {option}.NAME=VALUE"
        elif is_registry(kind):
            yield from self._choice(kind, value, place)
        else:
            yield from self._group(kind, value, f"{place}.", [])

    def _choice(self, registry: Any, value: dict[str, Any], place: str) -> Iterator[str]:
        """Mistakes in what has a type."""
        types, kinds = registry.get_known_choices(), sorted(choices(registry))
        choice = value.get(CHOICE_TYPE_KEY)
        if isinstance(choice, str) and choice in types:
            options = {name: option for name, option in value.items() if name != CHOICE_TYPE_KEY}
            others = [kind for name, kind in types.items() if name != choice]
            yield from self._group(types[choice], options, f"{place}.", others)
        elif CHOICE_TYPE_KEY in value:
            reason = f"{self._name(f'{place}.type')}={choice} is unknown, {suggest(str(choice), kinds)}"
            plugin = "; one of a package needs --env.discover_packages_path=PACKAGE on the command line"
            yield reason + (plugin if place == "env" else "")
        elif place.rpartition(".")[2].isdigit():
            yield f"{place.rpartition('.')[0]}: {value} lacks its type, known: {', '.join(kinds)}"
        elif nowhere := [n for n in value if not any(n in names(kind) for kind in types.values())]:
            yield from (self._unknown_flag(f"{place}.{name}") for name in nowhere)
        else:
            yield f"--{place}.type is missing, known: {', '.join(kinds)}"

    def _name(self, place: str) -> str:
        """`--place` if it was given on the command line."""
        return f"--{place}" if place in self.flags else place

    def _unknown(self, name: str, kind: type, place: str, siblings: list[type]) -> str:
        flags = [flag for flag in self.flags if f"{flag}.".startswith(f"{place}{name}.")]
        if not flags:
            return f"{place}{name} is unknown to {kind.__name__}, {suggest(name, names(kind))}"
        if any(name in names(other) for other in siblings):
            return f"--{place}{name} is unknown to {kind.__name__}, {suggest(name, names(kind))}"
        return "; ".join(self._unknown_flag(flag) for flag in sorted(flags))

    def _unknown_flag(self, flag: str) -> str:
        flags = [
            f"--{option.name}"
            for group in groups(self.config_class, self.raw, self.prefix)
            for option in group.options
        ]
        place, _, leaf = flag.rpartition(".")
        neighbours = [name for name in flags if name[2:].rpartition(".")[0] == place]
        same = [name for name in flags if name.rpartition(".")[2] in (leaf, f"--{leaf}")]
        # --guard.enabled is guard.enable, whatever else has an option `enabled`.
        near = difflib.get_close_matches(f"--{flag}", neighbours or same, n=1) if place else []
        if same and not near:
            return f"--{flag} is unknown, did you mean {' or '.join(same[:3])}?"
        return f"--{flag} is unknown, {suggest(f'--{flag}', near or neighbours or flags)}"
