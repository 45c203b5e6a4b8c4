"""Imports go downward only, and LeRobot stays out of the plain-torch core."""

import ast
from importlib.util import resolve_name
from pathlib import Path

import pytest

PACKAGE = "lerobot_rlft"
# From the top: a module imports from its own row and from those below. The most specific name decides, and
# stands for all that is inside it or continues it with an underscore. True: may import lerobot.
LAYERS = (
    (True, "cli"),
    (
        True,
        "recap trainer pushing publish measured recording cards lineage page curves exploration leaderboard",
    ),
    (True, "comparison outcome"),
    (True, "monitor front naming"),
    (True, "measures"),
    (True, "recap.stages recap.refit"),
    (True, "build runners records report memory hub"),
    (True, "recap.value recap.sidecar recap.mixing recap.recorded"),
    (True, "pictures"),
    (True, "rollout rollout_dataset episodes evaluation checkpoint data demos plugin"),
    (True, "config pretrained scrub arguments"),
    (True, "policies"),
    (True, "rlft_flow envs.configuration"),
    (False, "algorithms"),
    (False, "regularizers"),
    (False, "balance distributional recap.labels"),
    (False, "policies.base advantages commands conditioning critics diversity envs"),
    (False, "chains flow"),
    (False, "errors files interrupts"),
    (False, PACKAGE),  # the package itself: its version
)


def layer(module: str) -> tuple[int, bool] | None:
    """Row of `module` (0 is the top) and whether it may import lerobot; None where no row names it."""
    inside = module.removeprefix(f"{PACKAGE}.")
    rows = [
        (len(name), row, lerobot)
        for row, (lerobot, names) in enumerate(LAYERS)
        for name in names.split()
        if inside == name or inside.startswith((f"{name}.", f"{name}_"))
    ]
    return max(rows)[1:] if rows else None


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
        own = layer(module)
        if own is None:
            found.append(f"{module} has no row in LAYERS: add it")
            continue
        row, may_import_lerobot = own
        for name in sorted(imported(source, packages[module], set(modules))):
            if name.split(".")[0] == "lerobot" and not may_import_lerobot:
                found.append(f"{module} imports {name}: it must not import lerobot")
            target = layer(name) if name in modules else None
            if target and target[0] < row:
                found.append(f"{module} imports {name}: that is upward")
    return found


def test_the_package_keeps_its_layers():
    root = Path(__file__).parents[1] / PACKAGE
    sources = {path.relative_to(root).as_posix(): path.read_text() for path in root.rglob("*.py")}
    assert "chains.py" in sources
    assert violations(sources) == []


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
        ("chains.py", "import lerobot", "must not import lerobot"),
        ("chains.py", "def f():\n    from lerobot.configs import parser", "must not import lerobot"),
        ("policies/base.py", "import lerobot.policies", "must not import lerobot"),
        ("envs/avoiding.py", "from lerobot import envs", "must not import lerobot"),
        ("algorithms/dppo.py", "from ..policies import some", "upward"),
        ("algorithms/dppo.py", "from ..policies.some import Policy", "upward"),
        ("algorithms/__init__.py", "from ..cli.run import main", "upward"),
        ("chains.py", "from .policies import base", "upward"),
        ("chains.py", "import lerobot_rlft.policies.base", "upward"),
        ("trainer.py", "from .cli import run", "upward"),
        ("surprise.py", "", "no row in LAYERS"),
        ("chains.py", "import torch, lerobot_rlft", None),
        ("algorithms/dppo.py", "from ..policies.base import Policy\nfrom .. import policies_of_all", None),
        ("algorithms/dppo.py", "from ..policies import base", None),
        ("policies/other.py", "import lerobot\nfrom .some import Policy\nfrom .base import register", None),
        ("envs/configuration_maze.py", "from lerobot.envs import EnvConfig", None),
        ("cli/train.py", "from ..policies import some\nfrom .. import __version__", None),
    ],
)
def test_the_check_itself_can_fail(path, source, complaint):
    found = violations(TREE | {path: source})
    assert len(found) == (complaint is not None)
    assert all(complaint in line for line in found)
