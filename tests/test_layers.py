"""Imports go downward only, LeRobot stays out of the plain-torch core, and modules are short and named."""

import ast
import re
import subprocess
import sys
from importlib.util import resolve_name
from pathlib import Path

import pytest

PACKAGE = "lerobot_rlft"
# From the top: a package imports from itself and from those below it.
FLOORS = (
    "discovery",
    "plugin",
    "cli",
    "training",
    "hub",
    "evaluation",
    "configs",
    "algorithms",
    "regularizers",
    "plots",
    "envs",
    "rollout",
    "critics",
    "datasets",
    "diversity",
    "metrics",
    "policies",
    "chains",
    "utils",
    "hub_cards",  # data, and
    PACKAGE,  # the package itself: its version
)
# Packages and modules that are plain torch and NumPy, so that they can be read and tested without LeRobot.
PLAIN = (
    "algorithms",
    "regularizers",
    "chains",
    "metrics",
    "utils",
    "policies.base",
    "policies.conditioning",
    "envs.vector",
    "critics.networks",
    "critics.advantages",
    "critics.labels",
    "critics.distributional",
    "critics.state_value",
    "critics.configuration",
    "diversity.guard",
    "diversity.tracker",
    "diversity.probe",
    "diversity.attempts",
    "envs.avoiding.avoiding",
    "envs.grasps.grasps",
)
# What training needs no page, template or hub for.
START_UP_FREE_OF = ("matplotlib.pyplot", "lerobot_rlft.evaluation.report", "lerobot_rlft.evaluation.figures")
LONGEST = 350  # lines of a module
# A docstring names a thing, as "Spread of samples"; these begin a question or an adverb instead.
NO_NAME = re.compile(
    r"(What|How|Where|When|Why|Which|Whether|Of|In|On|At|By|For|From|To|With|Into|Through|About|Between)\b"
)


def floor(module: str) -> int | None:
    """0 is the top; None where no floor has the name."""
    inside = module.removeprefix(f"{PACKAGE}.").split(".")[0]
    return FLOORS.index(inside) if inside in FLOORS else None


def is_plain(module: str) -> bool:
    inside = module.removeprefix(f"{PACKAGE}.")
    return any(inside == name or inside.startswith(f"{name}.") for name in PLAIN)


def imported(source: str, package: str, modules: set[str]) -> set[str]:
    """Absolute names of all modules that `source` imports, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            origin = resolve_name("." * node.level + (node.module or ""), package)
            inner = {f"{origin}.{alias.name}" for alias in node.names}
            names |= {name if name in modules else origin for name in inner}
    return names


def violations(sources: dict[str, str]) -> list[str]:
    """A line for every import that breaks a rule; `sources` maps paths in the package to file contents."""
    packages, modules = {}, {}
    for path, source in sources.items():
        module = ".".join((PACKAGE, *Path(path).with_suffix("").parts))
        packages[module.removesuffix(".__init__")] = module.rpartition(".")[0]
        modules[module.removesuffix(".__init__")] = source
    found = []
    for module, source in modules.items():
        own = floor(module)
        if own is None:
            found.append(f"{module} has no place in FLOORS: add it")
            continue
        for name in sorted(imported(source, packages[module], set(modules))):
            if name.split(".")[0] == "lerobot" and is_plain(module):
                found.append(f"{module} imports {name}: it must not import lerobot")
            target = floor(name) if name in modules else None
            if target is not None and target < own:
                found.append(f"{module} imports {name}: that is upward")
    return found


def test_the_package_keeps_its_layers():
    root = Path(__file__).parents[1] / PACKAGE
    sources = {path.relative_to(root).as_posix(): path.read_text() for path in root.rglob("*.py")}
    assert "chains/chain.py" in sources
    assert violations(sources) == []


@pytest.mark.slow
def test_training_draws_nothing_at_start_up():
    """Pages and pictures are imported where one is made: by a run that ends, or pushes."""
    code = "import sys, lerobot_rlft.training.trainer, lerobot_rlft.training.rounds; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(START_UP_FREE_OF) & set(done.stdout.split())


TREE = {
    "__init__.py": "",
    "policies/__init__.py": "",
    "policies/base.py": "",
    "policies/some.py": "",
    "cli/run.py": "",
}


@pytest.mark.parametrize(
    "path, source, complaint",
    [
        ("chains/chain.py", "import lerobot", "must not import lerobot"),
        ("chains/chain.py", "def f():\n    from lerobot.configs import parser", "must not import lerobot"),
        ("policies/base.py", "import lerobot.policies", "must not import lerobot"),
        ("metrics/modes.py", "from lerobot import envs", "must not import lerobot"),
        ("policies/some.py", "from ..algorithms import dppo", None),
        ("policies/some.py", "from ..cli.run import main", "upward"),
        ("algorithms/__init__.py", "from ..cli.run import main", "upward"),
        ("chains/chain.py", "from ..policies import base", "upward"),
        ("chains/chain.py", "def f():\n    import lerobot_rlft.policies.base", "upward"),
        ("training/trainer.py", "from ..cli import run", "upward"),
        ("surprise.py", "", "no place in FLOORS"),
        ("chains/chain.py", "import torch, lerobot_rlft", None),
        ("algorithms/dppo.py", "from ..policies.base import Policy\nfrom .. import policies_of_all", None),
        ("policies/other.py", "import lerobot\nfrom .some import Policy\nfrom .base import register", None),
        ("cli/train.py", "from ..policies import some\nfrom .. import __version__", None),
    ],
)
def test_the_check_itself_can_fail(path, source, complaint):
    found = violations(TREE | {path: source})
    assert len(found) == (complaint is not None)
    assert all(complaint in line for line in found)


@pytest.mark.parametrize(
    "docstring, names_its_thing",
    [
        ("Spread of one policy's samples.", True),
        ("Wholes of a run.", True),  # begins with the letters of a question word, and is none
        ("What a run leaves.", False),
        ("Of the environment.", False),
        ("How far samples spread.", False),
        ("Between observations and inputs.", False),
    ],
)
def test_a_docstring_that_names_its_thing_is_told_from_one_that_does_not(docstring, names_its_thing):
    assert (NO_NAME.match(docstring) is None) is names_its_thing


def test_modules_are_short_and_their_docstrings_name_them():
    nameless, long = [], []
    for path in (Path(__file__).parents[1] / PACKAGE).rglob("*.py"):
        source = path.read_text()
        if NO_NAME.match(ast.get_docstring(ast.parse(source)) or ""):
            nameless.append(path.name)
        if len(source.splitlines()) > LONGEST:
            long.append(path.name)
    assert (nameless, long) == ([], [])
