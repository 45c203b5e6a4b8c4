"""The shape of the package, by its imports: `python -m benchmarks.house`."""

import ast
from collections import defaultdict
from functools import cache
from importlib.util import resolve_name
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = "lerobot_rlft"


def imports() -> dict[str, set[str]]:
    """Module -> modules of the package that it imports, wherever in the file."""
    paths = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in files()}
    names = {name.removesuffix(".__init__") for name in paths}
    arrows: dict[str, set[str]] = {}
    for name, path in paths.items():
        targets = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                origin = node.module or ""
                if node.level:
                    origin = resolve_name("." * node.level + origin, name.rpartition(".")[0])
                inner = {f"{origin}.{alias.name}" for alias in node.names}
                targets |= {target if target in names else origin for target in inner}
            elif isinstance(node, ast.Import):
                targets |= {alias.name for alias in node.names}
        arrows[name.removesuffix(".__init__")] = (targets & names) - {name}
    return arrows


def files() -> list[Path]:
    return sorted((ROOT / PACKAGE).rglob("*.py"))


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else PACKAGE


def longest_chain(arrows: dict[str, set[str]]) -> int:
    """Most modules in a row of which each imports the next; a ring counts once."""
    busy: set[str] = set()

    @cache
    def depth(module: str) -> int:
        busy.add(module)
        best = max((depth(target) for target in arrows[module] - busy), default=0)
        busy.discard(module)
        return best + 1

    return max(map(depth, arrows))


def run() -> list[tuple[str, str]]:
    arrows = imports()
    between = defaultdict(int)
    for module, targets in arrows.items():
        for target in targets:
            if room(module) != room(target):
                between[room(module), room(target)] += 1
    lines = {path: len(path.read_text().splitlines()) for path in files()}
    largest = max(lines, key=lines.__getitem__)
    top = [
        module for module in arrows if module.count(".") == 1 and not (ROOT / PACKAGE / room(module)).is_dir()
    ]
    return [
        ("packages", str(len({room(m) for m in arrows if (ROOT / PACKAGE / room(m)).is_dir()} - {PACKAGE}))),
        ("modules that lie flat at the top", str(len(top))),
        ("import arrows between modules", str(sum(map(len, arrows.values())))),
        ("import arrows between packages", str(len(between))),
        ("pairs of packages that import each other", str(sum((b, a) in between for a, b in between) // 2)),
        ("longest chain of imports", str(longest_chain(arrows))),
        ("lines of the largest file", f"{lines[largest]} ({largest.relative_to(ROOT)})"),
        ("files over 350 lines", str(sum(count > 350 for count in lines.values()))),
        ("lines of README.md", str(len((ROOT / "README.md").read_text().splitlines()))),
    ]


if __name__ == "__main__":
    for name, value in run():
        print(f"{name:42} {value}")
