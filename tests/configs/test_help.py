"""What `--help` says, and that every option has a text that a stranger can read."""

import re
import shlex
from dataclasses import fields

import pytest
from draccus import ChoiceRegistry
from lerobot.configs import PreTrainedConfig
from lerobot.envs import EnvConfig

from lerobot_rlft import __version__, algorithms, regularizers  # noqa: F401  register their types
from lerobot_rlft.algorithms.base import AlgorithmConfig
from lerobot_rlft.cli.check import CheckConfig
from lerobot_rlft.cli.compare import CompareConfig
from lerobot_rlft.cli.curves import CurvesConfig
from lerobot_rlft.cli.demos import DemosConfig
from lerobot_rlft.cli.explore import ExploreConfig
from lerobot_rlft.configs import options
from lerobot_rlft.configs.eval import EvalPipelineConfig
from lerobot_rlft.configs.help import help_text
from lerobot_rlft.configs.parser import nested, parse_command_line, split
from lerobot_rlft.configs.push import PushConfig
from lerobot_rlft.configs.train import TrainConfig
from lerobot_rlft.datasets.configuration import EpisodeData
from lerobot_rlft.regularizers.base import RegularizerConfig

COMMANDS = {
    "train": TrainConfig, "eval": EvalPipelineConfig, "push": PushConfig, "explore": ExploreConfig,
    "compare": CompareConfig, "curves": CurvesConfig, "demos": DemosConfig, "check": CheckConfig,
}  # fmt: skip
OURS = "lerobot_rlft."
PREPOSITIONS = ("Of", "For", "With", "In", "On", "At", "By", "To", "From", "Beside", "Under", "As", "After")


def dataclasses_of(kind: type) -> set[type]:
    """A dataclass and all those of this package that its fields may hold."""
    found = {kind}
    for field in options.shown(kind):
        inner = options.holds(options.hints(kind)[field.name])
        if inner is not None and inner.__module__.startswith(OURS) and inner is not RegularizerConfig:
            types = inner.get_known_choices().values() if issubclass(inner, ChoiceRegistry) else (inner,)
            found |= set().union(*(dataclasses_of(choice) for choice in types))
    return found


def ours(kind: type) -> list[type]:
    return [base for base in kind.__mro__ if base.__module__.startswith(OURS)]


REGISTRIES = (AlgorithmConfig, RegularizerConfig, EnvConfig, PreTrainedConfig)
TYPES = [kind for registry in REGISTRIES for kind in registry.get_known_choices().values()]
CLASSES = set().union(*map(dataclasses_of, [*COMMANDS.values(), EpisodeData]))
CLASSES |= set().union(*(dataclasses_of(kind) for kind in TYPES if kind.__module__.startswith(OURS)))
TEXTS = sorted(
    (kind.__name__, field.name, options.text(kind, field))
    for kind in CLASSES
    for field in options.shown(kind)
    # What a class inherits from LeRobot is LeRobot's.
    if any(field.name in vars(base).get("__annotations__", {}) for base in ours(kind))
)


def test_all_classes_are_looked_at():
    names = {name for name, _, _ in TEXTS}
    assert {"TrainConfig", "DPPOConfig", "KLBaseConfig", "RLFTFlowConfig", "GraspsEnvConfig"} <= names


@pytest.mark.parametrize("kind, option, text", TEXTS, ids=lambda value: value if " " not in value else "")
def test_the_text_of_an_option_is_a_sentence(kind, option, text):
    assert text and text[0].isupper() and text.endswith(".")
    assert text.split()[0] not in PREPOSITIONS
    assert ".yaml)" not in text  # results are cited by their page, which says how they came about


@pytest.mark.parametrize("name, config", COMMANDS.items())
def test_help_opens_with_three_examples_that_can_be_read(name, config):
    shown = help_text(config, {}).splitlines()
    examples = [line.strip() for line in shown[2:5]]
    known = {o.name for g in options.groups(config) for o in g.options} | {"config_path"}
    for example in examples:
        program, *words = shlex.split(example)
        assert program == f"lerobot-rlft-{name}"
        given, plain = split(words)
        nested(given)
        assert set(given) <= known and (not plain or hasattr(config, "POSITIONAL"))
    assert any(line.startswith("  --version") for line in shown)
    # Every option of the command itself is there.
    text = "\n".join(shown)
    for field in fields(config):
        assert re.search(rf"--{field.name}[.=]|^{field.name} ", text, re.MULTILINE)


def test_help_names_paths_plugins_and_the_policies_that_can_be_trained():
    text = help_text(TrainConfig, {})
    for option in ("--policy.path=", "--policy.discover_packages_path=", "--env.discover_packages_path="):
        assert option in text
    [line] = [line for line in text.splitlines() if line.startswith("  --policy.type=")]
    assert {"diffusion", "pi0", "rlft_flow"} <= set(line.split("=")[1].split("|"))
    assert "act" not in line.split("=")[1].split("|")


def test_help_shows_the_types_that_a_recipe_chooses(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["lerobot-rlft-train", "--config_path=quickstart", "--help"])
    with pytest.raises(SystemExit):
        parse_command_line(TrainConfig)
    text = capsys.readouterr().out
    assert "--algorithm.proximal_coef=" in text and "--env.lag=" in text
    assert "--algorithm.clip_range=" not in text


def test_the_version_names_what_a_report_of_a_bug_needs(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["lerobot-rlft-push", "--version"])
    with pytest.raises(SystemExit):
        parse_command_line(PushConfig)
    line = rf"lerobot_rlft {re.escape(__version__)} \(lerobot 0\.6\S+, torch \S+\)\n"
    assert re.fullmatch(line, capsys.readouterr().out)
