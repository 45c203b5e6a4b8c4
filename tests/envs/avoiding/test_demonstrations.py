import numpy as np
import pytest
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lerobot_rlft.envs.avoiding.avoiding import MAX_DELTA, NUM_MODES, AvoidingVectorEnv
from lerobot_rlft.envs.avoiding.demonstrations import record_episode, write_demonstrations

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> LeRobotDataset:
    return write_demonstrations(
        tmp_path_factory.mktemp("demos") / "data", "local/avoiding", 1, progress=False
    )


def column(dataset: LeRobotDataset, name: str) -> np.ndarray:
    return np.array(dataset.hf_dataset.with_format("numpy")[name])


def test_every_mode_has_its_episodes_and_replaying_the_actions_succeeds_in_it(dataset):
    episode, action = column(dataset, "episode_index"), column(dataset, "action")
    mode, state = column(dataset, "mode"), column(dataset, "observation.state")
    assert dataset.num_episodes == NUM_MODES
    assert np.abs(action).max() <= MAX_DELTA + 1e-9
    env = AvoidingVectorEnv(1)
    for i in range(NUM_MODES):
        rows = np.flatnonzero(episode == i)
        obs, _ = env.reset()
        for row in rows:
            np.testing.assert_array_equal(obs["agent_pos"][0], state[row])
            obs, reward, terminated, _, info = env.step(action[row][None])
            assert terminated[0] == (row == rows[-1])
        assert reward[0] == 1
        assert info["final_info"]["is_success"][0]
        assert info["final_info"]["mode"][0] == mode[rows[0]] == i


def test_reward_success_and_done_mark_the_last_frame_only(dataset):
    last = np.diff(column(dataset, "episode_index"), append=NUM_MODES) > 0
    for name in ("next.reward", "next.success", "next.done"):
        np.testing.assert_array_equal(column(dataset, name).ravel().astype(bool), last)


def test_a_seed_fixes_the_episodes():
    env = AvoidingVectorEnv(1)
    first, second = (record_episode(env, 5, 0.003, np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(first[1], second[1])
    other = record_episode(env, 5, 0.003, np.random.default_rng(8))
    assert len(other[1]) != len(first[1]) or (other[1] != first[1]).any()


def test_too_much_noise_says_what_works():
    with pytest.raises(ValueError, match=r"noise=0.05: no success in mode 3.*0\.003 works"):
        record_episode(AvoidingVectorEnv(1), 3, 0.05, np.random.default_rng(0))


@pytest.mark.parametrize("bad", [{"episodes_per_mode": 0}, {"noise": -0.1}, {"seed": -1}])
def test_bad_numbers_write_nothing(tmp_path, bad):
    name, value = next(iter(bad.items()))
    with pytest.raises(ValueError, match=f"{name}={value}"):
        write_demonstrations(tmp_path / "data", "local/avoiding", progress=False, **bad)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_left_alone(tmp_path):
    with pytest.raises(FileExistsError, match="delete it or choose another"):
        write_demonstrations(tmp_path, "local/avoiding", progress=False)
