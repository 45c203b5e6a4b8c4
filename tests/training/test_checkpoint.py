"""A run that is killed anywhere and resumed is the run that was never killed."""

import errno
import os
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from runs import Killed, contents, metrics
from tiny import save_policy

from lerobot_rlft.algorithms.dppo import DPPOConfig
from lerobot_rlft.training import checkpoint as checkpoint_module
from lerobot_rlft.training import training_state
from lerobot_rlft.training.checkpoint import last_checkpoint, load_state, save_checkpoint
from lerobot_rlft.training.trainer import Trainer
from lerobot_rlft.utils.errors import StorageFailure, UserError
from lerobot_rlft.utils.signals import Interrupted

pytestmark = pytest.mark.slow

FINETUNED = DPPOConfig(update_epochs=1, minibatch_size=16, critic_hidden_dims=(8,), finetuned_steps=2)


def kill_in_update(trainer: Trainer, monkeypatch) -> None:
    """In the middle of iteration 3, after its weights have changed."""
    update, calls = trainer.algorithm.update, []

    def third_is_fatal(data):
        calls.append(1)
        metrics = update(data)
        if len(calls) == 3:
            raise Killed
        return metrics

    monkeypatch.setattr(trainer.algorithm, "update", third_is_fatal)


def kill_in_save(trainer: Trainer, monkeypatch) -> None:
    """In the middle of writing the checkpoint of iteration 4."""
    save_file, calls = checkpoint_module.save_file, []

    def second_is_fatal(tensors, path):
        calls.append(1)
        if len(calls) == 2:
            raise Killed
        save_file(tensors, path)

    monkeypatch.setattr(checkpoint_module, "save_file", second_is_fatal)


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """They take longer than the runs."""
    for name in (
        "training.evaluator.draw_trajectories",
        "training.evaluator.draw_learning_curve",
        "training.monitor.draw_kl",
    ):
        monkeypatch.setattr(f"lerobot_rlft.{name}", lambda *args: None)


@pytest.mark.parametrize(
    "kind, kill",
    [
        ("dppo", kill_in_update),
        ("dppo", kill_in_save),
        ("dppo, K' < K", kill_in_update),
        ("bc", kill_in_update),
        ("bc", kill_in_save),
    ],
)
def test_killed_and_resumed_equals_uninterrupted(
    kind, kill, dppo_config, bc_config, read_command, tmp_path, monkeypatch
):
    make = bc_config if kind == "bc" else dppo_config
    options = {"algorithm": FINETUNED} if kind == "dppo, K' < K" else {}
    Trainer(make(output_dir=tmp_path / "whole", **options)).train()
    trainer = Trainer(make(output_dir=tmp_path / "killed", **options))
    with monkeypatch.context() as patch:
        kill(trainer, patch)
        with pytest.raises(Killed):
            trainer.train()
    assert last_checkpoint(tmp_path / "killed").name == "000002"
    left = (tmp_path / "killed/checkpoints/.partial.000004").is_dir()
    assert left == (kill is kill_in_save)
    (tmp_path / "killed/checkpoints/.partial.000003").mkdir()  # of an earlier kill
    (tmp_path / "killed/pictures").mkdir(exist_ok=True)
    (tmp_path / "killed/pictures/.partial.learning_curve.png").touch()
    torch.manual_seed(5)  # a new process has another random state

    Trainer(read_command(f"--resume={tmp_path / 'killed'}")).train()

    whole, resumed = (last_checkpoint(tmp_path / name) for name in ("whole", "killed"))
    assert whole.name == resumed.name == "000004"
    expected, found = contents(whole), contents(resumed)
    assert sorted(expected) == sorted(found)
    for name in expected:
        assert expected[name] == found[name], name
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "killed")
    assert not list((tmp_path / "killed").rglob(".partial*"))


def test_more_iterations_on_resume(dppo_config, read_command, tmp_path):
    Trainer(dppo_config(output_dir=tmp_path / "six", iterations=6)).train()
    Trainer(dppo_config(output_dir=tmp_path / "four")).train()
    with pytest.raises(UserError, match=r"iterations=3, .* already at iteration 4"):
        Trainer(read_command(f"--resume={tmp_path / 'four'}", "--iterations=3"))
    Trainer(read_command(f"--resume={tmp_path / 'four'}", "--iterations=6")).train()
    whole, resumed = (contents(last_checkpoint(tmp_path / name)) for name in ("six", "four"))
    assert whole == resumed
    assert metrics(tmp_path / "six", "train") == metrics(tmp_path / "four", "train")


