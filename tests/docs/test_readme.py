"""The README's way from a Hub id to a published result, run as written, small, against a Hub on loopback."""

import json
import re
import shlex
from pathlib import Path

import pytest
from hub_client import Client
from mini_hub import serve
from old_layouts import with_buffers

ROOT = Path(__file__).parents[2]
SMALLER = {
    "train": (
        "--iterations=1", "--env.episode_length=30", "--rollout.n_envs=2", "--rollout.n_episodes=2",
        "--algorithm.update_epochs=1", "--algorithm.minibatch_size=16", "--eval.n_episodes=2",
        "--eval.n_episodes_during=2", "--eval.n_videos=0",
    ),
    "eval": (
        "--n_episodes=2", "--batch_size=2", "--env.episode_length=30", "--n_attempts=0",
        "--n_initial_states=0",
    ),
    "push": (),
}  # fmt: skip


def commands() -> list[tuple[str, list[str]]]:
    """Name and arguments of each `lerobot-rlft-...` of the section."""
    section = (ROOT / "README.md").read_text().split("## From a Hub policy to a published one\n", 1)[1]
    block = re.search(r"```bash\n(.*?)```", section, re.DOTALL)[1]
    words = [shlex.split(line, comments=True) for line in block.splitlines()]
    return [(w[0].removeprefix("lerobot-rlft-"), w[1:]) for w in words if w[0].startswith("lerobot-rlft-")]


@pytest.mark.slow
def test_the_commands_lead_from_an_old_checkpoint_on_the_hub_to_a_published_result(tmp_path):
    pytest.importorskip("gym_pusht")
    with_buffers(ROOT / "recipes/pusht_base", tmp_path / "hub/user/diffusion_policy", mlp_hidden_dim=1024)
    with serve(tmp_path / "hub") as hub:
        client = Client(hub.url, tmp_path / "home")
        try:
            done = {}
            for name, arguments in commands():
                done[name] = client.run(name, *arguments, *SMALLER[name])
                assert done[name].status == 0, done[name].err
        finally:
            client.close()
        files = hub.repos["model", "user/tuned"].files()
    assert list(done) == ["train", "eval", "push"]
    assert "statistics inside the weights" in done["train"].err
    assert {"config.json", "model.safetensors", "policy_preprocessor.json", "README.md"} <= files.keys()
    assert "base_model: user/diffusion_policy" in files["README.md"].decode()
    numbers = json.loads(files["diversity.json"])
    assert numbers["base"] == "user/diffusion_policy" and numbers["n_episodes"] == 2
