"""Several tasks as one vector of environments: dealt evenly, told apart, and no seed depends on how many."""

import numpy as np
import pytest
import torch
from suite_env import BROKEN, LENGTHS, RATES, SEEDS, SmallSuiteConfig
from toy_policy import ToyPolicy, identity

from lerobot_rlft.policies.processing import TASK
from lerobot_rlft.rollout.environments import make_environments
from lerobot_rlft.rollout.evaluation import play, summarise
from lerobot_rlft.rollout.inspection import inspect
from lerobot_rlft.rollout.recorder import write_rollouts
from lerobot_rlft.rollout.runner import EpisodeRunner
from lerobot_rlft.rollout.suite import SuiteVectorEnv
from lerobot_rlft.utils.errors import EnvironmentFailure, UserError

SUITE = ("small/0", "small/1", "small/2")


class Still(ToyPolicy):
    """Does nothing; the tasks do not mind."""

    def encode(self, obs):
        return obs["observation.state"][:, -1, :2]


def runner_in(env) -> EpisodeRunner:
    return EpisodeRunner(env, Still(), identity, identity)


def runner_of(n_envs, **options) -> EpisodeRunner:
    return runner_in(make_environments(SmallSuiteConfig(**options), n_envs))


def expected(seeds: np.ndarray, tasks: np.ndarray) -> np.ndarray:
    return seeds % SEEDS < np.array(RATES)[tasks] * SEEDS


@pytest.mark.parametrize("n_envs, there", [(1, 3), (3, 3), (7, 6), (12, 12)])
def test_copies_are_dealt_evenly(n_envs, there):
    env = make_environments(SmallSuiteConfig(), n_envs)
    assert env.tasks == SUITE and env.num_envs == there
    assert env.task_of.tolist() == [i % 3 for i in range(there)]
    assert env.call("task_description")[:3] == ("do thing 0", "do thing 1", "do thing 2")
    assert env.call("_max_episode_steps")[:3] == LENGTHS


@pytest.mark.parametrize("next_step", [True, False])
def test_success_does_not_depend_on_the_number_of_environments(next_step):
    tasks = np.arange(60) % 3
    for n_envs in (1, 5, 50):
        episodes = play(runner_of(n_envs, next_step=next_step), 60, 100)
        assert episodes.task.tolist() == tasks.tolist()
        assert episodes.success.tolist() == expected(100 + np.arange(60) // 3, tasks).tolist()
        assert episodes.length.tolist() == np.array(LENGTHS)[tasks].tolist()


def test_one_task_reads_the_same_success_with_any_number_of_environments():
    for n_envs in (1, 5, 50):
        runner = runner_of(n_envs, n_tasks=1)
        assert not isinstance(runner.env, SuiteVectorEnv) and runner.env.num_envs == n_envs
        episodes = play(runner, 50, 0)
        assert episodes.task is None and episodes.success.sum() == 10  # 2 of every 10 seeds


def test_modes_are_those_of_a_task():
    runner = runner_of(6)
    episodes = play(runner, 60, 100)
    seeds, tasks = 100 + np.arange(60) // 3, np.arange(60) % 3
    assert episodes.mode.tolist() == np.where(expected(seeds, tasks), seeds % 2 * 3 + tasks, -1).tolist()
    assert runner.env.num_modes == 6 and runner.env.call("num_modes") == (6,) * 6


def test_the_policy_is_told_the_task_of_each_row():
    runner = runner_of(6)
    runner.policy.reads_language = True
    data = runner.collect(12, 100 + np.arange(12), lambda condition: runner.policy.sample(condition, 0, 0))
    assert data.obs[TASK].shape == (len(data.t), 1)
    assert torch.equal(data.obs[TASK][:, 0], data.episode % 3)
    assert data.final_obs[TASK][:, 0].tolist() == [i % 3 for i in range(12)]
    # environment_state is the number of the task
    assert torch.equal(data.obs["observation.environment_state"][:, -1, 0].long(), data.obs[TASK][:, 0])


def test_a_policy_without_language_is_not_told():
    runner = runner_of(3)
    data = runner.collect(3, np.arange(3), lambda condition: runner.policy.sample(condition, 0, 0))
    assert TASK not in data.obs and data.episodes.task.tolist() == [0, 1, 2]


@pytest.mark.slow
def test_tasks_in_processes_give_the_same():
    env = make_environments(SmallSuiteConfig(n_tasks=2), 4, asynchronous=True)
    try:
        one, other = play(runner_in(env), 12, 100), play(runner_of(4, n_tasks=2), 12, 100)
    finally:
        env.close()
    for name in ("success", "mode", "length", "task"):
        assert getattr(one, name).tolist() == getattr(other, name).tolist()


def test_a_broken_task_is_named():
    runner = runner_of(6, broken=1)
    with pytest.raises(EnvironmentFailure, match=f"RuntimeError in step 3 of task small/1: {BROKEN}"):
        play(runner, 6, 0)


def test_a_task_that_breaks_its_contract_is_named(monkeypatch):
    import suite_env

    def mute(self, action, step=suite_env.SuiteTask.step):
        *others, info = step(self, action)
        return *others, ({} if self.number == 2 else info)

    monkeypatch.setattr(suite_env.SuiteTask, "step", mute)
    monkeypatch.setattr(
        suite_env.SuiteTask, "reset", lambda self, seed=None, options=None: (self._observe(), {})
    )
    with pytest.raises(UserError, match=r"env.type=small_suite, task small/2, cannot be used: .*is_success"):
        make_environments(SmallSuiteConfig(), 3)


def test_success_and_modes_of_each_task():
    runner = runner_of(6)
    result, _ = summarise(runner.env, play(runner, 60, 100))
    assert result.success == pytest.approx(np.mean(RATES))  # 20 seeds of each task, every rate twice
    assert result.num_modes == 6
    for t, name in enumerate(SUITE):
        seeds = 100 + np.arange(20)
        solved = seeds[expected(seeds, np.full(20, t))]
        task = result.tasks[name]
        assert task["n_episodes"] == 20 and task["success"] == len(solved) / 20
        assert task["mode_counts"] == np.bincount(solved % 2, minlength=2).tolist()
        assert task["num_modes"] == 2
    assert result.means["success/small/1"] == result.tasks["small/1"]["success"]
    assert "3 tasks, from 0.200 (small/0) to 0.900 (small/2)" in result.sentence()


def test_recorded_episodes_have_the_name_or_the_instruction_of_their_task(tmp_path):
    runner = runner_of(3)
    runner.policy.reads_language = True
    runner.policy.task = ("do thing 0", "do thing 1", "do thing 2")
    dataset, episodes = write_rollouts(
        runner, tmp_path / "data", "local/data", 6, 100, fps=10, progress=False
    )
    first = [int(i) for i in dataset.meta.episodes["dataset_from_index"]]
    assert [dataset[i]["task"] for i in first] == ["do thing 0", "do thing 1", "do thing 2"] * 2
    assert episodes.task.tolist() == [0, 1, 2] * 2


def test_a_look_at_a_suite():
    seen = inspect(SmallSuiteConfig(), None, 6, 6, seed=100)
    assert seen.tasks == SUITE and seen.task == "do thing 0; do thing 1; do thing 2"
    assert seen.episodes.success.tolist() == [True] * 6 and seen.num_modes == 6
