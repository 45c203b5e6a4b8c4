import gc
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from lerobot.datasets.lerobot_dataset import LeRobotDataset

pytest.importorskip("gym_pusht")

from lerobot_rlft.envs.pusht.demonstrations import FEATURES, TASK, replay, write_demonstrations

SOURCE = Path(__file__).parents[3] / "recipes/data/pusht_human_206.npz"
GOAL = (256, 256, np.pi / 4)


@pytest.fixture(scope="module")
def recordings():
    with np.load(SOURCE) as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("pusht") / "new" / "demos"
    write_demonstrations(SOURCE, root, "local/pusht", episodes=2, progress=False)
    return root


@pytest.fixture
def dataset(root, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return LeRobotDataset("local/pusht", root=root)


def columns(dataset):
    rows = dataset.hf_dataset.with_format("numpy")
    return {key: np.stack(list(rows[key])) for key in dataset.features}


def write_source(path, **changes):
    """Two episodes of two frames and one; None drops an array."""
    state = np.float32([(100, 100, 200, 200, 0), (110, 100, *GOAL), (400, 100, 400, 400, 0)])
    arrays = {"state": state, "action": state[:, :2] + 1, "episode_ends": np.array([2, 3])} | changes
    np.savez_compressed(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def test_shipped_recordings(recordings):
    assert {name: (array.shape, str(array.dtype)) for name, array in recordings.items()} == {
        "state": ((25650, 5), "float32"),
        "action": ((25650, 2), "float32"),
        "episode_ends": ((206,), "int64"),
    }
    assert np.diff(recordings["episode_ends"], prepend=0).min() == 49
    assert "MIT License" in SOURCE.with_name("PUSHT_LICENSE").read_text()


def test_stock_dataset_reads_it_offline(dataset, recordings):
    assert (dataset.num_episodes, dataset.fps) == (2, 10)
    assert dataset.num_frames == recordings["episode_ends"][1]
    frame = dataset[0]
    assert frame["task"] == TASK
    for key, feature in FEATURES.items():
        assert dataset.features[key]["dtype"] == feature["dtype"]
        assert tuple(dataset.features[key]["shape"]) == feature["shape"]
        assert str(frame[key].dtype) == f"torch.{feature['dtype']}"
        assert set(dataset.meta.stats[key]) >= {"mean", "std", "min", "max"}
        assert np.isfinite(dataset.meta.stats[key]["std"]).all()
    assert frame["observation.environment_state"].shape == (16,)


def test_recorded_columns_are_copied(dataset, recordings):
    data, ends = columns(dataset), recordings["episode_ends"]
    np.testing.assert_array_equal(data["observation.state"], recordings["state"][: ends[1], :2])
    np.testing.assert_array_equal(data["action"], recordings["action"][: ends[1]])
    np.testing.assert_array_equal(np.flatnonzero(data["next.done"]), ends[:2] - 1)


def test_env_shows_and_pays_the_same(dataset, recordings):
    """The stock env, driven by the recorded actions, returns the dataset's own observations and rewards."""
    data, length = columns(dataset), recordings["episode_ends"][0]
    env = gym.make("gym_pusht/PushT-v0", obs_type="environment_state_agent_pos")
    env.reset(seed=0)
    simulator, first = env.unwrapped, recordings["state"][0].tolist()
    simulator.agent.position, simulator.block.angle = first[:2], first[4]
    simulator.block.position = first[2:4]
    shown = simulator.get_obs()["environment_state"]
    np.testing.assert_allclose(data["observation.environment_state"][0], shown, atol=1e-4)
    for t in range(length - 1):
        obs, reward, *_ = env.step(recordings["action"][t])
        np.testing.assert_allclose(
            data["observation.environment_state"][t + 1], obs["environment_state"], atol=0.05
        )
        np.testing.assert_allclose(data["observation.state"][t + 1], obs["agent_pos"], atol=0.05)
        np.testing.assert_allclose(data["next.reward"][t], reward, atol=1e-3)


def test_hand_computed_vertices_and_reward(tmp_path):
    source = write_source(tmp_path / "demos.npz")
    data = columns(write_demonstrations(source, tmp_path / "demos", "local/pusht", progress=False))
    # The T at (200, 200), upright: a bar of 120 x 30 pixels above a stem of 30 x 90.
    bar = [(140, 200), (260, 200), (140, 230), (260, 230)]
    stem = [(185, 230), (215, 230), (185, 320), (215, 320)]
    vertices = data["observation.environment_state"][0].reshape(2, 4, 2).tolist()
    assert [sorted(map(tuple, part)) for part in vertices] == [sorted(bar), sorted(stem)]
    # Frame 0 leads to the goal pose, frame 1 is scored by itself, the last episode never touches the goal.
    assert data["next.reward"].ravel().tolist() == [1, 1, 0]
    assert data["next.success"].ravel().tolist() == [True, True, False]
    assert data["next.done"].ravel().tolist() == [False, True, True]


def test_replay_follows_the_recordings(recordings):
    deviations = [replay(SOURCE, episode) for episode in (0, 5, 10, 15, 20)]
    assert len(deviations[0]) == recordings["episode_ends"][0] - 1
    assert sum(deviation.max() < 1 for deviation in deviations) >= 4
    assert np.median([deviation.max() for deviation in deviations]) < 0.01


@pytest.mark.parametrize("episode", [-1, 206])
def test_replay_refuses_unknown_episode(episode):
    with pytest.raises(ValueError, match=rf"episode={episode}: .* choose 0\.\.205"):
        replay(SOURCE, episode)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"state": None}, r"lacks \['state'\].*add"),
        ({"action": None, "episode_ends": None}, r"lacks \['action', 'episode_ends'\].*add"),
        ({"state": np.zeros((3, 4))}, r"state in .* float64 \(3, 4\); store floats \(frames, 5\)"),
        ({"state": np.float32(0)}, r"state in .* float32 \(\)"),
        ({"action": np.zeros((4, 2))}, r"action in .* float64 \(4, 2\); .* one row for every row of state"),
        ({"action": np.full((3, 2), "x")}, r"action in .* <U1 \(3, 2\); store floats"),
        (
            {"action": np.float32([(1, 1), (1, np.nan), (1, 1)])},
            r"action in .*nan\] in frame 1; drop that episode",
        ),
        ({"episode_ends": np.array([2, 4])}, r"episode_ends in .*\[2 4\].*number of frames, 3"),
        ({"episode_ends": np.array([0, 3])}, r"episode_ends in .*\[0 3\].*growing"),
        ({"episode_ends": np.array([3, 1, 3], np.uint64)}, r"episode_ends in .*\[3 1 3\].*growing"),
        ({"episode_ends": np.array([2.0, 3.0])}, r"episode_ends in .* float64 .*integers"),
        ({"episode_ends": np.array([], int)}, r"episode_ends in .*\[\].*number of frames"),
    ],
)
def test_bad_source(tmp_path, changes, message):
    source = write_source(tmp_path / "demos.npz", **changes)
    with pytest.raises(ValueError, match=message):
        write_demonstrations(source, tmp_path / "new" / "demos", "local/pusht")
    assert list(tmp_path.iterdir()) == [source]


