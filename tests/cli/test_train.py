"""The command as a user meets it: help, a dry run, a whole run, Ctrl-C, mistakes."""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from runs import metrics

from lerobot_rlft.cli import train
from lerobot_rlft.training.checkpoint import write_config
from lerobot_rlft.training.trainer import Trainer
from lerobot_rlft.utils.errors import RatioError

SCRIPT = Path(sys.executable).with_name("lerobot-rlft-train")
TINY_RUN = (
    "--algorithm.type=dppo", "--algorithm.update_epochs=1", "--algorithm.minibatch_size=16",
    "--env.type=avoiding", "--env.episode_length=8", "--rollout.n_envs=2", "--rollout.n_episodes=4",
    "--eval.n_episodes=2", "--eval.n_episodes_during=2", "--eval.n_videos=0", "--iterations=1",
)  # fmt: skip


def start(*arguments, cwd: Path) -> subprocess.Popen:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HOME": str(cwd)}
    return subprocess.Popen(
        [SCRIPT, *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd, env=environment,
    )  # fmt: skip


@pytest.fixture
def main(monkeypatch, read_command, capsys):
    """Runs the command in this process; returns its exit message and what it printed."""

    # The command replaces them.
    monkeypatch.setattr("logging.root.handlers", [])
    level = logging.root.level

    def run(*arguments):
        logging.root.setLevel(logging.WARNING)
        monkeypatch.setattr("lerobot_rlft.cli.train.read_config", lambda: read_command(*arguments))
        with pytest.raises(SystemExit) as stop:
            train.main()
        return stop.value.code, capsys.readouterr()

    yield run
    logging.root.setLevel(level)


@pytest.mark.slow
def test_a_run_is_stopped_by_ctrl_c_and_resumed_with_wandb_offline(base_policy, tmp_path):
    run = tmp_path / "run"
    process = start(
        *TINY_RUN, f"--policy.path={base_policy}", f"--output_dir={run}", "--iterations=100000",
        "--save_freq=0", "--eval_freq=0", "--wandb.enable=true", "--wandb.mode=offline", cwd=tmp_path,
    )  # fmt: skip
    deadline = time.monotonic() + 200
    while not (run / "metrics.jsonl").exists() or not metrics(run, "train"):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 1
    done = metrics(run, "train")[-1]["iteration"]
    assert f"stopped after iteration {done}. " in err
    assert err.endswith(f"continue with\n  lerobot-rlft-train --resume={run}\n")
    assert int((run / "checkpoints/last").resolve().name) == done
    # Quiet: nothing but the progress bar, and no message of a library.
    for noise in ("Traceback", "WARNING", "Loading weights", "torchcodec"):
        assert noise not in out + err
    ids = {path.name.rpartition("-")[2] for path in (run / "wandb").glob("offline-run-*")}
    assert len(ids) == 1

    resumed = start(f"--resume={run}", f"--iterations={done + 1}", cwd=tmp_path)
    out, err = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, err
    assert (
        "No difference in success" in out and "lerobot-eval --policy.path=" in out and "Traceback" not in err
    )
    assert [line["iteration"] for line in metrics(run, "train")] == [*range(1, done + 2)]
    assert {path.name.rpartition("-")[2] for path in (run / "wandb").glob("offline-run-*")} == ids
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["run"]


@pytest.mark.parametrize(
    "mistake, words",
    [
        (["--algorithm.gama=1"], "--algorithm.gama is unknown, did you mean --algorithm.gamma?"),
        (["--algorithm.finetuned_steps=4"], "algorithm.finetuned_steps=4 is out of range, choose 1 to 3"),
        (["--env.type=pusht"], "do not fit"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(mistake, words, base_policy, main, tmp_path):
    arguments = [a for a in TINY_RUN if a.partition("=")[0] not in [m.partition("=")[0] for m in mistake]]
    if mistake == ["--env.type=pusht"]:
        arguments = [a for a in arguments if "env." not in a]
    code, said = main(
        *arguments, f"--policy.path={base_policy}", f"--output_dir={tmp_path / 'run'}", *mistake
    )
    assert code.startswith("error: ") and words in code
    assert said.out == said.err == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_the_run_begins(number, base_policy, main, tmp_path, monkeypatch):
    def interrupted(*args):
        os.kill(os.getpid(), number)

    monkeypatch.setattr("lerobot_rlft.training.trainer.make_policy", interrupted)
    # Jobs in the background ignore some of them, and their children do, too.
    old = signal.signal(number, signal.default_int_handler)
    try:
        code, _ = main(*TINY_RUN, f"--policy.path={base_policy}", f"--output_dir={tmp_path / 'run'}")
    finally:
        signal.signal(number, old)
    assert code == "\nstopped before the run began, nothing was changed"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", [FloatingPointError, RatioError])
def test_an_error_in_a_run_is_one_sentence(kind, base_policy, main, tmp_path, monkeypatch):
    def fails(*args):
        raise kind("a loss is nan")

    monkeypatch.setattr("lerobot_rlft.algorithms.dppo.DPPO.update", fails)
    code, _ = main(*TINY_RUN, f"--policy.path={base_policy}", f"--output_dir={tmp_path / 'run'}")
    assert code.startswith("error: iteration 1: a loss is nan. The checkpoint of iteration 0 is whole")


def test_a_run_started_from_the_config_of_another(dppo_config, read_command, tmp_path):
    """It continues neither the folder nor the run of wandb of that one."""
    config = dppo_config()
    config.wandb.run_id = "abc"
    write_config(config, tmp_path / "rlft_config.yaml")
    (tmp_path / "run").mkdir()
    again = read_command(f"--config_path={tmp_path / 'rlft_config.yaml'}", f"--output_dir={tmp_path / 'new'}")
    assert again.wandb.run_id is None and again.output_dir == tmp_path / "new"
    assert again.algorithm == config.algorithm and again.policy == config.policy
    default = read_command(f"--config_path={tmp_path / 'rlft_config.yaml'}")
    assert default.output_dir.parts[:2] == ("outputs", "rlft")


def test_help_shows_only_the_chosen_types(main):
    code, said = main("--algorithm.type=dppo", "--env.type=avoiding", "--help")
    assert code == 0
    assert "--algorithm.clip_range" in said.out and "--env.lag" in said.out and "--rollout.n_envs" in said.out
    assert "--algorithm.proximal_coef" not in said.out and "type: ignore" not in said.out
    assert "--algorithm.ema_decay" not in said.out and "--env.visualization_width" not in said.out
    assert "--policy.horizon" not in said.out
    # Every option of ours is explained.
    code, said = main("--help")
    assert code == 0 and "--algorithm.clip_range" not in said.out
    assert "Iterations between checkpoints" in said.out


def test_a_dry_run_of_the_command_writes_nothing(base_policy, tmp_path, read_command, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        train,
        "read_config",
        lambda: read_command(*TINY_RUN, f"--policy.path={base_policy}", "--dry_run=true"),
    )
    train.main()
    said = capsys.readouterr().out
    assert "would write outputs/rlft/" in said and "4 episodes in 2 environments" in said
    assert list(tmp_path.iterdir()) == []


def test_a_resume_can_be_tried_first(dppo_config, main, read_command, monkeypatch, tmp_path):
    config = dppo_config(iterations=1)
    monkeypatch.setattr("lerobot_rlft.training.evaluator.draw_trajectories", lambda *args: None)
    Trainer(config).train()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    monkeypatch.setattr(
        train,
        "read_config",
        lambda: read_command(f"--resume={config.output_dir}", "--iterations=2", "--dry_run=true"),
    )
    train.main()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_policy_of_the_hub_that_cannot_be_reached(main, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    code, _ = main(*TINY_RUN, "--policy.path=nobody/nothing-at-all", f"--output_dir={tmp_path / 'run'}")
    assert code.startswith("error: --policy.path=nobody/nothing-at-all is no folder here and cannot be read")
    assert not (tmp_path / "run").exists()
