"""What goes wrong while an environment is built is a sentence that names it."""

from dataclasses import dataclass

import pytest
from gymnasium import spaces
from lerobot.envs.configs import EnvConfig
from toy import toy_envs

from lerobot_rlft.rollout.environments import make_environments
from lerobot_rlft.utils.errors import UserError


@dataclass
class BuiltHere(EnvConfig):
    """`build` makes the environments of each task."""

    type = "built_here"
    build: object = None
    tasks: int = 1

    @property
    def gym_kwargs(self):
        return {}

    def create_envs(self, n_envs, use_async_envs=False):
        return {"suite": {i: self.build(n_envs) for i in range(self.tasks)}}


def fail(error):
    def build(n_envs):
        raise error

    return build


@pytest.mark.parametrize(
    "error, answer",
    [
        (RuntimeError("no screen"), r"RuntimeError: no screen \(.*test_environments.py, line \d+\)$"),
        (AttributeError("'NoneType' object has no attribute 'eglQueryString'"),
         "AttributeError: .*eglQueryString.*Without a display, .*MUJOCO_GL=egl or osmesa"),
        (KeyError("table"), r"KeyError: 'table' \("),
        (ImportError("gym_x is not installed"), "gym_x is not installed$"),
    ],
)  # fmt: skip
def test_an_environment_that_raises_while_it_is_built(error, answer):
    with pytest.raises(UserError, match=rf"env.type=built_here cannot be built: .*{answer}") as caught:
        make_environments(BuiltHere(build=fail(error)), 2)
    assert caught.value.__cause__ is error


def test_an_environment_without_tasks():
    with pytest.raises(UserError, match=r"env.type=built_here has no task: choose others with --env.task"):
        make_environments(BuiltHere(tasks=0), 2)


def test_tasks_that_are_not_alike():
    made = []

    def build(n_envs):
        made.append(toy_envs(n_envs))
        if len(made) % 2 == 0:
            made[-1].single_action_space = spaces.Box(-1, 1, (2,))
        return made[-1]

    with pytest.raises(
        UserError, match=r"task suite/1 has single_action_space Box\(-1.0, 1.0.*task suite/0 Box"
    ):
        make_environments(BuiltHere(build=build, tasks=2), 2)
    assert all(envs.closed for envs in made)


def test_what_is_refused_is_closed():
    made = []

    def build(n_envs):
        made.append(toy_envs(n_envs))
        made[0].single_action_space = spaces.Discrete(4)
        return made[0]

    with pytest.raises(UserError, match=r"env.type=built_here cannot be used: its actions are Discrete"):
        make_environments(BuiltHere(build=build), 2)
    assert made[0].closed


def test_what_keeps_the_contract_is_handed_out():
    envs = make_environments(BuiltHere(build=toy_envs), 2)
    assert envs.num_envs == 2 and not envs.closed
