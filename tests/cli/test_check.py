"""The command says what an environment gives and what works in it, or why it cannot be used."""

import re
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from lerobot.configs import parser
from lerobot.envs.configs import EnvConfig
from toy import ToyEnv, toy_envs

from lerobot_rlft.cli import check as command
from lerobot_rlft.rollout.inspection import Watched


class Breakable(ToyEnv):
    """`broken` says how."""

    def __init__(self, broken):
        super().__init__()
        if broken == "build":
            raise RuntimeError("no screen")
        if broken == "actions":
            self.action_space = gym.spaces.Discrete(3)
        self.broken = broken

    def reset(self, *, seed=None, options=None):
        return super().reset(seed=None if self.broken == "seeds" else seed)

    def step(self, action):
        obs, reward, terminated, truncated, info = super().step(action)
        if self.broken == "success":
            info = {"success": True}
        if self.broken == "mode":
            self.num_modes, info["mode"] = 2, 2
        return obs, reward, terminated, truncated, info

    def render(self):
        if self.broken == "render":
            raise OSError("no EGL")
        return None if self.broken == "frame" else super().render()


@EnvConfig.register_subclass("breakable")
@dataclass
class BreakableConfig(EnvConfig):
    broken: str = ""

    @property
    def gym_kwargs(self):
        return {}

    def create_envs(self, n_envs, use_async_envs=False):
        if use_async_envs:
            return {self.type: {0: toy_envs(n_envs, asynchronous=True)}}
        makers = [partial(Breakable, self.broken)] * n_envs
        return {self.type: {0: SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP)}}


@pytest.fixture
def check(monkeypatch, capsys):
    """Runs the command; returns its exit code, and its lines, name -> text, or its message."""
    monkeypatch.setattr("logging.root.handlers", [])
    monkeypatch.setattr("lerobot_rlft.cli.quiet", lambda: None)

    def run(*arguments):
        parser._config_path_args.clear()
        monkeypatch.setattr("sys.argv", ["lerobot-rlft-check", *map(str, arguments)])
        try:
            command.main()
        except SystemExit as stop:
            return 1, str(stop.code)
        head, *rows = capsys.readouterr().out.splitlines()
        assert re.fullmatch(r"env.type=\w+ can be used\.", head)
        return 0, dict(re.split(r"  +", row, maxsplit=1) for row in rows if row)

    yield run
    parser._config_path_args.clear()


def test_grasps_by_random_actions(check):
    code, said = check("--env.type=grasps", "--n_episodes=64", "--batch_size=32")
    assert code == 0
    assert said["observations"] == "observation.environment_state (2,), observation.state (2,)"
    assert said["actions"] == "(2,), -1 to 1"
    assert said["episodes"] == "at most 1 steps; every episode starts alike"
    assert re.fullmatch(r"\d+ of 64 episodes of random actions", said["success"])
    assert said["modes"] == '5, named in info["mode"]'
    assert said["rendering"].startswith("frames of (256, 256, 3), ")
    assert re.search(r"[\d,]+ steps/s by random actions in 32 environments: 1,000 steps in ", said["speed"])
    assert said["guard, balance, commands, mode metrics"] == "yes, by the environment's modes"
    assert said["success with ways blocked"] == said["videos"] == "yes"


def test_avoiding_by_a_policy(check, base_policy):
    code, said = check(
        "--env.type=avoiding", "--env.episode_length=4", f"--policy.path={base_policy}", "--n_episodes=2"
    )
    assert code == 0
    assert said["success"] == f"0 of 2 episodes of {base_policy}"
    assert said["episodes"].startswith("at most 4 steps; ")
    assert said["modes"].startswith("24, ")


def test_a_policy_that_does_not_fit(check, base_policy):
    code, said = check("--env.type=grasps", f"--policy.path={base_policy}", "--n_episodes=2")
    assert code == 1 and "policy and env.type=grasps do not fit: observation.state is (2,)" in said


def test_what_an_environment_without_modes_allows(check):
    code, said = check("--env.type=breakable", "--n_episodes=4", "--batch_size=4", "--seed=0")
    assert code == 0
    # Episodes with seeds 0 to 3 end after 2, 3, 7, 5 steps, those with even seeds with success.
    assert said["success"] == "2 of 4 episodes of random actions"
    assert said["episodes"] == "at most 7 steps; different seeds, different starts"
    assert said["modes"].startswith("none named in these episodes, 2 of which succeeded")
    assert said["paths"] == "observation.state" and said["instruction"] == "none"
    assert said["same starts for all policies"] == "yes"
    assert said["guard, balance, commands, mode metrics"].startswith("yes, by an atlas")
    assert said["success with ways blocked"].startswith("no: ")
    assert said["policies that read language"] == "no: give an attribute task_description"


