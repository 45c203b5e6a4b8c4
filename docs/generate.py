"""Write the reference pages from the code: options from the dataclasses, metrics from their registry.

python docs/generate.py            writes docs/reference/config.md and docs/reference/metrics.md
python docs/generate.py --check    fails where a page differs from what the code says
"""

import sys
from dataclasses import Field
from pathlib import Path

import lerobot_policy_rlft  # noqa: F401  registers environments and policy types
from lerobot.configs import PreTrainedConfig
from lerobot.envs import EnvConfig

from lerobot_rlft import algorithms, regularizers  # noqa: F401  register their configurations
from lerobot_rlft.algorithms.base import AlgorithmConfig
from lerobot_rlft.cli.check import CheckConfig
from lerobot_rlft.cli.compare import CompareConfig
from lerobot_rlft.cli.curves import CurvesConfig
from lerobot_rlft.cli.demos import DemosConfig
from lerobot_rlft.cli.explore import ExploreConfig
from lerobot_rlft.configs import options
from lerobot_rlft.configs.eval import EvalPipelineConfig
from lerobot_rlft.configs.push import PushConfig
from lerobot_rlft.configs.train import TrainConfig
from lerobot_rlft.metrics.keys import KEYS
from lerobot_rlft.regularizers.base import RegularizerConfig
from lerobot_rlft.utils.tables import markdown_table

FOLDER = Path(__file__).parent / "reference"
PACKAGE = "lerobot_rlft."
COMMANDS = {
    "lerobot-rlft-train": TrainConfig,
    "lerobot-rlft-eval": EvalPipelineConfig,
    "lerobot-rlft-push": PushConfig,
    "lerobot-rlft-explore": ExploreConfig,
    "lerobot-rlft-check": CheckConfig,
    "lerobot-rlft-compare": CompareConfig,
    "lerobot-rlft-curves": CurvesConfig,
    "lerobot-rlft-demos": DemosConfig,
}
# Family of choices -> how one of them is chosen.
CHOICES: dict[type, str] = {
    AlgorithmConfig: "`--algorithm.type={}`",
    RegularizerConfig: "regularizer `{{type: {}}}` of `algorithm.regularizers`",
    EnvConfig: "`--env.type={}`",
    PreTrainedConfig: "`--policy.type={}`",
}


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
    if summary := options.summary_of(config):
        parts.append(_text(summary))
    rows = [_row(config, field) for field in _own(config)]
    if rows:
        parts.append(markdown_table(["option", "values", "default", "meaning"], rows))
    return parts


def _own(config: type) -> list[Field]:
    """The options that this package defines; those that it inherits from LeRobot are LeRobot's."""
    defined = {
        name
        for base in config.__mro__
        if base.__module__.startswith(PACKAGE)
        for name in vars(base).get("__annotations__", {})
    }
    return [field for field in options.shown(config) if field.name in defined]


def _groups(config: type) -> list[tuple[str, type]]:
    """(prefix, class) of the groups of options of this package inside a configuration."""
    held = {field.name: options.holds(options.hints(config)[field.name]) for field in _own(config)}
    return [
        (name, kind)
        for name, kind in held.items()
        if kind is not None and kind.__module__.startswith(PACKAGE) and kind not in CHOICES
    ]


def _row(config: type, field: Field) -> list[str]:
    kind = options.holds(options.hints(config)[field.name])
    default = options.default(field)
    cells = [
        f"`{field.name}`",
        "group" if kind is not None else f"`{options.values(config, field)}`",
        "required" if default is None else f"`{default}`" if default else "its group",
        options.text(config, field),
    ]
    return [_text(cell) for cell in cells]


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
