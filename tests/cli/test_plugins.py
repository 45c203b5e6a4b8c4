"""Packages that register environments are found by themselves, or by name, and fail in a sentence."""

import logging
import sys

import pytest
from lerobot.envs import EnvConfig

from lerobot_rlft.cli.plugins import load_plugins
from lerobot_rlft.configs.packages import load_packages
from lerobot_rlft.utils.errors import UserError

ENVIRONMENT = """
from dataclasses import dataclass
from lerobot.envs import EnvConfig

@EnvConfig.register_subclass("found_by_itself")
@dataclass
class Found(EnvConfig):
    @property
    def gym_kwargs(self):
        return {}
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Writes a module, and what pip leaves of an installed distribution of that name."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("sys.argv", ["lerobot-rlft-check"])
    known = dict(EnvConfig._choice_registry)

    def write(name, source, package=True, distribution=True):
        file = tmp_path / name / "__init__.py" if package else tmp_path / f"{name}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(source)
        if distribution:
            info = tmp_path / f"{name}-1.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")

    yield write
    for name in [name for name in sys.modules if name.startswith(("lerobot_env_", "somebodys_env"))]:
        del sys.modules[name]
    EnvConfig._choice_registry.clear()
    EnvConfig._choice_registry.update(known)


def test_an_installed_environment_is_found_by_its_name(installed):
    installed("lerobot_env_mine", ENVIRONMENT, package=False)
    load_plugins()
    assert "found_by_itself" in EnvConfig.get_known_choices()


def test_an_installed_package_that_raises_is_a_warning_in_a_line(installed, caplog):
    installed("lerobot_env_broken", "raise RuntimeError('no\\nlicence')")
    load_plugins()
    (record,) = (r for r in caplog.records if "lerobot_env_broken" in r.getMessage())
    assert record.getMessage().endswith("plugin: lerobot_env_broken (RuntimeError: no licence)")
    assert record.exc_info is None
    assert not logging.getLogger().filters


@pytest.mark.parametrize(
    "source, package, answer",
    [
        (ENVIRONMENT, False, "is a single file, and LeRobot wants a package: .* somebodys_env/__init__.py"),
        ("raise RuntimeError('no licence')", True, "cannot be imported: RuntimeError: no licence"),
        ("import nothing_of_this_name", True, "cannot be imported: .*No module named 'nothing_of_this_name'"),
        (None, True, "cannot be imported: .*No module named 'somebodys_env'"),
    ],
)
def test_a_named_package_that_cannot_be_loaded(source, package, answer, installed, monkeypatch):
    if source is not None:
        installed("somebodys_env", source, package, distribution=False)
    monkeypatch.setattr("sys.argv", ["lerobot-rlft-check", "--env.discover_packages_path=somebodys_env"])
    with pytest.raises(UserError, match=f"^--env.discover_packages_path=somebodys_env {answer}"):
        load_packages()


def test_a_named_package(installed, monkeypatch):
    installed("somebodys_env", ENVIRONMENT, distribution=False)
    monkeypatch.setattr("sys.argv", ["lerobot-rlft-check", "--env.discover_packages_path=somebodys_env"])
    load_packages()
    assert "found_by_itself" in EnvConfig.get_known_choices()
