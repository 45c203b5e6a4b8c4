"""Every file of the package is written by `utils/files`: whole or not at all, and told in a sentence."""

import ast
from pathlib import Path

import pytest

import lerobot_rlft

ROOT = Path(lerobot_rlft.__file__).parent
WRITERS = {
    "write_text", "write_bytes", "savefig", "save_file", "to_parquet", "to_csv", "write_video", "symlink_to",
    "rename", "copyfile", "copy", "copytree", "move", "touch",
}  # fmt: skip
OF_MODULES = {"save": {"torch", "np"}, "replace": {"os"}, "copy": {"shutil"}}
# Path in the package, function -> why it writes by itself.
EXCEPTIONS = {
    ("utils/files.py", None): "this is it",
    ("training/checkpoint.py", "write_state"): "into a folder that its callers replace",
    ("policies/weights.py", "in_todays_layout"): "into a temporary folder",
    ("training/checkpoint.py", "forget_revision"): "into a folder that its callers replace",
}


def writers(source: str) -> list[tuple[str | None, str, int]]:
    """(function, call, line) of every call that writes, outside a block of `replacing`."""
    matches = []

    def visit(node: ast.AST, function: str | None) -> None:
        if isinstance(node, (ast.With, ast.AsyncWith)) and any(
            isinstance(item.context_expr, ast.Call) and name(item.context_expr)[1] == "replacing"
            for item in node.items
        ):
            return
        if isinstance(node, ast.FunctionDef):
            function = node.name
        if isinstance(node, ast.Call) and writes(node):
            matches.append((function, name(node)[1], node.lineno))
        for child in ast.iter_child_nodes(node):
            visit(child, function)

    visit(ast.parse(source), None)
    return matches


def name(call: ast.Call) -> tuple[str | None, str]:
    """Of what, if that is a plain name, and which function a call calls."""
    if isinstance(call.func, ast.Attribute):
        return getattr(call.func.value, "id", None), call.func.attr
    return None, getattr(call.func, "id", "")


def writes(call: ast.Call) -> bool:
    owner, function = name(call)
    if isinstance(call.func, ast.Name) and function == "write_text":
        return False  # the one of utils/files
    if function in OF_MODULES:
        return owner in OF_MODULES[function]
    if function == "open":
        arguments = [*call.args, *(keyword.value for keyword in call.keywords)]
        modes = [a.value for a in arguments if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        return any(set(mode) & set("wax+") and set(mode) <= set("wax+rbt") for mode in modes)
    return function in WRITERS


def test_all_files_are_written_whole():
    alone = []
    for path in sorted(ROOT.rglob("*.py")):
        file = path.relative_to(ROOT).as_posix()
        for function, call, line in writers(path.read_text()):
            if not {(file, None), (file, function)} & set(EXCEPTIONS):
                alone.append(f"{file}:{line} {call}")
    assert alone == []


@pytest.mark.parametrize(
    "line, alone",
    [
        ("path.write_text('x')", True),
        ("write_text(path, 'x')", False),
        ("open(path, 'w')", True),
        ("path.open(mode='ab')", True),
        ("path.open('rb')", False),
        ("Run.open(folder, name)", False),
        ("os.replace(a, b)", True),
        ("text.replace('a', 'b')", False),
        ("torch.save(x, path)", True),
        ("trainer.save()", False),
        ("with replacing(path) as partial:\n    partial.write_text('x')", False),
        ("with explained(path):\n    path.write_text('x')", True),
    ],
)
def test_the_check_itself_can_fail(line, alone):
    assert bool(writers(line)) is alone