def test_ctrl_c_finishes_the_iteration_and_saves(dppo_config, read_command, tmp_path, monkeypatch):
    config = dppo_config(save_freq=0, iterations=2)
    trainer = Trainer(config)
    collect = trainer.runner.collect

    def interrupted(*args):
        os.kill(os.getpid(), signal.SIGINT)
        return collect(*args)

    monkeypatch.setattr(trainer.runner, "collect", interrupted)
    with pytest.raises(
        Interrupted, match=rf"iteration 1.*\n  lerobot-rlft-train --resume={config.output_dir}"
    ):
        trainer.train()
    assert [line["iteration"] for line in metrics(config.output_dir, "train")] == [1]
    Trainer(read_command(f"--resume={config.output_dir}")).train()
    Trainer(dppo_config(save_freq=0, iterations=2, output_dir=tmp_path / "whole")).train()
    assert contents(last_checkpoint(config.output_dir)) == contents(last_checkpoint(tmp_path / "whole"))
    assert metrics(config.output_dir) == metrics(tmp_path / "whole")


def test_a_second_signal_stops_at_once(dppo_config, monkeypatch):
    trainer = Trainer(dppo_config())

    def impatient(*args):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the second one did not stop")

    monkeypatch.setattr(trainer.runner, "collect", impatient)
    with pytest.raises(Interrupted, match="No checkpoint was written yet"):
        trainer.train()


@pytest.fixture
def finished(dppo_config, tmp_path, base_policy):
    """A run of one iteration, and its base. The iteration is run once for all tests, and then copied."""
    made = base_policy.parent / "finished"
    if not made.exists():
        Trainer(dppo_config(iterations=1, output_dir=made)).train()
    shutil.copytree(made, tmp_path / "run", symlinks=True)
    return tmp_path / "run", base_policy


def test_a_base_that_moved_or_was_replaced(dppo_config, read_command, tmp_path):
    base, elsewhere = save_policy(tmp_path / "base"), tmp_path / "elsewhere"
    run = tmp_path / "run"
    Trainer(dppo_config(policy=base, pretrained_path=base, iterations=1)).train()
    base.rename(elsewhere)
    with pytest.raises(UserError, match=rf"base policy .* {base}: .*--policy.pretrained_path=FOLDER"):
        Trainer(read_command(f"--resume={run}"))
    trainer = Trainer(read_command(f"--resume={run}", f"--policy.pretrained_path={elsewhere}"))
    assert trainer.iteration == 1
    shutil.copytree(run / "checkpoints/last/pretrained_model", base)
    with pytest.raises(UserError, match="not the one this run began with"):
        Trainer(read_command(f"--resume={run}"))


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda last: shutil.rmtree(last.parent), "not the folder of a run"),
        (lambda last: shutil.rmtree(last), "no whole checkpoint"),
        (lambda last: shutil.rmtree(last / "training_state"), "missing or truncated"),
        (lambda last: truncate(last / "training_state/state.safetensors"), "missing or truncated"),
        (lambda last: truncate(last / "training_state/state.json"), "missing or truncated"),
        (lambda last: truncate(last / "training_state/rng_state.safetensors"), "missing or truncated"),
        (
            lambda last: truncate(last / "pretrained_model/model.safetensors"),
            "damaged .*not a whole checkpoint",
        ),
        (
            lambda last: (last / "pretrained_model/policy_preprocessor.json").unlink(),
            "damaged .*lacks policy_pre",
        ),
        (
            lambda last: other_type(last / "pretrained_model/config.json"),
            "type multi_task_dit instead of diffusion",
        ),
        (lambda last: save_policy(last / "pretrained_model", down_dims=(16,)), "does not belong to this run"),
    ],
)
def test_a_damaged_run_is_not_resumed(damage, message, finished, read_command):
    run, _ = finished
    damage(last_checkpoint(run))
    before = sorted(run.rglob("*"))
    with pytest.raises(UserError, match=message):
        Trainer(read_command(f"--resume={run}"))
    assert sorted(run.rglob("*")) == before


def truncate(file):
    file.write_bytes(file.read_bytes()[:-20])


def other_type(file):
    file.write_text('{"type": "multi_task_dit"}')


def test_options_that_do_not_fit_a_resume(finished, read_command):
    run, base = finished
    with pytest.raises(UserError, match=r"iterations=0 must be at least 1"):
        read_command(f"--resume={run}", "--iterations=0")
    with pytest.raises(UserError, match=r"--policy.path does not go with --resume"):
        read_command(f"--resume={run}", f"--policy.path={base}")
    with pytest.raises(UserError, match=r"--output_dir does not go with --resume"):
        read_command(f"--resume={run}", "--output_dir=x")
    with pytest.raises(UserError, match=r"--env.lag=0.1 does not go with .*has env.lag=0.25, and another"):
        read_command(f"--resume={run}", "--env.lag=0.1")
    assert read_command(f"--resume={run}", "--env.lag=0.25").env.lag == 0.25
    with pytest.raises(UserError, match="does not fit the configuration"):
        Trainer(read_command(f"--resume={run}", "--algorithm.critic_hidden_dims=[4]"))
    with pytest.raises(UserError, match="not the folder of a run"):
        read_command("--resume=nowhere")


