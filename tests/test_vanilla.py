"""What a run leaves is an ordinary LeRobot policy: it runs, with the same actions, without this package."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.envs.configs import PushtEnv
from tiny import TINY, save_policy

from lerobot_rlft.envs.options import eval_command
from lerobot_rlft.training.checkpoint import last_checkpoint
from lerobot_rlft.training.trainer import Trainer
from lerobot_rlft.training.training_state import save_training

STOCK = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("lerobot_rlft", "lerobot_policy_rlft"):
            raise ModuleNotFoundError(f"No module named {name!r}")

sys.meta_path.insert(0, Absent())
for name in ("lerobot_rlft", "lerobot_policy_rlft"):
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    sys.exit(f"{name} is importable")

import numpy as np
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.envs.utils import preprocess_observation
from lerobot.policies import make_pre_post_processors
from lerobot.policies.factory import get_policy_class

folder, recorded = sys.argv[1:3]
config = PreTrainedConfig.from_pretrained(folder)
policy = get_policy_class(config.type).from_pretrained(folder)
preprocessor, postprocessor = make_pre_post_processors(config, folder)
data = np.load(recorded)
torch.manual_seed(3)
policy.reset()
for agent_pos, environment_state, action in \
zip(data["agent_pos"], data["environment_state"], data["action"], strict=True):
    obs = preprocess_observation({"agent_pos": agent_pos, "environment_state": environment_state})
    found = postprocessor(policy.select_action(preprocessor(obs))).numpy()
    assert np.array_equal(found, action), np.abs(found - action).max()
assert len(data["action"]) > config.n_action_steps

from lerobot.scripts import lerobot_eval
sys.argv = ["lerobot-eval", *sys.argv[3:]]
lerobot_eval.main()
assert "lerobot_rlft" not in sys.modules and "lerobot_policy_rlft" not in sys.modules
"""


@pytest.mark.slow
def test_a_checkpoint_runs_without_this_package(dppo_config, tmp_path, monkeypatch):
    monkeypatch.setattr("lerobot_rlft.training.evaluator.draw_trajectories", lambda *args: None)
    base = save_policy(
        tmp_path / "base", {"observation.state": 2, "observation.environment_state": 16}, reach=100.0
    )
    env = PushtEnv(obs_type="environment_state_agent_pos", episode_length=7)
    config = dppo_config(policy=base, pretrained_path=base, env=env, iterations=1)
    trainer = Trainer(config)
    trainer.train()
    folder = last_checkpoint(config.output_dir) / "pretrained_model"
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} == {".safetensors", ".json", ".yaml"}

    # The deployed path of the policy in memory, in two environments.
    trainer = Trainer(
        dppo_config(policy=folder, pretrained_path=folder, env=env, output_dir=tmp_path / "other")
    )
    vector, seen, sent = trainer.tester.env, [], []
    step, reset = vector.step, vector.reset

    def recorded_reset(**options):
        seen.append(reset(**options)[0])
        return seen[-1], {}

    def recorded_step(action):
        sent.append(action.copy())
        result = step(action)
        seen.append(result[0])
        return result

    monkeypatch.setattr(vector, "reset", recorded_reset)
    monkeypatch.setattr(vector, "step", recorded_step)
    torch.manual_seed(3)
    trainer.tester.evaluate(2, np.arange(2), trainer.tester.deployed)
    trainer.close()
    observations = {key: np.stack([obs[key] for obs in seen[:-1]]) for key in seen[0]}
    np.savez(tmp_path / "recorded.npz", action=np.stack(sent), **observations)

    # The command that the run itself recommends.
    command = eval_command(folder, env).split()[1:]
    changes = [
        "--eval.n_episodes=2",
        "--eval.batch_size=2",
        f"--output_dir={tmp_path / 'eval'}",
        "--policy.device=cpu",
    ]
    result = subprocess.run(
        [sys.executable, "-c", STOCK, folder, tmp_path / "recorded.npz", *command, *changes],
        capture_output=True, text=True, timeout=300, cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    info = json.loads((tmp_path / "eval/eval_info.json").read_text())
    assert info["overall"]["n_episodes"] == 2


def test_the_tuned_sampler_is_part_of_the_checkpoint(dppo_config, tmp_path):
    """A base that leaves its number of steps to the training schedule, run with fewer on request."""
    base = save_policy(tmp_path / "base", num_train_timesteps=6, noise_scheduler_type="DDIM")
    config = dppo_config(policy=base, pretrained_path=base, iterations=1)
    config.policy.num_inference_steps = 2
    trainer = Trainer(config)
    trainer.iteration = 1
    config.output_dir.mkdir()
    save_training(trainer)
    trainer.close()
    saved = PreTrainedConfig.from_pretrained(last_checkpoint(config.output_dir) / "pretrained_model")
    assert saved.num_inference_steps == 2 and saved.noise_scheduler_type == "DDIM"
    assert PreTrainedConfig.from_pretrained(base).num_inference_steps is None


@pytest.mark.parametrize("ema", [None, 0.5])
def test_cloned_weights_are_exported_as_evaluated(ema, bc_config):
    config = bc_config(iterations=2)
    config.algorithm.ema_decay = ema
    config.policy.scheduler_warmup_steps = 0
    config.policy.optimizer_lr = 0.01
    trainer = Trainer(config)
    trainer.train()
    saved = Path(config.output_dir) / "checkpoints/last/pretrained_model"
    loaded = type(trainer.policy.module).from_pretrained(saved)
    trained = list(trainer.policy.module.parameters())
    expected = trained if ema is None else trainer.algorithm.ema.values
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), expected, strict=True))
    assert ema is None or not all(torch.equal(a, b) for a, b in zip(trained, expected, strict=True))
    assert TINY["horizon"] == loaded.config.horizon
