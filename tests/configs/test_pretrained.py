"""A base that lies on the Hub: downloaded, fine-tuned, asked for again by a resume; a stand-in serves it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from mini_hub import MiniHub, serve
from runs import metrics

from lerobot_rlft.configs.pretrained import CHECKPOINT_FILES
from lerobot_rlft.utils.run_folder import CONFIG_NAME

SCRIPT = Path(sys.executable).with_name("lerobot-rlft-train")
TINY_RUN = (
    "--algorithm.type=dppo", "--algorithm.update_epochs=1", "--algorithm.minibatch_size=16",
    "--env.type=avoiding", "--env.episode_length=8", "--rollout.n_envs=2", "--rollout.n_episodes=4",
    "--eval.n_episodes=2", "--eval.n_episodes_during=2", "--eval.n_videos=0",
)  # fmt: skip


@pytest.fixture
def hub(base_policy, tmp_path):
    """Serves the tiny policy as user/tiny, and as user/half without its preprocessor."""
    shutil.copytree(base_policy, tmp_path / "hub/user/tiny")
    shutil.copytree(
        base_policy, tmp_path / "hub/user/half", ignore=shutil.ignore_patterns("policy_preprocessor.json")
    )
    with serve(tmp_path / "hub") as hub:
        yield hub


def train(hub: MiniHub, home: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run the command in a folder of its own that is also its home, with an empty cache."""
    home.mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING", "WANDB"))}
    environment |= {
        "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(home / "hf"), "HOME": str(home),
        "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    return subprocess.run(
        [SCRIPT, *arguments], capture_output=True, text=True, cwd=home, env=environment, timeout=300
    )


def downloads(hub: MiniHub) -> set[str]:
    return {
        path.rpartition("/")[2] for method, path, status in hub.requests if (method, status) == ("GET", 200)
    }


@pytest.mark.slow
def test_a_base_on_the_hub_is_fine_tuned_and_asked_for_again_by_a_resume(hub, tmp_path):
    run = tmp_path / "run"
    first = train(
        hub, tmp_path / "a", *TINY_RUN, "--policy.path=user/tiny", f"--output_dir={run}", "--iterations=1"
    )
    assert first.returncode == 0, first.stderr
    assert downloads(hub) >= set(CHECKPOINT_FILES)
    checkpoint = run / "checkpoints/last/pretrained_model"
    assert yaml.safe_load((checkpoint / CONFIG_NAME).read_text())["policy"]["pretrained_path"] == "user/tiny"

    hub.requests.clear()
    resumed = train(hub, tmp_path / "b", f"--resume={run}", "--iterations=2")
    assert resumed.returncode == 0, resumed.stderr
    assert "model.safetensors" in downloads(hub)
    assert [line["iteration"] for line in metrics(run, "train")] == [1, 2]
    # The base beside the policy is the one of the Hub, and the policy has moved away from it.
    assert metrics(run, "train")[1]["kl_to_base"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "repo, words",
    [
        ("user/none", "--policy.path=user/none is no folder here and cannot be read from the Hub: "),
        ("user/half", "policy_preprocessor.json"),
    ],
)
def test_what_is_not_on_the_hub_is_one_line(repo, words, hub, tmp_path):
    run = tmp_path / "run"
    failed = train(hub, tmp_path / "a", *TINY_RUN, f"--policy.path={repo}", f"--output_dir={run}")
    assert failed.returncode == 1 and any(status == 404 for *_, status in hub.requests)
    (error,) = failed.stderr.splitlines()
    assert error.startswith("error: ") and words in error and failed.stdout == ""
    assert not run.exists()
