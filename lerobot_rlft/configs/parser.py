"""From the command line and YAML files to a config by LeRobot's parser, with errors that name the way out."""

import difflib
import io
import re
import sys
import typing
from argparse import ArgumentError
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import draccus
import yaml
from draccus.argparsing import ArgumentParser
from draccus.utils import DecodingError, DraccusException
from lerobot.configs import parser

from ..utils.errors import UserError

MOST_LISTED = 30  # longer lists hide the answer
TRUST_FIELD = "trust_remote_code"


def parse_command_line[T](config_class: type[T]) -> T:
    """What LeRobot's `parser.wrap` makes of `sys.argv`.

    That is YAML by `--config_path`, `--policy.path`, plugins and `--help`. Trust in remote code is taken from
    the command line alone.

    Raises:
        UserError: a name or value is not usable.
        SystemExit: after `--help`.
    """

    @parser.wrap()
    def parsed(config: config_class):  # type: ignore[valid-type]
        return config

    with explained(config_class):
        _paths_to_command_line(config_class)
        config = parsed()
    if hasattr(config, TRUST_FIELD) and parser.parse_arg(TRUST_FIELD) is None:
        setattr(config, TRUST_FIELD, False)  # a file, which others may have written, gives no trust
    return config


def _paths_to_command_line(config_class: type) -> None:
    """Give `path` of a --config_path file on the command line too: only there does LeRobot's parser take the
    other options of its field, --policy.n_action_steps beside policy.path, for overrides.
    """
    file = Path(parser.parse_arg("config_path") or "")
    if file.suffix.lower() not in (".yaml", ".yml", ".json") or not file.is_file():
        return
    content = yaml.safe_load(file.read_text())  # which reads JSON as well
    for name in getattr(config_class, "__get_path_fields__", list)():
        written = content.get(name) if isinstance(content, dict) else None
        given = parser.parse_arg(f"{name}.{parser.PATH_KEY}")
        if given is None and isinstance(written, dict) and parser.PATH_KEY in written:
            sys.argv.append(f"--{name}.{parser.PATH_KEY}={written[parser.PATH_KEY]}")


@contextmanager
def explained(config_class: type, prefix: str = "") -> Iterator[None]:
    """Turn what draccus, argparse and LeRobot's parser say about a bad name or value into a `UserError`.

    Args:
        config_class: what is parsed.
        prefix: where it sits in the whole config, for example "policy.".
    """
    said = io.StringIO()
    try:
        # argparse and LeRobot's parser print their reason and exit.
        with redirect_stderr(said):
            yield
    except SystemExit as stop:
        if not stop.code:
            raise
        error, printed = stop.__context__, said.getvalue()
        reason = (
            _reason(error) if isinstance(error, DraccusException) else printed.partition("error: ")[2].strip()
        )
        raise UserError(_improved(reason or printed, config_class, prefix)) from None
    except DraccusException as error:
        raise UserError(_improved(_reason(error), config_class, prefix)) from error
    except (ArgumentError, parser.PluginLoadError, FileNotFoundError, yaml.YAMLError) as error:
        raise UserError(str(error)) from error
    sys.stderr.write(said.getvalue())


def suggest(unknown: str, known: list[str]) -> str:
    """The end of an error sentence: the closest of the `known` names, or all of them."""
    close = difflib.get_close_matches(unknown, known, n=1)
    if close:
        return f"did you mean {close[0]}?"
    return f"known: {', '.join(sorted(known))}" if len(known) <= MOST_LISTED else "--help lists what is known"


def _reason(error: BaseException) -> str:
    """The innermost message about the user's value: draccus wraps it for unions and for dataclass checks."""
    cause = error.__cause__
    own_check = isinstance(cause, ValueError) and not isinstance(error, DecodingError)
    return _reason(cause) if cause and (own_check or isinstance(cause, DraccusException)) else str(error)


