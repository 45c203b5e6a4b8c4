"""Collect, update, evaluate, save, reload: whole runs of tiny vision-language-action policies on pictures."""

import json

import pytest
import torch
import vlas
from camera import TASK, CameraEnvConfig
from families import observations, vla
from lerobot.configs import PreTrainedConfig
from lerobot.configs.default import PeftConfig
from lerobot.policies import make_pre_post_processors
from lerobot.policies.factory import get_policy_class
from runs import metrics
from safetensors.torch import load_file

from lerobot_rlft.algorithms.dppo import DPPOConfig
from lerobot_rlft.configs.train import EvalConfig, RolloutConfig, TrainConfig, load_policy_config
from lerobot_rlft.regularizers.kl_base import KLBaseConfig
from lerobot_rlft.training.checkpoint import last_checkpoint
from lerobot_rlft.training.trainer import Trainer

pytestmark = pytest.mark.slow


@pytest.fixture
def run(tmp_path):
    """Makes the trainer of a run of seconds and its base."""

    def make(kind: str, **fields) -> tuple[Trainer, object]:
        base = vla(kind)
        folder = tmp_path / "base"
        base.save_pretrained(folder)
        policy = load_policy_config(str(folder), [])
        policy.pretrained_path = folder
        defaults = {
            "algorithm": DPPOConfig(
                update_epochs=1,
                minibatch_size=16,
                critic_hidden_dims=(8,),
                noise_level=0.5,
                regularizers=[KLBaseConfig(coef=0.01)],
            ),
            "env": CameraEnvConfig(),
            "rollout": RolloutConfig(n_envs=2, n_episodes=4, n_reference=2),
            "eval": EvalConfig(n_episodes=2, n_episodes_during=2, batch_size=2, n_videos=0),
            "iterations": 2,
            "eval_freq": 1,
            "save_freq": 1,
            "output_dir": tmp_path / "run",
        }
        config = TrainConfig(policy=policy, **(defaults | fields))
        config.resolve()
        return Trainer(config), base

    return make


@pytest.mark.parametrize("kind", ["pi0", "pi05", "smolvla"])
def test_a_whole_run(kind, run, tmp_path):
    trainer, base = run(kind)
    trainer.train()
    train = metrics(tmp_path / "run", "train")
    assert len(train) == 2 and all(line["first_ratio_error"] <= 1e-4 for line in train)
    assert train[-1]["kl_to_base"] > 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["tuned"]["n_episodes"] == 2
    folder = last_checkpoint(tmp_path / "run") / "pretrained_model"
    names = {p.name for p in folder.iterdir()}
    assert {"config.json", "model.safetensors", "policy_preprocessor.json"} <= names
    # The language model is the base's, the expert is not.
    old, new = (load_file(path / "model.safetensors") for path in (tmp_path / "base", folder))
    assert old.keys() == new.keys()
    moved = {key for key in old if not torch.equal(old[key], new[key])}
    assert any("action_out_proj" in key for key in moved)
    assert not any("paligemma." in key or ".vlm." in key for key in moved)
    # Stock LeRobot acts the same with it.
    stock = get_policy_class(kind).from_pretrained(folder).eval()
    preprocess, postprocess = make_pre_post_processors(PreTrainedConfig.from_pretrained(folder), str(folder))
    obs = observations(base, 2)
    frame = {k: v[:, 0].float() / 255 if v.dtype == torch.uint8 else v[:, 0] for k, v in obs.items()}
    torch.manual_seed(1)
    action = postprocess(stock.select_action(preprocess(frame | {"task": [TASK] * 2})))
    torch.manual_seed(1)
    tuned = trainer.policy
    with torch.no_grad():
        mine = tuned.to_action(tuned.deployed_chunk(tuned.encode(obs)))
    assert torch.equal(mine[:, 0], action)


def test_a_resumed_run_ends_like_one_that_was_not_stopped(run, tmp_path):
    trainer, _ = run("pi0", output_dir=tmp_path / "whole")
    trainer.train()
    trainer, _ = run("pi0", output_dir=tmp_path / "run", iterations=1)
    trainer.train()
    config = trainer.config
    config.resume, config.iterations = config.output_dir, 2
    again = Trainer(config)
    assert again.base.task == again.policy.task == TASK
    frozen = [p for p in again.policy.module.parameters() if not p.requires_grad]
    shared = {p.data_ptr() for p in again.base.module.parameters()}
    assert frozen and all(p.data_ptr() in shared for p in frozen)
    again.train()
    whole, resumed = (
        load_file(last_checkpoint(tmp_path / name) / "pretrained_model" / "model.safetensors")
        for name in ("whole", "run")
    )
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_a_dry_run_writes_nothing(run, tmp_path, capsys):
    trainer, _ = run("smolvla")
    trainer.dry_run()
    assert not (tmp_path / "run").exists()
    assert "4 denoising steps" in capsys.readouterr().out


def test_a_run_with_adapters_can_be_resumed(run, tmp_path):
    vlas.needs("peft")
    adapters = {"peft": PeftConfig(r=4), "algorithm": DPPOConfig(update_epochs=1, minibatch_size=16)}
    trainer, _ = run("pi0", output_dir=tmp_path / "whole", **adapters)
    trainer.train()
    trainer, _ = run("pi0", output_dir=tmp_path / "run", iterations=1, **adapters)
    trainer.train()
    config = trainer.config
    config.resume, config.iterations = config.output_dir, 2
    Trainer(config).train()
    whole, resumed, base = (
        load_file(folder / "model.safetensors")
        for folder in (
            last_checkpoint(tmp_path / "whole") / "pretrained_model",
            last_checkpoint(tmp_path / "run") / "pretrained_model",
            tmp_path / "base",
        )
    )
    assert whole.keys() == resumed.keys() == base.keys()
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    assert any(not torch.equal(whole[key], base[key]) for key in whole)
