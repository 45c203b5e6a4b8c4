"""Episodes of a known environment are written and read back, frame by frame."""

import numpy as np
import pytest
import torch
from lerobot.datasets import LeRobotDataset
from toy import LENGTHS, toy_envs
from toy_policy import CHUNK, runner_in

from lerobot_rlft.configs.train import load_policy_config
from lerobot_rlft.datasets.windows import ChunkDataset
from lerobot_rlft.envs.avoiding.configuration_avoiding import AvoidingEnvConfig
from lerobot_rlft.policies.loading import load_policy
from lerobot_rlft.rollout.environments import make_runner
from lerobot_rlft.rollout.evaluation import play
from lerobot_rlft.rollout.recorder import write_rollouts
from lerobot_rlft.utils.errors import EnvironmentFailure


def test_every_frame_of_every_episode_with_images(tmp_path):
    """6 episodes in 4 environments: the second round is filled up and cut."""
    dataset, episodes = write_rollouts(
        runner_in(toy_envs(4)), tmp_path / "toy", "local/toy", 6, 0, fps=10, task="go", progress=False
    )
    lengths = [LENGTHS[seed % 4] for seed in range(6)]
    assert episodes.length.tolist() == lengths and dataset.fps == 10
    assert dataset.meta.episodes["length"] == lengths
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]
    frames = [(seed, t) for seed in range(6) for t in range(lengths[seed])]
    assert len(dataset) == len(frames)
    for (seed, t), frame in zip(frames, dataset, strict=True):
        last = t == lengths[seed] - 1
        assert frame["observation.state"].tolist() == [seed, t]
        assert torch.equal(frame["observation.image"], torch.full((3, 4, 4), (10 * seed + t) / 255))
        j = t % CHUNK  # of the chunk that was decided upon at t - j
        assert frame["action"].tolist() == [seed + 100 * j, t - j + 100 * j]
        assert frame["next.reward"].item() == t + 1
        assert frame["next.done"].item() == last
        assert frame["next.success"].item() == (last and seed % 2 == 0)
        assert frame["mode"].item() == -1 and not frame["intervention"].item()
        assert frame["task"] == "go"


def test_what_was_played_is_what_evaluation_plays(base_policy, tmp_path):
    """States only; the modes are the environment's."""
    env = AvoidingEnvConfig(episode_length=8)
    policy = load_policy(load_policy_config(str(base_policy), []), base_policy)
    runner = make_runner(env, policy, 3)
    state = torch.get_rng_state()
    root = tmp_path / "played"
    _, episodes = write_rollouts(runner, root, "local/a", 3, 7, fps=env.fps, progress=False)
    assert torch.equal(torch.get_rng_state(), state)
    expected = play(runner, 3, 7)
    columns = ChunkDataset(LeRobotDataset("local/a", root), None).columns
    seen = expected.states["observation.state"][:, :-1].reshape(-1, 4)
    assert np.array_equal(columns["observation.state"].numpy(), seen[~np.isnan(seen).any(1)])
    assert np.array_equal(episodes.mode, expected.mode)
    assert torch.equal(columns["mode"], torch.from_numpy(expected.mode).repeat_interleave(8))
    assert columns["next.done"].view(3, 8).sum(1).tolist() == [1, 1, 1]


def test_nothing_half_written_and_nothing_overwritten(tmp_path):
    env = toy_envs(4, fail_at=3)
    with pytest.raises(EnvironmentFailure, match="the simulator crashed"):
        write_rollouts(runner_in(env), tmp_path / "toy", "local/toy", 4, 0, fps=10, progress=False)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "toy").mkdir()
    with pytest.raises(FileExistsError, match="delete it or choose another"):
        write_rollouts(runner_in(toy_envs(4)), tmp_path / "toy", "local/toy", 4, 0, fps=10, progress=False)
