"""A run from the base to the summary, and what it says when it cannot go on."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from runs import Killed, metrics

from lerobot_rlft.configs.train import EvalConfig
from lerobot_rlft.envs.avoiding.avoiding import AvoidingVectorEnv
from lerobot_rlft.training import evaluator as outcome
from lerobot_rlft.training import setup
from lerobot_rlft.training.footprint import size_text
from lerobot_rlft.training.trainer import Trainer
from lerobot_rlft.utils.errors import EnvironmentFailure, RatioError, UserError


@pytest.fixture
def no_pictures(monkeypatch):
    for name in (
        "training.evaluator.draw_trajectories",
        "training.evaluator.draw_learning_curve",
        "training.monitor.draw_kl",
    ):
        monkeypatch.setattr(f"lerobot_rlft.{name}", lambda *args: None)


def test_a_run_leaves_what_it_promises(dppo_config, monkeypatch, capsys):
    filmed = []
    monkeypatch.setattr(
        outcome, "film", lambda runner, seed, path: filmed.append((runner.policy, seed, path.name))
    )
    evaluated, play, play_chunks = [], outcome.play, outcome.play_chunks

    def deployed(runner, n_episodes, seed):
        evaluated.append((runner.policy, n_episodes, seed, "deployed"))
        return play(runner, n_episodes, seed)

    def exploring(runner, act, n_episodes, seed):
        evaluated.append((runner.policy, n_episodes, seed, "exploratory"))
        return play_chunks(runner, act, n_episodes, seed)

    monkeypatch.setattr(outcome, "play", deployed)
    monkeypatch.setattr(outcome, "play_chunks", exploring)
    config = dppo_config(
        iterations=3, eval=EvalConfig(n_episodes=3, n_episodes_during=2, batch_size=2, n_videos=1, seed=9)
    )
    trainer = Trainer(config)
    base_weights = [p.clone() for p in trainer.policy.module.parameters()]
    trainer.train()
    run = config.output_dir
    assert sorted(path.name for path in run.iterdir()) == [
        "checkpoints", "diversity", "metrics.jsonl", "pictures", "rlft_config.yaml", "summary.json"
    ]  # fmt: skip
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["000002", "000003", "last"]
    assert sorted(path.name for path in (run / "pictures").iterdir()) == [
        "kl.png", "learning_curve.png", "trajectories.png"
    ]  # fmt: skip

    # The base both ways, the run so far, the tuned policy. What chooses is not what is reported.
    policies, counts, seeds, samplers = zip(*evaluated, strict=True)
    assert counts == (3, 2, 2, 3) and seeds == (9, 9, 500_009, 9)
    assert samplers == ("deployed", "exploratory", "deployed", "deployed")
    assert policies[:3] == (trainer.policy,) * 3
    tuned = policies[3]
    assert tuned is not trainer.policy, "read back from disk"
    for now, old, on_disk in zip(
        trainer.policy.module.parameters(), base_weights, tuned.module.parameters(), strict=True
    ):
        assert torch.equal(now, on_disk)
        assert not torch.equal(now, old) or now.numel() == 1
    assert filmed == [(trainer.policy, 9, "base.mp4"), (tuned, 9, "tuned.mp4")]

    lines = metrics(run)
    kinds = [(line["kind"], line["iteration"], line.get("sampler"), line.get("reloaded")) for line in lines]
    assert kinds == [
        ("eval", 0, "deployed", None),
        ("eval", 0, "exploratory", None),
        ("train", 1, None, None),
        ("train", 2, None, None),
        ("eval", 2, "deployed", None),
        ("train", 3, None, None),
        ("eval", 3, "deployed", True),
    ]
    assert [line["env_steps"] for line in lines] == [0, 0, 32, 64, 64, 96, 96]
    for line in lines:
        if line["kind"] == "train":
            assert line["first_ratio_error"] < 1e-5 and line["kl_to_base"] > 0
            assert {"success", "return", "policy_loss", "value_loss", "clip_fraction"} <= line.keys()
    summary = json.loads((run / "summary.json").read_text())
    assert summary["env_steps"] == 96 and summary["seconds"] > 0
    assert summary["tuned"].items() <= lines[-1].items()
    assert summary["base"].items() <= lines[0].items() and summary["base"].keys() == summary["tuned"].keys()
    said = capsys.readouterr()
    assert "before" in said.out and "after 96 environment steps" in said.out
    command = f"lerobot-eval --policy.path={summary['policy']} --env.type=avoiding --env.episode_length=8"
    assert command in said.out
    for word in ("success", "return", "KL", "clip", "steps/s"):
        assert word in said.err  # the progress bar


def test_a_resume_with_other_evaluations_compares_on_the_same_episodes(dppo_config, no_pictures, capsys):
    """More episodes, other seeds, fewer denoising steps: the base of the report plays as the tuned policy."""
    config = dppo_config(iterations=1)
    Trainer(config).train()
    first = metrics(config.output_dir, "eval")[0]
    config.resume, config.iterations = config.output_dir, 2
    config.eval.n_episodes, config.eval.seed, config.policy.num_inference_steps = 5, 77, 2
    resumed = Trainer(config)
    played = resumed.outcome._compare(resumed.base)[0].to_dict()
    resumed.train()
    summary = json.loads((config.output_dir / "summary.json").read_text())
    assert summary["base"] == json.loads(json.dumps(played)) and summary["seed"] == 77
    assert summary["base"]["n_episodes"] == summary["tuned"]["n_episodes"] == 5 != first["n_episodes"]
    assert resumed.base.kernel.num_steps == 2
    assert "(5 episodes each" in capsys.readouterr().out


def test_behaviour_cloning_without_an_environment(bc_config, capsys):
    config = bc_config()
    Trainer(config).train()
    lines = metrics(config.output_dir)
    assert [(line["kind"], line["iteration"]) for line in lines] == [("train", i) for i in (1, 2, 3, 4)]
    assert all({"loss", "grad_norm", "lr"} <= line.keys() for line in lines)
    assert not (config.output_dir / "summary.json").exists()
    assert str(config.output_dir / "checkpoints/000004/pretrained_model") in capsys.readouterr().out


def test_a_run_without_lines_of_metrics_is_saved(bc_config):
    config = bc_config(log_freq=0, iterations=1)
    Trainer(config).train()
    assert (config.output_dir / "checkpoints/last/pretrained_model").is_dir()
    assert not (config.output_dir / "metrics.jsonl").exists()


@pytest.mark.parametrize("when", [0, 3])
@pytest.mark.parametrize("what", ["raises", "reward", "observation"])
def test_a_failing_environment(what, when, dppo_config, monkeypatch, no_pictures):
    """At the evaluation of the base, when there is nothing to go on from, and in iteration 3."""
    config = dppo_config()
    trainer, step = Trainer(config), AvoidingVectorEnv.step

    def failing(env, actions):
        obs, reward, *rest = step(env, actions)
        if trainer.iteration == max(when - 1, 0) and env is (trainer.runner if when else trainer.tester).env:
            if what == "raises":
                raise RuntimeError("the simulator crashed")
            if what == "reward":
                reward[1] = np.inf
            else:
                obs["agent_pos"][1] = np.nan
        return obs, reward, *rest

    monkeypatch.setattr(AvoidingVectorEnv, "step", failing)
    problem = {
        "raises": "raised RuntimeError in step .: the simulator crashed",
        "reward": r"reward inf \(env 1, step 1 of its episode\)",
        "observation": "NaN or inf in observation.state",
    }[what]
    where = "iteration 3" if when else "evaluation of the base"
    with pytest.raises(EnvironmentFailure, match=rf"^{where}: .*{problem}") as caught:
        trainer.train()
    message = str(caught.value)
    if when:
        way_on = f"iteration 2 is whole; continue with\n  lerobot-rlft-train --resume={config.output_dir}"
        assert message.endswith(way_on)
        assert [line["iteration"] for line in metrics(config.output_dir, "train")] == [1, 2]
    else:
        assert message.endswith(f"No checkpoint was written yet: delete {config.output_dir} and start again")


def test_a_loss_that_is_nan(bc_config, monkeypatch):
    config = bc_config()
    trainer = Trainer(config)
    forward = trainer.policy.module.forward
    monkeypatch.setattr(
        trainer.policy.module,
        "forward",
        lambda batch: (forward(batch)[0] * (np.nan if trainer.iteration == 2 else 1), {}),
    )
    with pytest.raises(FloatingPointError, match=rf"(?s)^iteration 3: .*nan.*--resume={config.output_dir}"):
        trainer.train()
    assert all(p.isfinite().all() for p in trainer.policy.module.parameters())


def test_a_policy_whose_probabilities_disagree(dppo_config, monkeypatch):
    config = dppo_config(save_freq=1)
    trainer = Trainer(config)
    update = trainer.algorithm.update

    def disagrees(data):
        if trainer.iteration == 1:
            raise RatioError("the first ratio is 1.2")
        return update(data)

    monkeypatch.setattr(trainer.algorithm, "update", disagrees)
    with pytest.raises(RatioError, match=rf"(?s)^iteration 2: the first .*--resume={config.output_dir}"):
        trainer.train()


def test_an_environment_that_cannot_be_rendered_costs_the_videos_only(
    dppo_config, monkeypatch, no_pictures, capsys
):
    calls = []

    def broken(env):
        calls.append(1)
        raise RuntimeError("no display")

    monkeypatch.setattr(AvoidingVectorEnv, "render", broken)
    config = dppo_config(iterations=1, eval=EvalConfig(n_episodes=2, n_episodes_during=2, n_videos=1))
    Trainer(config).train()
    assert (config.output_dir / "summary.json").is_file() and not (config.output_dir / "videos").exists()
    said = capsys.readouterr()
    warning = "warning: no videos, the environment could not be filmed (RuntimeError: no display)"
    assert (said.out + said.err).count(warning) == len(calls) == 1
    assert "Run it with stock LeRobot" in said.out


def test_the_last_videos_come_after_everything_else(dppo_config, monkeypatch, capsys):
    """They may take long, or fail."""
    config = dppo_config(iterations=1, eval=EvalConfig(n_episodes=2, n_episodes_during=2, n_videos=1))
    said = {}

    def filmed(runner, seed, path):
        done = (config.output_dir / "pictures/learning_curve.png").exists()
        said[path.name] = done and "Run it with stock LeRobot" in capsys.readouterr().out

    monkeypatch.setattr(outcome, "film", filmed)
    monkeypatch.setattr(outcome, "draw_trajectories", lambda *args: None)
    Trainer(config).train()
    assert said == {"base.mp4": False, "tuned.mp4": True}


def test_losses_are_not_scaled_for_half_precision(dppo_config, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    AcceleratorState._reset_state()
    try:
        assert Trainer(dppo_config()).accelerator.mixed_precision == "no"
    finally:
        AcceleratorState._reset_state()


def test_several_processes_are_refused(dppo_config, monkeypatch):
    monkeypatch.setattr(setup, "Accelerator", lambda **options: SimpleNamespace(num_processes=2))
    with pytest.raises(UserError, match="2 processes: several processes are not supported yet, launch one"):
        Trainer(dppo_config())


def test_a_folder_that_appeared_meanwhile_is_left_alone(dppo_config):
    config = dppo_config()
    trainer = Trainer(config)
    config.output_dir.mkdir()
    with pytest.raises(UserError, match=rf"--output_dir={config.output_dir} exists"):
        trainer.train()
    assert list(config.output_dir.iterdir()) == []


def test_environments_are_closed_whatever_happens(dppo_config, monkeypatch):
    trainer = Trainer(dppo_config())

    def killed(*args):
        raise Killed

    monkeypatch.setattr(trainer.algorithm, "update", killed)
    with pytest.raises(Killed):
        trainer.train()
    assert trainer.runner.env.closed and trainer.tester.env.closed


def test_a_dry_run_is_tiny_and_writes_nothing(dppo_config, bc_config, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = dppo_config(dry_run=True)
    config.rollout.n_envs, config.rollout.n_episodes, config.env.episode_length = 50, 100, 150
    trainer = Trainer(config)
    assert trainer.runner.env.num_envs == trainer.tester.env.num_envs == 2
    trainer.dry_run()
    said = capsys.readouterr().out
    count = sum(p.numel() for p in trainer.policy.module.parameters())
    assert f"{count:,} trainable and 0 frozen parameters" in said
    assert "3 denoising steps (DDPMKernel), chunks of 4 actions, 3 executed" in said
    assert "100 episodes in 50 environments, at most 15,000 env steps and 5,000 decisions" in said
    # A decision: observations 2 (4 + 9), chain 4 x 4 x 2 and log-probs 3, 4 bytes each.
    stored = 5000 * 4 * (26 + 32 + 3)
    assert f"observations and chains of an iteration {size_text(stored)}" in said
    assert f"gradients {size_text(4 * count)}, Adam {size_text(12 * count)}" in said
    assert "activations of a minibatch of" in said and "activations are not counted" not in said
    assert "an iteration takes at most" in said and "if every episode lasts 150 steps" in said
    assert said.index("memory ") < said.index("kl_to_base") < said.index("time ")
    assert "kl_to_base" in said
    assert f"would write {config.output_dir}/: rlft_config.yaml" in said
    assert trainer.env_steps <= 2 * 2 * 3
    Trainer(bc_config(dry_run=True)).dry_run()
    assert "40 frames, 40 windows" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_an_output_folder_that_cannot_be_made(dppo_config, tmp_path):
    (tmp_path / "file").touch()
    trainer = Trainer(dppo_config(output_dir=tmp_path / "file/run"))
    with pytest.raises(UserError, match="cannot be made"):
        trainer.train()


@pytest.mark.gpu
def test_a_run_on_cuda(dppo_config, no_pictures):
    """Chains sampled on the accelerator have ratio 1 there, and the policy is saved for any device."""
    config = dppo_config(iterations=2)
    config.policy.device = "cuda"
    trainer = Trainer(config)
    before = [p.detach().clone() for p in trainer.policy.module.parameters()]
    assert {p.device.type for p in before} == {"cuda"}
    trainer.train()
    after = list(trainer.policy.module.parameters())
    assert all(p.isfinite().all() for p in after)
    assert not all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    updates = metrics(config.output_dir, "train")
    assert len(updates) == 2 and all(line["first_ratio_error"] <= 1e-4 for line in updates)
    saved = config.output_dir / "checkpoints/last/pretrained_model"
    loaded = type(trainer.policy.module).from_pretrained(saved)
    assert all(torch.equal(a.cpu(), b.cpu()) for a, b in zip(after, loaded.parameters(), strict=True))
