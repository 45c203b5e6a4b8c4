"""The wheel as a user gets it: what it holds, that every LeRobot command finds it, and what that costs."""

import configparser
import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from email import message_from_bytes
from pathlib import Path
from shutil import copy, copytree, ignore_patterns

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
FOLDERS = ("lerobot_rlft", "hub_cards", "recipes")
# Folders that are installed elsewhere than they lie.
MOVED = {
    "lerobot_rlft/discovery": "lerobot_policy_rlft",
    "hub_cards": "lerobot_rlft/hub_cards",
    "recipes": "lerobot_rlft/recipes",
}
# Every `lerobot-*` command pays for what the plugin imports: beyond these packages, nothing that
# `lerobot.envs.configs` has not imported already.
CHEAP = ("lerobot_rlft", "lerobot_policy_rlft")

# Forks, because LeRobot itself takes seconds to import, and each command must start without the plugin.
PROBE = """
import json, os, sys
import lerobot.envs.configs as configs

def apart(name, job):
    sys.stdout.flush()
    if (child := os.fork()) == 0:
        with open(name, "w") as output:
            os.dup2(output.fileno(), 1)
        job()
        sys.exit()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with open(name) as output:
        return status, output.read()

def cost():
    before = set(sys.modules)
    import lerobot_policy_rlft
    print(json.dumps(sorted(set(sys.modules) - before)))

def discovery():
    from lerobot.utils.import_utils import register_third_party_plugins
    known = "avoiding" in configs.EnvConfig.get_known_choices()
    register_third_party_plugins()
    import lerobot_rlft
    print(json.dumps([known, "avoiding" in configs.EnvConfig.get_known_choices(), lerobot_rlft.__file__]))

report = {"cost": apart("cost", cost), "discovery": apart("discovery", discovery)}
import lerobot.scripts.lerobot_eval, lerobot.scripts.lerobot_rollout, lerobot.scripts.lerobot_train
for name, *arguments in json.loads(sys.argv[1]):
    def command():
        sys.argv = [name, *arguments]
        try:
            vars(lerobot.scripts)[name].main()
        finally:
            print("\\nplugin:", getattr(sys.modules.get("lerobot_policy_rlft"), "__file__", None))
    report[name] = apart(name, command)
print(json.dumps(report))
"""
COMMANDS = [
    ("lerobot_eval", "--env.type=avoiding", "--help"),
    ("lerobot_train", "--env.type=avoiding", "--help"),
    ("lerobot_rollout", "--help"),  # drives robots, so it shows no env
]


def installed_as(path: Path) -> str:
    """Name in the wheel of a source file."""
    name = path.relative_to(ROOT).as_posix()
    for source, target in MOVED.items():
        if name.startswith(f"{source}/"):
            return target + name.removeprefix(source)
    return name


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    # From a copy: a build in the checkout would leave files there, and pick up what an earlier one left.
    source, dist = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        copy(ROOT / name, source)
    for name in FOLDERS:
        copytree(ROOT / name, source / name, ignore=ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "-q", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, f"--wheel-dir={dist}", source], check=True)
    [built] = dist.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory) -> Path:
    """site-packages of a fresh environment: those of this one, but of this project only the wheel."""
    home = tmp_path_factory.mktemp("env")
    venv.create(home, symlinks=True)
    installed = Path(sysconfig.get_path("purelib"))
    fresh = home / installed.relative_to(sys.prefix)
    for entry in installed.iterdir():
        if not entry.name.startswith(("lerobot_", "__editable__", "__pycache__")):
            (fresh / entry.name).symlink_to(entry)
    pip = [sys.executable, "-m", "pip", "-q", "--python", home / "bin" / "python"]
    subprocess.run([*pip, "install", "--no-deps", "--no-index", wheel], check=True)
    return fresh


@pytest.fixture(scope="module")
def probed(site, tmp_path_factory) -> dict[str, tuple[int, str]]:
    """Exit status and output of every job of `PROBE`, run where only the wheel is installed."""
    python = site.parents[2] / "bin" / "python"
    done = subprocess.run(
        [python, "-P", "-c", PROBE, json.dumps(COMMANDS)],
        cwd=tmp_path_factory.mktemp("probe"),
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"COLUMNS": "120"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_wheel_holds_every_file_at_its_place_and_the_licence(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    ours = {
        installed_as(path)
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert {"lerobot_policy_rlft/__init__.py", "lerobot_rlft/hub_cards/__init__.py"} <= ours
    assert ours - names == set()
    extra = {name for name in names - ours if ".dist-info/" not in name}
    assert extra == set()
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_distribution_has_the_one_name_that_lerobot_looks_for(wheel):
    """LeRobot tests the raw name for a prefix with underscores and imports that same string."""
    archive = zipfile.ZipFile(wheel)
    [metadata] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    assert message_from_bytes(archive.read(metadata))["Name"] == "lerobot_policy_rlft"


def test_every_console_script_is_in_the_wheel(wheel, site):
    archive = zipfile.ZipFile(wheel)
    [entry_points] = [name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt")]
    parser = configparser.ConfigParser()
    parser.read_string(archive.read(entry_points).decode())
    scripts = dict(parser["console_scripts"])
    assert scripts
    for name, target in scripts.items():
        module, _ = target.split(":")
        assert f"{module.replace('.', '/')}.py" in archive.namelist(), target
        assert (site.parents[2] / "bin" / name).is_file()


def test_lerobot_discovers_the_wheel(probed, site):
    status, output = probed["discovery"]
    assert status == 0
    before, after, file = json.loads(output)
    assert not before and after
    assert Path(file) == site / "lerobot_rlft" / "__init__.py"


@pytest.mark.parametrize("command", [name for name, *_ in COMMANDS])
def test_the_command_loads_the_wheel(probed, site, command):
    status, output = probed[command]
    assert status == 0
    assert output.endswith(f"plugin: {site / 'lerobot_policy_rlft' / '__init__.py'}\n")
    assert ("--env.blocked_gap" in output) == (command != "lerobot_rollout")


def test_the_plugin_imports_nothing_heavy(probed):
    status, output = probed["cost"]
    assert status == 0
    assert [name for name in json.loads(output) if name.split(".")[0] not in CHEAP] == []
