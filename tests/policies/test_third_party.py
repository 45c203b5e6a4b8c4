"""A family of somebody else: one adapter file in a package of its own."""

import inspect
import json

import pytest
import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies import make_pre_post_processors
from runs import metrics

from lerobot_rlft.cli import eval as evaluate
from lerobot_rlft.cli import train
from lerobot_rlft.policies.base import adapter_class

pytestmark = pytest.mark.slow

PLUGIN = "--policy.discover_packages_path=somebodys_flow"


@pytest.fixture
def checkpoint(tmp_path):
    """An `mlp_flow` with random weights for Avoiding."""
    from somebodys_flow.configuration_mlp_flow import MLPFlowConfig
    from somebodys_flow.modeling_mlp_flow import MLPFlowPolicy

    config = MLPFlowConfig(
        input_features={"observation.state": PolicyFeature(FeatureType.STATE, (4,))},
        output_features={"action": PolicyFeature(FeatureType.ACTION, (2,))},
        device="cpu",
    )
    torch.manual_seed(0)
    stats = {
        "observation.state": {"mean": torch.zeros(4), "std": torch.ones(4)},
        "action": {"min": torch.full((2,), -0.01), "max": torch.full((2,), 0.01)},
    }
    for part in (MLPFlowPolicy(config), *make_pre_post_processors(config, dataset_stats=stats)):
        part.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def test_the_adapter_is_short():
    from somebodys_flow import rlft_adapter

    assert len(inspect.getsource(rlft_adapter).splitlines()) <= 60
    assert adapter_class("mlp_flow") is rlft_adapter.MLPFlowAdapter


@pytest.mark.parametrize("options", [[], ["--algorithm.flow_noise=head"]])
def test_it_is_tuned_resumed_and_compared_by_name_of_its_package(
    options, checkpoint, read_command, tmp_path, monkeypatch
):
    run = tmp_path / "run"
    arguments = [
        "--algorithm.type=dppo", f"--policy.path={checkpoint}", PLUGIN, "--env.type=avoiding",
        "--env.episode_length=8", "--rollout.n_envs=2", "--rollout.n_episodes=2", "--eval.n_episodes=2",
        "--eval.batch_size=2", "--eval.n_videos=0", "--algorithm.critic_hidden_dims=[8]",
        f"--output_dir={run}",
    ]  # fmt: skip
    train.run(read_command(*arguments, *options, "--iterations=1"))
    train.run(read_command(f"--resume={run}", PLUGIN, "--iterations=2"))
    lines = metrics(run, "train")
    assert [line["iteration"] for line in lines] == [1, 2]
    assert max(line["first_ratio_error"] for line in lines) <= 1e-4
    assert all(line["kl_to_base"] > 0 for line in lines)
    tuned, report = run / "checkpoints/last/pretrained_model", tmp_path / "report"
    arguments = [
        f"--policy.path={tuned}", PLUGIN, "--env.type=avoiding", "--env.episode_length=8", "--n_episodes=4",
        "--batch_size=4", "--n_initial_states=0", "--n_attempts=0", f"--output_dir={report}",
    ]  # fmt: skip
    monkeypatch.setattr("sys.argv", ["lerobot-rlft-eval", *arguments])
    evaluate.main()
    assert json.loads((report / "diversity.json").read_text())["base"] == str(checkpoint)
    files = {path.name for path in (run / "checkpoints/last/pretrained_model").iterdir()}
    assert "config.json" in files and "model.safetensors" in files
