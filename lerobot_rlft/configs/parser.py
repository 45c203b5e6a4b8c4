"""Parser of the command line and YAML files, with errors that name the way out."""

import sys
from collections.abc import Sequence
from typing import Any

import draccus
import yaml
from draccus.cfgparsing import parse_string
from draccus.utils import DecodingError, DraccusException
from lerobot.configs import parser

from ..utils.errors import UserError, one_line
from .aliases import current
from .check import Check
from .file import file_content
from .help import help_text, version

TRUST_FIELD = "trust_remote_code"


def parse_command_line[T](config_class: type[T]) -> T:
    """The config that `sys.argv` describes, as in LeRobot's commands.

    Options are `--name=value` or `--name value`; `--config_path` names a YAML file or a recipe of this
    package, over which the command line has the last word. Plugins are imported first. Trust in remote code
    is taken from the command line alone.

    Raises:
        UserError: a name or value is not usable.
        SystemExit: after `--help` or `--version`.
    """
    if "--version" in sys.argv:
        print(version())
        sys.exit(0)
    arguments = _without_plugins(sys.argv[1:])
    asks = [word for word in ("--help", "-h") if word in arguments]
    flags, words = split([word for word in arguments if word not in asks], lenient=bool(asks))
    content = file_content(config_class)
    for name in getattr(config_class, "__get_path_fields__", list)():
        if flags.get(f"{name}.{parser.PATH_KEY}") == "":
            raise UserError(f"--{name}.path is empty: give --{name}.path=HUB_ID_OR_FOLDER")
        if parser.get_path_arg(name):
            if f"{name}.{draccus.CHOICE_TYPE_KEY}" in flags:
                raise UserError(f"Cannot specify both --{name}.path and --{name}.type: leave one out")
            # The policy is read with its own overrides, see `pretrained_config`.
            flags = {key: value for key, value in flags.items() if not key.startswith(f"{name}.")}
    if asks:
        print(help_text(config_class, current(merged(content, nested(flags)))))
        sys.exit(0)
    if words:
        plain = getattr(config_class, "POSITIONAL", None)
        if plain is None:
            raise UserError(f"{words[0]!r} is no option: write --name=value")
        content[plain] = words
    config = build(config_class, content, flags)
    if hasattr(config, TRUST_FIELD) and TRUST_FIELD not in flags:
        setattr(config, TRUST_FIELD, False)  # a file, which others may have written, gives no trust
    return config


def build[T](config_class: type[T], content: dict[str, Any], flags: dict[str, str], prefix: str = "") -> T:
    """The config of a file's `content` and the `flags` of the command line.

    Args:
        prefix: where it sits in the whole config, for example "policy.".

    Raises:
        UserError: names all unknown options, or the first unusable value.
    """
    raw = current(merged(content, nested(flags)))
    if mistakes := Check(config_class, raw, {prefix + name for name in flags}, prefix).mistakes():
        raise UserError("; ".join(mistakes))
    try:
        return draccus.decode(config_class, raw)
    except DraccusException as error:
        raise UserError(_reason(error, prefix)) from error


def split(arguments: Sequence[str], lenient: bool = False) -> tuple[dict[str, str], list[str]]:
    """The options by name, and the words that belong to none.

    Raises:
        UserError: an option has no value, unless `lenient`.
    """
    flags: dict[str, str] = {}
    words, rest = [], list(arguments)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if not name.startswith("--"):
            words.append(name + equals + value)
            continue
        if not equals and rest and not rest[0].startswith("--"):
            value, equals = rest.pop(0), "="
        if not equals and not lenient:
            raise UserError(f"{name} has no value: write {name}=VALUE")
        flags[name[2:]] = value
    flags.pop("config_path", None)
    return flags, words


def nested(flags: dict[str, str]) -> dict[str, Any]:
    """`{"env.lag": "0.1"}` as `{"env": {"lag": 0.1}}`."""
    tree: dict[str, Any] = {}
    for name, text in flags.items():
        try:
            value = parse_string(text)
        except yaml.YAMLError as error:
            raise UserError(f"--{name}={text} is no YAML: {one_line(error)}") from error
        for part in reversed(name.split(".")):
            value = {part: value}
        tree = merged(tree, value)
    return tree


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """`below`, where `above` has the last word."""
    return below | {
        key: merged(below[key], value)
        if isinstance(value, dict) and isinstance(below.get(key), dict)
        else value
        for key, value in above.items()
    }


def _without_plugins(arguments: list[str]) -> list[str]:
    """Import the packages that `--<name>.discover_packages_path` names; the other arguments."""
    for name, package in parser.parse_plugin_args(parser.PLUGIN_DISCOVERY_SUFFIX, arguments).items():
        if name.rpartition(".")[2] != parser.PLUGIN_DISCOVERY_SUFFIX:
            continue  # misspelt, see below
        try:
            parser.load_plugin(package)
        except parser.PluginLoadError as error:
            raise UserError(f"--{name}={package}: {error}") from error
        arguments = parser.filter_arg(name, arguments)
    return arguments


def _reason(error: BaseException, prefix: str) -> str:
    """The innermost message about the user's value: draccus wraps it for unions and for dataclass checks."""
    cause = error.__cause__
    own_check = isinstance(cause, ValueError) and not isinstance(error, DecodingError)
    if cause is not None and (own_check or isinstance(cause, DraccusException)):
        return _reason(cause, prefix)
    if isinstance(error, DecodingError):
        return f"`{prefix}{'.'.join(error.key_path)}`: {error.message}"
    return str(error)
