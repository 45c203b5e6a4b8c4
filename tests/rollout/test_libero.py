"""LeRobot's own LIBERO environments around a stand-in of the simulator: keys, autoreset, initial states."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from lerobot.envs.configs import LiberoEnv
from toy_policy import ToyPolicy

from lerobot_rlft.rollout.environments import make_environments, runner_in
from lerobot_rlft.rollout.evaluation import play
from lerobot_rlft.rollout.runner import EpisodeRunner
from lerobot_rlft.rollout.suite import SuiteVectorEnv

STATES = 5  # initial states of a task
SIZE, LIMIT = 16, 6


class Simulator:
    """Succeeds at step 3 from initial states with an even number; task 1 from no other than state 0."""

    def __init__(self, bddl_file_name, camera_heights, **others):
        self.task, self.size = int(bddl_file_name[-1]), camera_heights
        self.robots = [SimpleNamespace(controller=SimpleNamespace(ee_ori_mat=np.eye(3), use_delta=True))]
        self.state, self.t = -1.0, 0

    def seed(self, seed): ...

    def reset(self):
        self.t = 0
        return self._observe()

    def set_init_state(self, state):
        self.state = float(state[0])
        return self._observe()

    def step(self, action):
        waits = list(action) == [0, 0, 0, 0, 0, 0, -1]  # while objects settle
        self.t += not waits
        return self._observe(), float(self.check_success()), self.t >= LIMIT, {}

    def check_success(self):
        solvable = self.state % 2 == 0 if self.task == 0 else self.state == 0
        return bool(self.t >= 3 and solvable)

    def _observe(self):
        image = np.full((self.size, self.size, 3), 10 * self.task, np.uint8)
        return {
            "agentview_image": image, "robot0_eye_in_hand_image": image,
            "robot0_eef_pos": np.array([self.state, self.t, 0.0]),
            "robot0_eef_quat": np.array([0.0, 0, 0, 1]),
            "robot0_gripper_qpos": np.zeros(2), "robot0_gripper_qvel": np.zeros(2),
            "robot0_joint_pos": np.zeros(7), "robot0_joint_vel": np.zeros(7),
        }  # fmt: skip

    def close(self): ...


class Suite:
    def __init__(self):
        self.tasks = [
            SimpleNamespace(
                name=f"task_{i}", language=f"do thing {i}", problem_folder="small", bddl_file=f"task{i}",
                init_states_file=f"task{i}.pt",
            )
            for i in range(2)
        ]  # fmt: skip

    def get_task(self, i):
        return self.tasks[i]


@pytest.fixture
def libero(tmp_path, monkeypatch):
    """Stands in for the package libero; LeRobot's code around it is the real one."""
    (tmp_path / "small").mkdir()
    for i in range(2):
        torch.save(np.arange(STATES, dtype=float)[:, None], tmp_path / f"small/task{i}.pt")
    parts = {
        "libero": {},
        "libero.libero": {
            "benchmark": SimpleNamespace(get_benchmark_dict=lambda: {"small": Suite}),
            "get_libero_path": lambda name: str(tmp_path),
        },
        "libero.libero.envs": {"OffScreenRenderEnv": Simulator},
    }
    for name, members in parts.items():
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "lerobot.envs.libero", raising=False)
    yield
    sys.modules.pop("lerobot.envs.libero", None)


class Hold(ToyPolicy):
    """Moves nothing."""

    reads_language = True
    module = SimpleNamespace(config=SimpleNamespace(type="hold"))

    def encode(self, obs):
        return obs["observation.state"][:, -1]

    def deployed_chunk(self, condition):
        return torch.full((len(condition), 3, 7), 0.5)


def config_of(**fields) -> LiberoEnv:
    return LiberoEnv(
        task="small", observation_height=SIZE, observation_width=SIZE, episode_length=8, **fields
    )


def runner_of(config: LiberoEnv, n_envs: int) -> EpisodeRunner:
    return runner_in(make_environments(config, n_envs), config, Hold())


def expected(seeds: np.ndarray, tasks: np.ndarray) -> list[bool]:
    states = seeds % STATES
    return np.where(tasks == 0, states % 2 == 0, states == 0).tolist()


def test_seeds_choose_initial_states_however_many_environments_there_are(libero):
    seeds, tasks = 1000 + np.arange(20) // 2, np.arange(20) % 2  # all states at both tasks
    for n_envs in (1, 6, 20):
        runner = runner_of(config_of(), n_envs)
        for _ in range(2):  # LIBERO alone goes on to other states
            episodes = play(runner, 20, 1000)
            assert episodes.success.tolist() == expected(seeds, tasks)
            assert episodes.states["observation.state"][:, 0, 0].tolist() == (seeds % STATES).tolist()


def test_one_task_of_libero(libero):
    runner = runner_of(config_of(task_ids=[1]), 4)
    assert isinstance(runner.env, SuiteVectorEnv) and runner.tasks == ()
    episodes = play(runner, 10, 1000)
    assert episodes.task is None
    assert episodes.success.tolist() == expected(1000 + np.arange(10), np.ones(10))
    assert runner.policy.task == "do thing 1"


def test_its_instructions_and_its_state_reach_the_policy(libero):
    runner = runner_of(config_of(), 2)
    assert runner.tasks == ("small/0", "small/1") and runner.policy.task == ("do thing 0", "do thing 1")
    episodes = play(runner, 2, 1000)
    # Position, orientation and gripper: 3 + 3 + 2 numbers, before and after each of 3 steps until success.
    assert episodes.states["observation.state"].shape == (2, 4, 8)
    assert episodes.length.tolist() == [3, 3]
