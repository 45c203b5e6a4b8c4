"""The recipes, small base policies and recordings that are installed with this package."""

from pathlib import Path

PACKAGE = Path(__file__).parents[1]
FOLDER = "recipes"


def folder() -> Path:
    """The folder of the recipes: beside the code in an installation, beside the package in a checkout."""
    package_folder = PACKAGE / FOLDER
    return package_folder if package_folder.is_dir() else PACKAGE.parent / FOLDER


def names() -> list[str]:
    """Names of all recipes, as `quickstart`."""
    return sorted(file.stem for file in folder().glob("*.yaml"))


def located(path: str) -> str:
    """`recipes/...` as it is where it lies here, else in the installation; other paths unchanged."""
    parts = Path(path).parts
    inside = folder().joinpath(*parts[1:])
    return str(inside) if parts[:1] == (FOLDER,) and not Path(path).exists() and inside.exists() else path


def recipe(name: str) -> Path | None:
    """The file of `quickstart`, `quickstart.yaml` or `recipes/quickstart.yaml`; None where there is none."""
    file = Path(located(name))
    if file.is_file():
        return file
    stem = name.removesuffix(".yaml")
    return folder() / f"{stem}.yaml" if stem in names() else None
