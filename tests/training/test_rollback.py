"""A run goes back to its best checkpoint where the deployed policy fell, and nowhere else."""

import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from lerobot_rlft.configs.train import GuardConfig
from lerobot_rlft.metrics.modes import wilson_interval
from lerobot_rlft.rollout.evaluation import Evaluation
from lerobot_rlft.training.rollback import Rollback
from lerobot_rlft.training.trainer import Trainer


def result(successes, count=100, modes=None):
    ci = wilson_interval(successes, count)
    return Evaluation(count, successes / count, ci, 0.0, 0.0, 8.0, mode_counts=modes)


def watching(base, guard=None):
    config = SimpleNamespace(
        rollback=True, guard=guard or GuardConfig(), algorithm=SimpleNamespace(consumes="rollouts")
    )
    rollback = Rollback(config, None, None)
    rollback.begin(base)
    rollback.returned = []
    rollback._return = lambda iteration, result: rollback.returned.append(iteration)
    return rollback


def test_only_a_fall_beyond_the_intervals_returns_and_only_a_rise_is_the_best():
    rollback = watching(result(60))  # [.502, .691]
    assert not rollback.watch(1, result(41))  # [.319, .508]: may be the same
    assert rollback.watch(2, result(61)) and rollback.best["iteration"] == 2
    assert not rollback.watch(3, result(61)) and rollback.best["iteration"] == 2
    assert rollback.returned == []
    assert not rollback.watch(4, result(40))  # [.309, .498] lies below [.512, .700]
    assert rollback.returned == [4] and rollback.best["iteration"] == 2


def test_under_a_guard_the_best_keeps_the_modes():
    guard = GuardConfig(enable=True, floor=0.8, metric="effective_modes")
    rollback = watching(result(60, modes=[20, 20, 20]), guard)
    assert not rollback.watch(1, result(99, modes=[99, 0, 0])) and rollback.best["iteration"] == 0
    assert rollback.watch(2, result(90, modes=[50, 20, 20]))


def test_nothing_is_watched_before_a_base_was_seen():
    rollback = watching(result(60))
    rollback.best = {}
    assert not rollback.watch(1, result(0)) and rollback.returned == []


@pytest.fixture
def scripted(monkeypatch):
    """Lets evaluations between iterations read as the script says, beginning with the base."""

    def script(trainer, *successes):
        readings = iter(successes)
        begin = trainer.outcome.begin
        trainer.outcome.begin = lambda *args: (begin(*args), result(next(readings)))[1]
        trainer.outcome.during = lambda iteration, env_steps: result(next(readings))
        return trainer

    return script


def weights(path):
    return load_file(path / "pretrained_model/model.safetensors")


def equal(a, b):
    return all(torch.equal(a[key], b[key]) for key in a)


def rate(trainer):
    return trainer.algorithm.actor_optimizer.param_groups[0]["lr"] / trainer.config.algorithm.actor_lr


def test_a_run_goes_back_to_its_best_checkpoint_and_on_with_smaller_steps(dppo_config, scripted, capsys):
    config = dppo_config(rollback=True, eval_freq=1, save_freq=0, iterations=4)
    trainer = scripted(Trainer(config), 50, 90, 80, 20, 10)
    trainer.train()
    checkpoints = config.output_dir / "checkpoints"
    assert sorted(p.name for p in checkpoints.iterdir()) == ["000000", "000001", "000004", "last"]
    # 90 is the best; 80 may be the same; 20 and 10 are not: the run ends where it was best
    assert equal(weights(checkpoints / "000004"), weights(checkpoints / "000001"))
    assert not equal(weights(checkpoints / "000001"), weights(checkpoints / "000000"))
    assert rate(trainer) == 0.25
    said = capsys.readouterr().out
    assert trainer.rollback.best["iteration"] == 1 and "iteration 3: success fell to 0.200" in said


def test_a_run_that_only_falls_ends_as_its_base(dppo_config, scripted):
    config = dppo_config(rollback=True, eval_freq=2, save_freq=0, iterations=2)
    scripted(Trainer(config), 90, 0).train()
    checkpoints = config.output_dir / "checkpoints"
    assert equal(weights(checkpoints / "000002"), weights(checkpoints / "000000"))


def test_a_resume_keeps_the_best_and_the_smaller_steps(dppo_config, scripted, read_command):
    config = dppo_config(rollback=True, eval_freq=1, save_freq=1, iterations=2)
    scripted(Trainer(config), 50, 90, 20).train()
    again = Trainer(read_command(f"--resume={config.output_dir}", "--iterations=3"))
    assert rate(again) == 0.5 and again.rollback.best["iteration"] == 1
    assert again.rollback.base.success == 0.5


def test_it_can_be_left_out(dppo_config, scripted):
    config = dppo_config(rollback=False, eval_freq=1, save_freq=0, iterations=2)
    trainer = scripted(Trainer(config), 90, 0, 0)
    trainer.train()
    names = sorted(p.name for p in (config.output_dir / "checkpoints").iterdir())
    assert names == ["000002", "last"] and rate(trainer) == 1


def test_a_best_checkpoint_that_is_gone_is_said(dppo_config, scripted, capsys):
    config = dppo_config(rollback=True, eval_freq=1, save_freq=0, iterations=2)
    trainer = scripted(Trainer(config), 50, 90, 20)
    watch = trainer.rollback.watch

    def gone(iteration, result):
        if iteration == 2:
            shutil.rmtree(config.output_dir / "checkpoints/000001")
        return watch(iteration, result)

    trainer.rollback.watch = gone
    trainer.train()
    assert "whose checkpoint is not here: the run goes on" in capsys.readouterr().out and rate(trainer) == 1