def test_source_that_is_no_archive(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"source=.*nowhere\.npz is no file"):
        write_demonstrations(tmp_path / "nowhere.npz", tmp_path / "demos", "local/pusht")
    source = tmp_path / "demos.npz"
    source.write_text("not an archive")
    with pytest.raises(ValueError, match=r"source=.*demos\.npz is no npz file"):
        write_demonstrations(source, tmp_path / "demos", "local/pusht")


@pytest.mark.parametrize("episodes", [0, 207])
def test_refuses_episode_count(tmp_path, episodes):
    with pytest.raises(ValueError, match=rf"episodes={episodes}: .* has 206; choose 1\.\.206 or None"):
        write_demonstrations(SOURCE, tmp_path / "demos", "local/pusht", episodes=episodes)


def test_refuses_existing_root(tmp_path):
    (tmp_path / "kept").touch()
    with pytest.raises(FileExistsError, match=f"root={tmp_path} exists; delete it or choose another"):
        write_demonstrations(SOURCE, tmp_path, "local/pusht")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_leaves_nothing_half_written(tmp_path, monkeypatch):
    source, save_episode, saved = write_source(tmp_path / "demos.npz"), LeRobotDataset.save_episode, []

    def save_one_only(dataset):
        if saved:
            raise OSError("disk full")
        saved.append(save_episode(dataset))

    monkeypatch.setattr(LeRobotDataset, "save_episode", save_one_only)
    with pytest.raises(OSError, match="disk full"):
        write_demonstrations(source, tmp_path / "demos", "local/pusht", progress=False)
    gc.collect()
    assert saved
    assert list(tmp_path.iterdir()) == [source]
