"""One of each, in `tests/extension/`: algorithm, regularizer, policy family, environment, metric.

Every one runs through the commands. `docs/extending.md` shows the same five files.
"""

import importlib.util
import json
import re
import sys
from importlib import import_module
from pathlib import Path

import extension.algorithm
import extension.environment
import extension.regularizer  # noqa: F401  each registers itself
import numpy as np
import pytest
from extension.family import ToyFamilyConfig
from lerobot.configs import parser
from runs import metrics
from tiny import save_policy

from lerobot_rlft.cli import eval as evaluate
from lerobot_rlft.cli import push, train
from lerobot_rlft.metrics.keys import KEYS
from lerobot_rlft.metrics.registry import METRICS, metric

ROOT = Path(__file__).parents[1]
BASE = ROOT / "recipes/grasps_base"
QUICK = (
    "--rollout.n_envs=8", "--rollout.n_episodes=16", "--eval.n_episodes=8", "--eval.n_episodes_during=8",
    "--eval.batch_size=8", "--eval.n_videos=0", "--iterations=2", "--save_freq=1", "--probe_freq=1",
)  # fmt: skip
DPPO = ("--algorithm.type=dppo", "--algorithm.critic_hidden_dims=[8]", "--algorithm.update_epochs=1")


@pytest.fixture
def run(read_command, tmp_path):
    """Runs lerobot-rlft-train, and again from its first checkpoint; returns the folder."""

    def run(*arguments):
        folder = tmp_path / "run"
        train.run(read_command(*QUICK, *arguments, f"--output_dir={folder}"))
        whole = metrics(folder)
        (folder / "checkpoints/last").unlink()
        (folder / "checkpoints/last").symlink_to("000001")
        train.run(read_command(f"--resume={folder}"))
        assert metrics(folder) == whole, "a resume gives the same numbers"
        return folder

    return run


@pytest.fixture
def command(monkeypatch):
    """Runs another command in this process."""

    def run(main, *arguments):
        parser._config_path_args.clear()
        parser._config_yaml_overrides.clear()
        monkeypatch.setattr("logging.root.handlers", [])
        monkeypatch.setattr("lerobot_rlft.cli.quiet", lambda: None)
        monkeypatch.setattr("sys.argv", ["lerobot-rlft", *map(str, arguments)])
        main()

    yield run
    parser._config_path_args.clear()
    parser._config_yaml_overrides.clear()


@pytest.mark.slow
def test_an_algorithm(run):
    folder = run("--algorithm.type=toy_imitation_of_successes", f"--policy.path={BASE}", "--env.type=grasps")
    lines = metrics(folder, "train")
    assert len(lines) == 2 and all(np.isfinite(line["toy_loss"]) for line in lines)


@pytest.mark.slow
def test_a_regularizer(run):
    folder = run(
        *DPPO, f"--policy.path={BASE}", "--env.type=grasps",
        "--algorithm.regularizers=[{type: toy_small_outputs, coef: 0.1}]",
    )  # fmt: skip
    assert all(line["toy_small_outputs_loss"] > 0 for line in metrics(folder, "train"))


def test_a_policy_family(run, tmp_path):
    sizes = {"observation.state": 2, "observation.environment_state": 2}
    base = save_policy(tmp_path / "base", sizes, reach=1.0, kind=ToyFamilyConfig)
    folder = run(*DPPO, f"--policy.path={base}", "--env.type=toy_sides")
    saved = json.loads((folder / "checkpoints/last/pretrained_model/config.json").read_text())
    assert saved["type"] == "toy_family"
    assert all(line["first_ratio_error"] <= 1e-4 for line in metrics(folder, "train"))


@pytest.mark.slow
def test_an_environment(run):
    folder = run(*DPPO, f"--policy.path={BASE}", "--env.type=toy_sides", "--env.far=0.3")
    line = metrics(folder, "eval")[-1]
    assert line["num_modes"] == 2 and 0 < line["success"] <= 1


@pytest.fixture
def rare_half():
    """The metric is known while a test runs: pages and reports of others do not have it."""
    import_module("extension.metric")
    yield
    del METRICS["rare_half"], KEYS["rare_half"], sys.modules["extension.metric"]


@pytest.mark.slow
def test_a_metric(run, command, rare_half, tmp_path):
    folder = run(*DPPO, f"--policy.path={BASE}", "--env.type=grasps", "--eval.n_episodes=96")
    report = tmp_path / "report"
    command(
        evaluate.main, f"--policy.path={folder / 'checkpoints/last/pretrained_model'}", f"--base.path={BASE}",
        "--env.type=grasps", "--n_episodes=96", "--batch_size=96", "--n_attempts=0", f"--output_dir={report}",
    )  # fmt: skip
    assert -1 <= json.loads((report / "diversity.json").read_text())["rare_half"] <= 1
    page = (report / "report.html").read_text()
    assert "rare half" in page and "rarer modes, tuned minus base" in page
    command(
        push.main, f"--run_dir={folder}", f"--eval_dir={report}", "--repo_id=user/tuned", "--license=mit",
        "--dry_run=true", f"--output_dir={tmp_path / 'bundle'}",
    )  # fmt: skip
    assert "rare half" in (tmp_path / "bundle/README.md").read_text()
    own = tmp_path / "own"  # from the run's own evaluation
    command(
        push.main, f"--run_dir={folder}", "--repo_id=user/tuned", "--license=mit", "--dry_run=true",
        f"--output_dir={own}",
    )  # fmt: skip
    numbers = json.loads((own / "diversity.json").read_text())
    assert -1 <= numbers["rare_half"] <= 1 and 0 <= numbers["js_divergence"] <= 1
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    assert "`rare_half`" in generate.metrics_page()


def test_a_metric_of_a_taken_name_or_of_unknown_data_is_refused():
    with pytest.raises(ValueError, match="metric 'success' exists already"):
        metric("success", "", "episodes")
    with pytest.raises(ValueError, match="reads='everything' is unknown, choose mode_counts or episodes"):
        metric("new", "", "everything")


def test_the_page_shows_every_file():
    page = (ROOT / "docs/extending.md").read_text()
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests/extension").glob("*.py")}
    shown = re.findall(r'^--8<-- "(.+)"$', page, re.MULTILINE)
    assert set(shown) == files and len(shown) == len(files) == 5
