"""README, pages and recipe headers keep their form, and what they link to exists."""

import re
import runpy
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


@pytest.fixture(scope="module")
def generate():
    return runpy.run_path(str(ROOT / "docs/generate.py"))


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_relative_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    links = [link for link in LINK.findall(text) if "://" not in link]
    assert [link for link in links if not (page.parent / link).is_file()] == []


def test_every_page_is_in_the_navigation():
    def pages(entry):
        if isinstance(entry, str):
            return {entry}
        return set().union(*map(pages, entry.values() if isinstance(entry, dict) else entry))

    shown = pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    assert shown == {page.relative_to(ROOT / "docs").as_posix() for page in PAGES[1:]}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_the_header_of_a_recipe_is_short_and_names_its_results(recipe):
    lines = recipe.read_text().splitlines()
    header = lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))]
    assert 1 <= len(header) <= 8
    for page in re.findall(r"docs/\S+\.md", "\n".join(header)):
        assert (ROOT / page).is_file()


def test_the_reference_is_what_the_code_says(generate):
    assert generate["stale"]() == [], "run python docs/generate.py"


def test_the_reference_has_every_option_and_metric(generate):
    options, metrics = generate["config_page"](), generate["metrics_page"]()
    for command, config in generate["COMMANDS"].items():
        assert f"## `{command}`" in options
        assert [f.name for f in fields(config) if f"| `{f.name}` |" not in options] == []
    assert [key for key in generate["KEYS"] if f"| `{key}` |" not in metrics] == []
