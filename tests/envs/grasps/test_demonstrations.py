import numpy as np
import pytest
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lerobot_rlft.cli import demos
from lerobot_rlft.envs.grasps.demonstrations import write_demonstrations
from lerobot_rlft.envs.grasps.grasps import GraspsVectorEnv


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> LeRobotDataset:
    return write_demonstrations(
        tmp_path_factory.mktemp("demos") / "data", "local/grasps", 4, noise=0.12, progress=False
    )


def column(dataset: LeRobotDataset, name: str) -> np.ndarray:
    return np.array(dataset.hf_dataset.with_format("numpy")[name])


def test_every_grasp_is_tried_equally_often_and_misses_are_kept(dataset):
    assert dataset.num_episodes == dataset.num_frames == 20
    env = GraspsVectorEnv(20)
    action, mode = column(dataset, "action"), column(dataset, "mode").ravel()
    aims = np.repeat(env.points, 4, axis=0)
    assert 0.05 < np.abs(action - aims).max() < 0.6 and np.abs(action).max() <= 1
    obs, _ = env.reset()
    for name, key in (
        ("agent_pos", "observation.state"),
        ("environment_state", "observation.environment_state"),
    ):
        np.testing.assert_array_equal(column(dataset, key), obs[name])
    _, reward, _, _, info = env.step(action)
    np.testing.assert_allclose(column(dataset, "next.reward").ravel(), reward, rtol=1e-6)
    np.testing.assert_array_equal(column(dataset, "next.success").ravel(), info["final_info"]["is_success"])
    np.testing.assert_array_equal(mode, info["final_info"]["mode"])
    assert (mode == -1).any() and ((mode == np.repeat(range(5), 4)) | (mode == -1)).all()
    assert column(dataset, "next.done").all()


def test_a_seed_fixes_the_episodes(tmp_path):
    actions = [
        column(write_demonstrations(tmp_path / name, "local/grasps", 1, seed=seed, progress=False), "action")
        for name, seed in (("a", 7), ("b", 7), ("c", 8))
    ]
    assert (actions[0] == actions[1]).all() and (actions[0] != actions[2]).any()


@pytest.mark.parametrize("bad", [{"episodes_per_mode": 0}, {"noise": -0.1}, {"seed": -1}])
def test_bad_numbers_write_nothing(tmp_path, bad):
    name, value = next(iter(bad.items()))
    with pytest.raises(ValueError, match=f"{name}={value}"):
        write_demonstrations(tmp_path / "data", "local/grasps", progress=False, **bad)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "given, passed",
    [
        ((), {"seed": 0}),
        (
            ("--episodes_per_mode=2", "--noise=0.2", "--seed=5"),
            {"seed": 5, "noise": 0.2, "episodes_per_mode": 2},
        ),
    ],
)
def test_the_command_leaves_defaults_to_the_task(tmp_path, monkeypatch, dataset, capsys, given, passed):
    def write(root, repo_id, **options):
        assert root == tmp_path / "data" and repo_id == "local/grasps" and options == passed
        return dataset

    monkeypatch.setattr("lerobot_rlft.envs.grasps.demonstrations.write_demonstrations", write)
    monkeypatch.setattr("sys.argv", ["x", "--env.type=grasps", f"--root={tmp_path / 'data'}", *given])
    demos.main()
    assert "20 episodes, 20 frames" in capsys.readouterr().out