def _improved(reason: str, config_class: type, prefix: str) -> str:
    """Add the closest known name to a message about an unknown one."""
    if found := re.search(r"unrecognized arguments: (.*)", reason, re.DOTALL):
        return "; ".join(_unknown_flag(flag, config_class, prefix) for flag in found[1].split())
    if found := re.search(r"(?:`([\w.]+)`: )?The fields (.+) are not valid for (\w+)", reason):
        place = prefix + (f"{found[1]}." if found[1] else "")
        known = _field_names(config_class, found[3])
        return "; ".join(
            f"{place}{name} is unknown to {found[3]}, {suggest(name, known)}"
            for name in re.findall(r"`(\w+)`", found[2])
        )
    if found := re.search(r"argument --([\w.]+): invalid choice: '([^']*)' \(choose from (.*)\)", reason):
        known = re.findall(r"[\w.-]+", found[3])
        return f"--{prefix}{found[1]}={found[2]} is unknown, {suggest(found[2], known)}"
    if found := re.search(r"`([\w.]+)`: Failed when parsing value='(.*)' into .*of type dict", reason):
        option = f"--{prefix}{found[1]}"
        return f"{option}={found[2]} gives no names: write {option}='{{NAME: VALUE, ...}}'"
    if found := re.match(r"Expected a dict for a choice class, got ([\w.-]+)$", reason):
        return f"{found[1]!r} has no options of its own: write {{type: {found[1]}}}"
    if found := re.match(r"`([\w.]+)`: Failed when parsing value='(.*)' into field .* of type list", reason):
        return f"{prefix}{found[1]}={found[2]} is no list: write [...]"
    for name, registry in _list_items(config_class):
        known, kind = list(registry.get_known_choices()), re.escape(f"{registry.__name__}'")
        if found := re.search(rf"`([\w.]+)`: Couldn't find a choice class for '([^']*)' in .*{kind}", reason):
            return f"{prefix}{found[1]}.type={found[2]} is unknown, {suggest(found[2], known)}"
        if found := re.search(rf"Expected a dict with a 'type' key for .*{kind}>, got (.*)", reason):
            return f"{name}: {found[1]} lacks its type, known: {', '.join(sorted(known))}"
    for name, registry in _registries(config_class):
        known = list(registry.get_known_choices())
        if found := re.search(rf"`{name}`: Couldn't find a choice class for '([^']*)'", reason):
            return f"{prefix}{name}.type={found[1]} is unknown, {suggest(found[1], known)}"
        untyped = "Expected a dict with a 'type' key" in reason and f"{registry.__name__}'" in reason
        if untyped or re.search(rf"Missing required field.*`{name}`", reason):
            return f"--{prefix}{name}.type is missing, known: {', '.join(sorted(known))}"
    if prefix and (found := re.match(r"`([\w.]+)`: (.*)", reason, re.DOTALL)):
        return f"`{prefix}{found[1]}`: {found[2]}"
    return reason


def _unknown_flag(argument: str, config_class: type, prefix: str) -> str:
    if not argument.startswith("--"):
        return f"{argument!r} is no option: write --name=value"
    options = ArgumentParser(config_class).parser._option_string_actions
    # Those of whole groups, --rollout beside --rollout.n_envs, would only read another file.
    known = [
        f"--{prefix}{name[2:]}"
        for name in options
        if name.startswith("--") and not any(o.startswith(f"{name}.") for o in options)  # -h is none
    ]
    flag = f"--{prefix}{argument.partition('=')[0][2:]}"
    place, _, leaf = flag.removeprefix("--").rpartition(".")
    neighbours = [name for name in known if name.removeprefix("--").rpartition(".")[0] == place]
    same = [name for name in known if name.rpartition(".")[2] == leaf]
    # --guard.enabled is guard.enable, whatever else has an option `enabled`.
    if same and not (place and difflib.get_close_matches(flag, neighbours, n=1)):
        return f"{flag} is unknown, did you mean {' or '.join(same[:3])}?"
    return f"{flag} is unknown, {suggest(flag, neighbours or known)}"


def _field_names(config_class: type, class_name: str) -> list[str]:
    """Fields of the dataclass `class_name`, wherever it occurs in `config_class`."""
    for candidate in _dataclasses(config_class):
        if candidate.__name__ == class_name:
            return [field.name for field in fields(candidate)]
    return []


def _dataclasses(config_class: type) -> Iterator[Any]:
    """`config_class`, and all dataclasses that its fields may hold."""
    registries = [registry for _, registry in (*_registries(config_class), *_list_items(config_class))]
    choices = [choice for registry in registries for choice in registry.get_known_choices().values()]
    for holder in (config_class, *choices):
        yield holder
        for hint in typing.get_type_hints(holder).values():
            yield from (kind for kind in _alternatives(hint) if is_dataclass(kind))


def _registries(config_class: type) -> Iterator[tuple[str, type[draccus.ChoiceRegistry]]]:
    """Name and type of the fields that have a `.type`."""
    for name, hint in typing.get_type_hints(config_class).items():
        for kind in _alternatives(hint):
            if isinstance(kind, type) and issubclass(kind, draccus.ChoiceRegistry):
                yield name, kind


def _list_items(config_class: type) -> Iterator[tuple[str, type[draccus.ChoiceRegistry]]]:
    """Name and type of the lists whose items have a `.type`, as `algorithm.regularizers`."""
    for name, registry in _registries(config_class):
        for choice in registry.get_known_choices().values():
            for inner, hint in typing.get_type_hints(choice).items():
                if typing.get_origin(hint) is list:
                    kind = typing.get_args(hint)[0]
                    if isinstance(kind, type) and issubclass(kind, draccus.ChoiceRegistry):
                        yield f"{name}.{inner}", kind


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the type itself."""
    return tuple(kind for kind in typing.get_args(hint) or (hint,) if kind is not type(None))