def test_a_checkpoint_without_its_link_is_found(dppo_config, tmp_path):
    config = dppo_config(iterations=12)
    config.output_dir.mkdir()
    for iteration in (2, 10):
        save_checkpoint(config, iteration, lambda folder: folder.mkdir(), {})
    (tmp_path / "run/checkpoints/last").unlink()
    assert last_checkpoint(tmp_path / "run").name == "000010"


def test_a_run_named_by_a_relative_path_stays_relative(dppo_config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = dppo_config(output_dir=Path("run"))
    config.output_dir.mkdir()
    save_checkpoint(config, 2, lambda folder: folder.mkdir(), {})
    assert last_checkpoint(Path("run")) == Path("run/checkpoints/000002")


def test_wandb_that_cannot_go_on(finished, read_command, monkeypatch, capsys):
    """A run that did not log has nothing to continue; it goes on all the same."""
    run, _ = finished
    monkeypatch.delenv("WANDB_MODE", raising=False)
    Trainer(
        read_command(f"--resume={run}", "--iterations=2", "--tracker=wandb", "--wandb.mode=offline")
    ).train()
    assert [line["iteration"] for line in metrics(run, "train")] == [1, 2]
    assert capsys.readouterr().out.count("warning: wandb failed") == 1


def test_a_resume_continues_its_run_of_wandb(dppo_config, read_command):
    config = dppo_config(iterations=1)
    trainer = Trainer(config)
    config.wandb.run_id = "abc"  # as wandb sets it when it starts
    trainer.train()
    assert Trainer(read_command(f"--resume={config.output_dir}")).config.wandb.run_id == "abc"


def test_state_comes_back_as_it_was(dppo_config):
    (config := dppo_config()).output_dir.mkdir()
    state = {
        "nested": [{"weight": torch.arange(3.0)}, {"dtype": torch.tensor([1, 2])}],
        "by_index": {0: torch.zeros(2, 2, dtype=torch.bfloat16), 11: 1.5},
        "plain": [None, True, "text", 0.1, 2],
    }
    folder = save_checkpoint(config, 1, lambda folder: folder.mkdir(), state)
    torch.manual_seed(3)
    loaded = load_state(folder)
    assert torch.equal(loaded["nested"][0]["weight"], torch.arange(3.0))
    assert loaded["nested"][1]["dtype"].dtype == torch.int64
    assert loaded["by_index"][0].dtype == torch.bfloat16 and loaded["by_index"][11] == 1.5
    assert loaded["plain"] == state["plain"]


def test_the_random_state_comes_back(dppo_config):
    (config := dppo_config()).output_dir.mkdir()
    folder = save_checkpoint(config, 1, lambda folder: folder.mkdir(), {})
    expected = torch.rand(3)
    load_state(folder)
    assert torch.equal(torch.rand(3), expected)


def test_two_processes_do_not_run_in_one_folder(finished, read_command):
    run, _ = finished
    first, second = (Trainer(read_command(f"--resume={run}", "--iterations=2")) for _ in range(2))
    first.begin_folder(first.log_bytes, exist_ok=True)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=rf"another process is running {run}"):
        second.train()
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    first.close()
    assert not (run / ".lock").exists()
    (run / ".lock").touch()  # of a process that was killed
    first.begin_folder(first.log_bytes, exist_ok=True)
    first.close()


def test_a_folder_that_is_renamed_while_it_runs(finished, read_command, tmp_path, monkeypatch):
    run, _ = finished
    trainer = Trainer(read_command(f"--resume={run}", "--iterations=2"))
    monkeypatch.setattr(trainer, "_iterate", lambda: run.rename(tmp_path / "elsewhere"))
    monkeypatch.setattr(trainer, "_due", lambda every: True)
    with pytest.raises(StorageFailure, match=r"run is gone, it was renamed or deleted .*--resume=FOLDER"):
        trainer.train()
    assert not run.exists()


def test_a_checkpoint_for_which_there_is_no_room(finished, read_command, monkeypatch):
    run, _ = finished
    trainer = Trainer(read_command(f"--resume={run}", "--iterations=2"))

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint_module, "save_file", full)
    with pytest.raises(
        StorageFailure, match=rf"000002 cannot be written (?s:.)*No space (?s:.)*--resume={run}"
    ):
        trainer.train()
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["000001", "last"]


@pytest.mark.parametrize("name", ["algorithm", "iteration", "env_steps", "seconds", "metrics_bytes"])
@pytest.mark.parametrize("value", [None, "text", []])
def test_a_state_of_another_kind(name, value, tmp_path, monkeypatch):
    state = {"algorithm": {}, "iteration": 1, "env_steps": 1, "seconds": 1.0, "metrics_bytes": 1}
    monkeypatch.setattr(training_state, "load_state", lambda checkpoint: state | {name: value})
    with pytest.raises(UserError, match=rf"state\.json is damaged, {name} is"):
        training_state.load_training(SimpleNamespace(config=None), tmp_path)
