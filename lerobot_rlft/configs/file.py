"""The file of options that `--config_path` names: a YAML or JSON file, or a recipe of this package."""

from pathlib import Path
from typing import Any

from draccus.cfgparsing import load_config
from draccus.utils import DraccusException
from lerobot.configs import parser

from ..utils.errors import UserError, one_line
from ..utils.recipes import names, recipe
from .check import suggest


def file_content(config_class: type) -> dict[str, Any]:
    """Content of the file; empty where none is named.

    A `path` in it, as in `policy: {path: ...}`, goes where LeRobot's parser keeps paths, with the options
    beside it: the policy is read from there, see `pretrained_config`.

    Raises:
        UserError: there is no such file, or it holds no options.
    """
    path = parser.parse_arg("config_path")
    if path is None:
        return {}
    file = recipe(path)
    if file is None:
        what = "is a folder" if Path(path).is_dir() else "is no file here and no recipe of this package"
        hint = suggest(path, names())
        raise UserError(f"--config_path={path} {what}: give a YAML file, or a recipe, {hint}")
    try:
        with file.open(encoding="utf-8") as stream:
            content = load_config(stream, file=file)
    except DraccusException as error:
        what = "text in UTF-8" if isinstance(error.__cause__, UnicodeError) else f"{file.suffix[1:]}"
        raise UserError(f"--config_path={path} is no {what}: {one_line(error.__cause__)}") from error
    if not isinstance(content, dict):
        what = "is empty" if content is None else f"holds a {type(content).__name__}"
        raise UserError(f"--config_path={path} {what}: give options, one `name: value` a line")
    with_path = [
        name
        for name in getattr(config_class, "__get_path_fields__", list)()
        if isinstance(content.get(name), dict) and parser.PATH_KEY in content[name]
    ]
    if with_path:
        Path(parser.extract_path_fields_from_config(str(file), with_path)).unlink()
    return {name: value for name, value in content.items() if name not in with_path}
