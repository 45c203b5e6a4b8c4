"""Processes of environments that hang or were killed."""

import os
import signal

import gymnasium as gym
import numpy as np
import pytest

from lerobot_rlft.rollout import workers
from lerobot_rlft.rollout.workers import close_env, how_it_died


class Quiet(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (1,))
    action_space = gym.spaces.Box(-1, 1, (1,))

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 0.0, False, False, {}


@pytest.fixture
def env(monkeypatch):
    monkeypatch.setattr(workers, "PATIENCE", 0.2)
    env = gym.vector.AsyncVectorEnv([Quiet, Quiet], context="fork")
    env.reset()
    yield env
    close_env(env)


def test_processes_that_answer_end_by_themselves(env, monkeypatch):
    monkeypatch.setattr(workers, "PATIENCE", 60.0)
    close_env(env)
    assert [process.exitcode for process in env.processes] == [0, 0]
    close_env(env)  # once more is nothing


def test_a_process_that_hangs_is_killed(env):
    os.kill(env.processes[0].pid, signal.SIGSTOP)  # which SIGTERM does not reach either
    env.step_async(np.zeros((2, 1), np.float32))
    assert not how_it_died(env)
    close_env(env)
    assert env.processes[0].exitcode == -signal.SIGKILL and env.closed


def test_a_process_that_was_killed(env):
    os.kill(env.processes[1].pid, signal.SIGKILL)
    env.processes[1].join()
    assert "environment 2 of 2 was killed by signal 9" in how_it_died(env)
    close_env(env)
