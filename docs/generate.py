"""Write the reference pages from the code: options from the dataclasses, metrics from their registry.

python docs/generate.py            writes docs/reference/config.md and docs/reference/metrics.md
python docs/generate.py --check    fails where a page differs from what the code says
"""

import sys
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, get_args

import lerobot_policy_rlft  # noqa: F401  registers environments and policy types
from draccus.wrappers import docstring
from lerobot.configs import PreTrainedConfig
from lerobot.envs import EnvConfig

from lerobot_rlft import algorithms, regularizers  # noqa: F401  register their configurations
from lerobot_rlft.algorithms.base import AlgorithmConfig
from lerobot_rlft.cli.check import CheckConfig
from lerobot_rlft.cli.explore import ExploreConfig
from lerobot_rlft.configs.eval import CompareConfig
from lerobot_rlft.configs.push import PushConfig
from lerobot_rlft.configs.train import TrainConfig
from lerobot_rlft.metrics.keys import KEYS
from lerobot_rlft.regularizers.base import RegularizerConfig
from lerobot_rlft.utils.tables import markdown_table

FOLDER = Path(__file__).parent / "reference"
PACKAGE = "lerobot_rlft."
COMMANDS = {
    "lerobot-rlft-train": TrainConfig,
    "lerobot-rlft-eval": CompareConfig,
    "lerobot-rlft-push": PushConfig,
    "lerobot-rlft-explore": ExploreConfig,
    "lerobot-rlft-check": CheckConfig,
}
# Family of choices -> how one of them is chosen.
CHOICES: dict[type, str] = {
    AlgorithmConfig: "`--algorithm.type={}`",
    RegularizerConfig: "regularizer `{{type: {}}}` of `algorithm.regularizers`",
    EnvConfig: "`--env.type={}`",
    PreTrainedConfig: "`--policy.type={}`",
}
# Fields of LeRobot's environments and policies that say how they are wired, and not what a user turns.
WIRING = ("features", "features_map")

described = cache(docstring.get_attribute_docstring)


def config_page() -> str:
    """All options of all commands and choices of this package."""
    parts = [
        "# Options",
        "This page is generated from the configuration classes by `docs/generate.py`. Every option is "
        "written `--name=value` on the command line and `name: value` in a YAML file given by "
        "`--config_path`. An option of a group is written `--group.name=value`. A command shows the same "
        "texts with `--help`.",
    ]
    seen: set[type] = set()
    for command, config in COMMANDS.items():
        parts += _section(f"`{command}`", config, 2)
        for prefix, group in _groups(config):
            if group not in seen:
                seen.add(group)
                parts += _section(f"`--{prefix}.*`", group, 3)
    for family, how in CHOICES.items():
        for name, choice in sorted(family.get_known_choices().items()):
            if choice.__module__.startswith(PACKAGE):
                parts += _section(how.format(name), choice, 2)
                prefix = "algorithm." if family is AlgorithmConfig else ""
                for group_prefix, group in _groups(choice):
                    if group not in seen:
                        seen.add(group)
                        parts += _section(f"`--{prefix}{group_prefix}.*`", group, 3)
    return "\n\n".join(parts) + "\n"


def metrics_page() -> str:
    """All keys of diversity.json."""
    rows = ([f"`{key}`", _text(meaning)] for key, meaning in KEYS.items())
    return f"""# Metrics

This page is generated from the registry of metrics by `docs/generate.py`. It lists the keys of
`diversity.json`, which `lerobot-rlft-eval` writes. Of a key `X`, `X_ci` is the 95 % interval, `base_X` is the
same quantity of the base, `X_control` is what two halves of the base's own episodes give, and `X_samples` is
the number of samples on each side.
[Evaluation](../evaluation.md) explains how to read them.

{markdown_table(["key", "meaning"], rows)}
"""


PAGES = {"config.md": config_page, "metrics.md": metrics_page}


def _section(title: str, config: type, level: int) -> list[str]:
    """Heading, first paragraph of the docstring, and a table of the options."""
    parts = [f"{'#' * level} {title}"]
    if summary := _summary(config):
        parts.append(_text(summary))
    rows = [
        [f"`{field.name}`", _type(field), _default(field), _meaning(config, field)] for field in _own(config)
    ]
    if rows:
        parts.append(markdown_table(["option", "type", "default", "meaning"], rows))
    return parts


def _own(config: type) -> list[Field]:
    """The fields that this package defines; those that it inherits from LeRobot are LeRobot's."""
    defined = {
        name
        for base in config.__mro__
        if base.__module__.startswith(PACKAGE)
        for name in vars(base).get("__annotations__", {})
    }
    return [field for field in fields(config) if field.name in defined and field.name not in WIRING]


def _groups(config: type) -> list[tuple[str, type]]:
    """(prefix, class) of the groups of options of this package inside a configuration."""
    return [
        (field.name, kind)
        for field in _own(config)
        for kind in (field.type, *get_args(field.type))
        if is_dataclass(kind) and kind.__module__.startswith(PACKAGE) and kind not in CHOICES
    ]


def _type(field: Field) -> str:
    kind = field.type
    text = kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)
    for module in (
        "pathlib.",
        "lerobot.configs.default.",
        "lerobot.configs.policies.",
        "lerobot.envs.configs.",
        "lerobot.configs.types.",
    ):
        text = text.replace(module, "")
    text = ".".join(text.split(".")[-1:]) if text.startswith(PACKAGE) else text
    for choice in CHOICES:
        text = text.replace(f"{choice.__module__}.{choice.__name__}", choice.__name__)
    return f"`{_text(text.replace('None', 'null'))}`"


def _default(field: Field) -> str:
    value = field.default
    if value is MISSING:
        if field.default_factory is MISSING:
            return "required"
        value = field.default_factory()
        if is_dataclass(value):
            return "its group"
    return f"`{_text(_yaml(value))}`"


def _yaml(value: Any) -> str:
    """A value as a user writes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_yaml, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_yaml(item)}' for key, item in value.items())}}}"
    if isinstance(value, Enum):
        return value.name
    return f"{value:g}" if isinstance(value, float) else str(value) if value != "" else '""'


def _meaning(config: type, field: Field) -> str:
    found = described(config, field.name)
    text = found.comment_above or found.comment_inline or found.docstring_below
    if not text and is_dataclass(field.type):
        text = _summary(field.type)
    return _text(text)


def _summary(config: type) -> str:
    """First paragraph of the docstring, without the command that `--help` shows there."""
    text = (config.__doc__ or "").split("\n\n")[0].split("\n    lerobot-rlft-")[0]
    written = not text.startswith(f"{config.__name__}(")  # what dataclass writes where there is none
    return " ".join(text.split()).removesuffix(":") if written else ""


def _text(text: str) -> str:
    """Text on one line, without anything that Markdown takes for HTML."""
    return " ".join(text.split()).replace("<", "&lt;")


def stale() -> list[str]:
    """Names of the pages that are not what the code says."""
    return [
        name
        for name, page in PAGES.items()
        if not (FOLDER / name).is_file() or (FOLDER / name).read_text() != page()
    ]


def main() -> None:
    if sys.argv[1:] == ["--check"]:
        if names := stale():
            sys.exit(f"error: {', '.join(names)} differ from the code: run python docs/generate.py")
        return
    FOLDER.mkdir(exist_ok=True)
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page())


if __name__ == "__main__":
    main()
