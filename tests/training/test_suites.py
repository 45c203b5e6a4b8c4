"""A run over several tasks: dealt evenly, with success and modes of each in its results."""

import json

import pytest
from lerobot.datasets import LeRobotDataset
from lerobot.utils.constants import PRETRAINED_MODEL_DIR
from suite_env import SmallSuiteConfig

from lerobot_rlft.algorithms.nft import NFTConfig
from lerobot_rlft.algorithms.recap import RecapConfig
from lerobot_rlft.cli.eval import run as evaluate
from lerobot_rlft.configs.default import EvalConfig, RolloutConfig
from lerobot_rlft.configs.eval import EvalPipelineConfig
from lerobot_rlft.configs.pretrained import load_policy_config
from lerobot_rlft.configs.train import TrainConfig
from lerobot_rlft.critics.configuration import ValueConfig
from lerobot_rlft.diversity.atlas import AtlasConfig
from lerobot_rlft.regularizers.mode_commands import CommandConfig
from lerobot_rlft.training.rounds import Rounds
from lerobot_rlft.training.trainer import Trainer
from lerobot_rlft.utils.errors import EnvironmentFailure, UserError

TASKS = ["small/0", "small/1", "small/2"]


def suite_run(dppo_config, **fields):
    """Two iterations on the suite."""
    defaults = {
        "env": SmallSuiteConfig(),
        "rollout": RolloutConfig(n_envs=6, n_episodes=12),
        "eval": EvalConfig(n_episodes=60, n_episodes_during=30, batch_size=30, n_videos=0),
        "iterations": 2,
        "probe_freq": 1,
    }
    return dppo_config(**(defaults | fields))


@pytest.mark.slow
def test_a_run_over_a_suite(dppo_config, tmp_path, capsys):
    config = suite_run(dppo_config)
    Trainer(config).train()
    lines = [json.loads(line) for line in (config.output_dir / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        if line["kind"] == "train":
            assert [key for key in line if key.startswith("success/")] == [
                f"success/{name}" for name in TASKS
            ]
            assert line["success"] == pytest.approx(sum(line[f"success/{name}"] for name in TASKS) / 3)
        else:
            assert list(line["tasks"]) == TASKS and line["num_modes"] == 6
            count = line["n_episodes"] // 3
            assert all(
                task["n_episodes"] == count and task["num_modes"] == 2 for task in line["tasks"].values()
            )
    summary = json.loads((config.output_dir / "summary.json").read_text())
    # Whatever is done, tasks succeed on 2, 5 and 9 of every 10 seeds; 20 seeds are every third of 60.
    assert [summary["tuned"]["tasks"][name]["success"] for name in TASKS] == [0.2, 0.5, 0.9]
    assert summary["base"]["tasks"] == summary["tuned"]["tasks"]
    printed = capsys.readouterr().out
    assert "mean of the tasks" in printed and "small/2" in printed

    checkpoint = config.output_dir / "checkpoints/last" / PRETRAINED_MODEL_DIR
    report = EvalPipelineConfig(
        policy=load_policy_config(str(checkpoint), []),
        base=load_policy_config(str(config.policy.pretrained_path), []),
        env=config.env, n_episodes=60, batch_size=6, use_async_envs=True, output_dir=tmp_path / "report",
    )  # fmt: skip
    for side in (report.policy, report.base):
        side.pretrained_path = checkpoint if side is report.policy else config.policy.pretrained_path
    evaluate(report)
    m = json.loads((tmp_path / "report/diversity.json").read_text())
    assert list(m["tasks"]) == TASKS and m["task_success"] == pytest.approx((0.2 + 0.5 + 0.9) / 3)
    assert m["task_entropy"] == pytest.approx(m["base_task_entropy"]) and m["task_entropy_ratio"] > 0.9
    page = (tmp_path / "report/report.html").read_text()
    assert "By task" in page and "mean of the tasks" in page


def test_environments_that_cannot_be_dealt_evenly(dppo_config):
    config = suite_run(dppo_config, rollout=RolloutConfig(n_envs=4, n_episodes=4))
    with pytest.raises(UserError, match=r"rollout.n_envs=4 cannot be dealt evenly to 3 tasks .*n_envs=3"):
        Trainer(config)


def test_fewer_episodes_than_tasks(dppo_config):
    with pytest.raises(UserError, match=r"eval.n_episodes_during=2 leaves some of 3 tasks out"):
        Trainer(suite_run(dppo_config, eval=EvalConfig(n_episodes_during=2, batch_size=2, n_videos=0)))


def test_a_broken_task_stops_the_run_by_its_name(dppo_config):
    config = suite_run(dppo_config, env=SmallSuiteConfig(broken=1))
    with pytest.raises(EnvironmentFailure, match="in step 3 of task small/1"):
        Trainer(config).train()


@pytest.mark.slow
def test_an_atlas_of_each_task(dppo_config, capsys):
    """The paths of even and odd seeds differ, in tasks 1 and 2 enough of them succeed."""
    config = suite_run(
        dppo_config, env=SmallSuiteConfig(modes=False),
        rollout=RolloutConfig(n_envs=6, n_episodes=60, n_reference=60),
        eval=EvalConfig(n_episodes=240, n_episodes_during=60, batch_size=30, n_videos=0), iterations=1,
        atlas=AtlasConfig(dims=[2]),
    )  # fmt: skip
    Trainer(config).train()
    assert "modes of 3 tasks" in capsys.readouterr().out
    summary = json.loads((config.output_dir / "summary.json").read_text())
    assert summary["tuned"]["tasks"]["small/2"]["modes"] == 2
    assert summary["tuned"]["tasks"] == summary["base"]["tasks"]
    train = json.loads((config.output_dir / "metrics.jsonl").read_text().splitlines()[2])
    assert train["kind"] == "train" and len(train["mode_counts"]) == summary["tuned"]["num_modes"]


@pytest.mark.slow
def test_rounds_over_a_suite(base_policy, tmp_path):
    policy = load_policy_config(str(base_policy), ["--scheduler_warmup_steps=0"])
    policy.pretrained_path = base_policy
    config = TrainConfig(
        algorithm=RecapConfig(n_rounds=1, label="quantile", batch_size=8, value=ValueConfig(steps=3)),
        policy=policy, env=SmallSuiteConfig(modes=False), rollout=RolloutConfig(n_envs=6, n_episodes=60),
        eval=EvalConfig(n_episodes=120, n_episodes_during=30, batch_size=30, n_videos=0), iterations=4,
        atlas=AtlasConfig(dims=[2]), output_dir=tmp_path / "run",
    )  # fmt: skip
    config.resolve()
    Rounds(config).train()
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert list(summary["tuned"]["tasks"]) == TASKS
    (root,) = (tmp_path / "run").glob("**/rollouts")
    recorded = LeRobotDataset("local/rollouts", root=root)
    first = [int(i) for i in recorded.meta.episodes["dataset_from_index"]]
    assert [recorded[i]["task"] for i in first] == TASKS * 20


@pytest.mark.slow
def test_a_dry_run_over_a_suite(dppo_config, capsys):
    Trainer(suite_run(dppo_config, dry_run=True)).dry_run()
    assert "12 episodes in 6 environments" in capsys.readouterr().out


@pytest.mark.slow
def test_commands_are_of_one_task(dppo_config):
    algorithm = NFTConfig(commands=CommandConfig(enable=True))
    with pytest.raises(UserError, match=r"told its mode .*small_suite has 3: .*commands.enable=false"):
        Trainer(suite_run(dppo_config, algorithm=algorithm))
