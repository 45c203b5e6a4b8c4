"""The command as a user meets it: a tiny measurement, mistakes, Ctrl-C, and its recipe."""

import json
import math
from pathlib import Path

import pytest
from lerobot.configs import parser
from test_recipes import ROOT, commands

from lerobot_rlft.cli import explore
from lerobot_rlft.configs.parser import parse_command_line
from lerobot_rlft.evaluation.structured_exploration import ARMS

TINY = ("--env.type=avoiding", "--env.episode_length=8", "--n_episodes=2", "--samples=2", "--floors=[0.1]")


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs the command in this process; returns its exit message and what it printed."""
    monkeypatch.setattr("lerobot_rlft.cli.quiet", lambda: None)

    def run(*arguments):
        # LeRobot keeps what it found in YAML files for the life of the process.
        parser._config_path_args.clear()
        parser._config_yaml_overrides.clear()
        monkeypatch.setattr("sys.argv", ["lerobot-rlft-explore", *map(str, arguments)])
        try:
            explore.main()
        except SystemExit as stop:
            return stop.code, capsys.readouterr()
        return None, capsys.readouterr()

    yield run
    parser._config_path_args.clear()
    parser._config_yaml_overrides.clear()


@pytest.fixture
def easy(monkeypatch):
    """Avoiding ends with success below its start, so that a random policy has successes."""
    monkeypatch.setattr("lerobot_rlft.envs.avoiding.avoiding.FINISH_Y", -0.3)


def test_a_measurement(base_policy, command, easy, tmp_path):
    folder = tmp_path / "new" / "exploration"
    code, said = command(
        *TINY, f"--policy.path={base_policy}", f"--output_dir={folder}",
        "--n_episodes=24", "--floors=[0.3,0.1,0.3]", "--batch_size=7",
    )  # fmt: skip
    assert code is None
    assert {path.name for path in folder.iterdir()} == {"exploration.json", "exploration.png"}
    found = json.loads((folder / "exploration.json").read_text())
    assert found["policy"] == str(base_policy) and found["samples"] == 2 and found["seed"] == 1000
    assert found["base"]["n_episodes"] == 48 and found["base"]["success"] == 1
    assert [(a["arm"], a["floor"]) for a in found["arms"]] == [(arm, f) for f in (0.1, 0.3) for arm in ARMS]
    for arm in found["arms"]:
        assert arm["n_episodes"] == 24 and arm["success"] == 1 and arm["paths"] == 24
        assert len(arm["success_ci"]) == len(arm["off_manifold_ci"]) == 2
        assert arm["num_modes"] == 24 and arm["no_coverage"] is None
        for name in ("off_manifold", "noise_rms", "coverage", "recall", "control_coverage", "control_recall"):
            assert math.isfinite(arm[name])
    assert found["arms"][0]["noise_rms"] < found["arms"][3]["noise_rms"]
    assert found["conclusion"] in said.out and "Numbers and picture" in said.out


@pytest.mark.parametrize(
    "mistake, words",
    [
        ("--floors=[]", "floors=[] must hold numbers > 0, for example --floors=[0.1,0.2]"),
        ("--floors=[0.1,0]", "floors=[0.1, 0.0] must hold numbers > 0"),
        ("--floors=[.nan]", "floors=[nan] must hold numbers > 0"),
        ("--samples=1", "samples=1 must be at least 2"),
        ("--n_episodes=1", "n_episodes=1 must be at least 2"),
        ("--batch_size=0", "batch_size=0 must be at least 1"),
        ("--seed=-1", "seed=-1 must not be negative"),
        ("--n_episode=5", "--n_episode is unknown, did you mean --n_episodes?"),
        ("--env.type=mars", "env.type=mars is unknown"),
        ("--policy.path=nowhere", "--policy.path=nowhere is no checkpoint"),
        # This policy cannot solve the task.
        ("--seed=0", "the base has no success in 4 episodes (n_episodes=2, for the base twice): "),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_leaves_nothing(mistake, words, base_policy, command, tmp_path):
    given = [f"--policy.path={base_policy}", f"--output_dir={tmp_path / 'run'}", *TINY]
    name = mistake.partition("=")[0]
    code, said = command(*(word for word in given if word.partition("=")[0] != name), mistake)
    assert code.startswith("error: ") and words in code and said.out == ""
    assert list(tmp_path.iterdir()) == []


def test_what_must_be_given(base_policy, command, tmp_path):
    code, _ = command(*TINY, f"--output_dir={tmp_path / 'run'}")
    assert code == "error: no policy: give --policy.path=HUB_ID_OR_FOLDER"
    code, _ = command(f"--policy.path={base_policy}", f"--output_dir={tmp_path / 'run'}")
    assert code.startswith("error: no environment: give --env.type=..., one of ") and "avoiding" in code


def test_a_folder_that_cannot_be_used(base_policy, command, tmp_path):
    given = [*TINY, f"--policy.path={base_policy}"]
    code, _ = command(*given, f"--output_dir={tmp_path}")
    assert code == f"error: --output_dir={tmp_path} exists: choose another folder, or delete it"
    (tmp_path / "file").write_text("")
    code, _ = command(*given, f"--output_dir={tmp_path / 'file' / 'run'}")
    assert code.startswith(f"error: --output_dir={tmp_path / 'file' / 'run'} cannot be made")


def test_an_environment_without_the_state(base_policy, command, monkeypatch, tmp_path):
    monkeypatch.setattr(
        "lerobot_rlft.rollout.runner.VECTORS", {"environment_state": "observation.environment_state"}
    )
    code, _ = command(*TINY, f"--policy.path={base_policy}", f"--output_dir={tmp_path / 'run'}")
    assert code.startswith(
        "error: env.type=avoiding gives no observation.state, whose path is compared (it gives"
    )
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_leaves_nothing(base_policy, command, monkeypatch, tmp_path):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("lerobot_rlft.evaluation.structured_exploration.refer", interrupted)
    monkeypatch.setattr("lerobot_rlft.envs.avoiding.avoiding.FINISH_Y", -0.3)
    code, _ = command(*TINY, f"--policy.path={base_policy}", f"--output_dir={tmp_path / 'run'}")
    assert code == "\nstopped, nothing was written"
    assert list(tmp_path.iterdir()) == []


def test_the_default_folder_is_new_and_help_explains_the_options(base_policy, command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    config = explore.ExploreConfig(policy=explore.PreTrainedConfig.from_pretrained(base_policy))
    config.policy.pretrained_path, config.env = base_policy, explore.EnvConfig.get_choice_class("avoiding")()
    config.resolve()
    assert config.output_dir.parts[:2] == ("outputs", "rlft_explore") and not config.output_dir.exists()
    code, said = command("--help")
    assert code == 0 and "the base plays twice as many" in " ".join(said.out.split())


def test_the_recipe_is_what_its_header_shows(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    text = Path("recipes/structured_exploration.yaml").read_text()
    results = Path("docs/results/structured_exploration.md").read_text()
    [arguments] = commands(text, "lerobot-rlft-explore")
    parser._config_path_args.clear()
    parser._config_yaml_overrides.clear()
    monkeypatch.setattr("sys.argv", ["lerobot-rlft-explore", *arguments])
    config = parse_command_line(explore.ExploreConfig)
    assert config.output_dir == Path("outputs/structured_exploration")
    config.output_dir = tmp_path / "new"  # the folder may be there from an earlier run
    config.resolve()
    parser._config_path_args.clear()  # else the tests that follow resolve this policy
    assert config.policy.pretrained_path == Path("recipes/avoiding_base")
    for floor in config.floors:
        for arm in ARMS:
            assert f"{arm:<16} {floor:<6g} " in results
    assert Path("docs/exploration.png").stat().st_size < 200_000