@pytest.mark.slow
def test_processes_are_asked_for_all_that_they_have(check):
    code, said = check(
        "--env.type=breakable", "--use_async_envs=true", "--n_episodes=2", "--batch_size=2", "--seed=0"
    )
    assert code == 0 and said["success"] == "1 of 2 episodes of random actions"
    assert said["videos"] == "yes" and said["rendering"].startswith("frames of (16, 16, 3), ")
    assert said["instruction"] == "none"


@pytest.mark.parametrize(
    "broken, name, answer",
    [
        ("render", "rendering", "OSError: no EGL"),
        ("render", "videos", "no: give render, or set n_videos=0"),
        ("frame", "rendering", "render gives nothing instead of a uint8 image"),
        ("seeds", "episodes", "at most 7 steps; a seed does NOT give the same start again"),
        ("seeds", "same starts for all policies", "no: "),
    ],
)
def test_what_an_environment_may_lack(broken, name, answer, check):
    code, said = check("--env.type=breakable", f"--env.broken={broken}", "--n_episodes=2", "--seed=0")
    assert code == 0 and said[name].startswith(answer)


@pytest.mark.parametrize(
    "broken, answer",
    [
        ("build", r"env.type=breakable cannot be built: RuntimeError: no screen"),
        (
            "actions",
            r"env.type=breakable cannot be used: its actions are Discrete\(3\): give a Box",
        ),
        ("success", "env.type=breakable cannot be used: the environment never says whether"),
        ("mode", r"info\['mode'\] is 2 and the environment's num_modes is 2: number the modes 0 to 1"),
    ],
)
def test_a_broken_environment(broken, answer, check):
    code, said = check("--env.type=breakable", f"--env.broken={broken}", "--n_episodes=2", "--seed=0")
    assert code == 1 and re.match(f"error: {answer}", said), said


@pytest.mark.parametrize(
    "arguments, answer",
    [
        ((), "no environment: give --env.type=..., one of .*avoiding"),
        (("--env.type=grasps", "--n_episodes=0"), "n_episodes=0 must be at least 1"),
        (("--env.type=grasps", "--policy.type=diffusion"), "a policy of random weights shows nothing"),
    ],
)
def test_bad_input(arguments, answer, check):
    code, said = check(*arguments)
    assert code == 1 and re.match(f"error: {answer}", said), said


def test_actions_outside_are_counted():
    space = gym.spaces.Box(-1, 1, (2,), np.float32)
    watched = Watched(lambda transition: transition, space)
    watched({"action": torch.tensor([[[0.0, 0.5], [1.0, 1.5]], [[-2.0, 2.0], [0.0, 0.0]]])})
    assert (watched.outside, watched.count) == (2, 4)


@pytest.mark.parametrize(
    "seconds, text",
    [(0.0023, "2.3 ms"), (0.5, "0.5 s"), (1.5, "1.5 s"), (90, "90 s"), (150, "2 min"), (8000, "2 h")],
)
def test_durations(seconds, text):
    assert command.duration(seconds) == text


def test_a_share_of_actions_outside_is_said():
    box = gym.spaces.Box(-1, 1, (2,), np.float32)
    episodes = SimpleNamespace(success=np.array([True]), length=np.array([4]), states={})
    seen = SimpleNamespace(
        observations={"observation.image": (3, 8, 8)}, actions=box, outside=0.25, episodes=episodes,
        starts_vary=True, repeats=None, num_modes=None, frame=None, no_frame="none", frame_seconds=0.0,
        n_envs=1, max_steps=4, task=None, tasks=(), steps_per_second=2.0,
    )  # fmt: skip
    said = dict(command.facts(seen, "random actions"))
    assert said["actions"].startswith("(2,), -1 to 1; 25 % of those played lie outside and are sent as they")
    assert said["speed"].endswith("1,000 steps in 8 min, 1,000 episodes of this length in 33 min")
    allowed = dict(command.features(seen, blocks=False))
    assert allowed["guard, balance, commands, mode metrics"].startswith('no: give info["mode"] and num_modes')
