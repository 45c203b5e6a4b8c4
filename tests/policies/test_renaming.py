"""`rename_map`: what is refused, and what becomes of it in a checkpoint."""

import json
import shlex

import numpy as np
import pytest
import vlas
from camera import SIZE, CameraEnvConfig
from lerobot.configs import FeatureType, PreTrainedConfig
from lerobot.policies import make_pre_post_processors
from runs import metrics
from suite_env import SmallSuiteConfig
from tiny import save_policy

from lerobot_rlft.configs.default import EvalConfig, RolloutConfig
from lerobot_rlft.configs.pretrained import load_policy_config
from lerobot_rlft.envs.options import eval_command
from lerobot_rlft.policies.layouts import read_processors
from lerobot_rlft.policies.loading import load_policy
from lerobot_rlft.policies.renaming import (
    check_rename_map,
    not_given,
    rename_inputs,
    rename_problems,
    renames_of,
    saved_renames,
)
from lerobot_rlft.rollout.environments import make_runner
from lerobot_rlft.training.trainer import Trainer
from lerobot_rlft.utils.errors import UserError

STATE, ROBOT, TASK = "observation.state", "observation.robot", "observation.environment_state"


@pytest.mark.parametrize(
    "rename_map, answer",
    [
        ({"a": "c", "b": "c"}, "renames both a and b to c: give each a name of its own"),
        ({"a": ""}, "renames 'a' to '': give a name on both sides"),
        ({"": "a"}, "renames '' to 'a': give a name on both sides"),
    ],
)
def test_maps_that_are_refused(rename_map, answer):
    with pytest.raises(UserError, match=f"rename_map=.*{answer}"):
        check_rename_map(rename_map)


def test_maps_that_are_taken():
    for rename_map in (None, {}, {"a": "b", "b": "a"}, {"a": "a"}):
        check_rename_map(rename_map)


@pytest.mark.parametrize(
    "rename_map, problem",
    [
        ({"front": "one"}, "renames front, which the environment does not give"),
        ({"top": "three"}, "renames top to three, which the policy does not read"),
        ({"top": "wrist"}, "renames top to wrist, which the environment gives, too"),
    ],
)
def test_names_that_do_not_exist(rename_map, problem):
    (found,) = rename_problems(rename_map, ["top", "wrist"], ["one", "wrist"])
    assert found == f"rename_map {problem}"


def test_a_swap_is_no_problem():
    assert not rename_problems({"a": "b", "b": "a"}, ["a", "b"], ["a", "b"])


def test_as_many_cameras_as_are_said_may_be_missing():
    one, two = "observation.images.one", "observation.images.two"
    assert not_given([one, STATE], 1) == [STATE]
    assert not_given([one, two], 1) == [one, two] and not_given([one, two], 2) == []


def test_a_checkpoint_keeps_its_map(tmp_path):
    base = save_policy(tmp_path / "base")
    policy = load_policy(load_policy_config(str(base), []), base)
    assert renames_of(policy) == {}
    rename_inputs(policy, {ROBOT: STATE})
    policy.save_pretrained(tmp_path / "tuned")
    assert saved_renames(read_processors(str(tmp_path / "tuned"))) == {ROBOT: STATE}
    assert saved_renames(read_processors(str(base))) == {}
    config = load_policy_config(str(tmp_path / "tuned"), [])
    assert renames_of(load_policy(config, tmp_path / "tuned")) == {ROBOT: STATE}
    assert renames_of(load_policy(config, tmp_path / "tuned", rename_map={})) == {}
    stock, _ = make_pre_post_processors(
        PreTrainedConfig.from_pretrained(tmp_path / "tuned"), str(tmp_path / "tuned")
    )
    assert stock.steps[0].rename_map == {ROBOT: STATE}


def test_a_preprocessor_without_the_step_gets_it(tmp_path):
    base = save_policy(tmp_path / "base")
    policy = load_policy(load_policy_config(str(base), []), base)
    policy.preprocessor.steps = policy.preprocessor.steps[1:]
    rename_inputs(policy, {ROBOT: STATE})
    assert renames_of(policy) == {ROBOT: STATE} == policy.preprocessor.steps[0].rename_map


def test_the_command_repeats_the_map():
    command = eval_command("policy", CameraEnvConfig(), rename_map={ROBOT: STATE})
    (option,) = [word for word in shlex.split(command) if word.startswith("--rename_map=")]
    assert json.loads(option.partition("=")[2]) == {ROBOT: STATE}
    assert "rename_map" not in eval_command("policy", CameraEnvConfig(), rename_map={})


@pytest.mark.parametrize(
    "rename_map, answer",
    [
        (
            None,
            r"observation.state is missing .*offers .*observation.robot \(4,\).*--rename_map",
        ),
        (
            {"observation.arm": STATE},
            r"rename_map renames observation.arm, which the environment does not give",
        ),
        (
            {ROBOT: TASK},
            r"rename_map renames observation.robot to observation.environment_state, which the env",
        ),
    ],
)
def test_an_environment_with_other_names(tmp_path, rename_map, answer):
    base = save_policy(tmp_path / "base")
    policy = load_policy(load_policy_config(str(base), []), base, rename_map=rename_map)
    with pytest.raises(UserError, match=answer):
        make_runner(SmallSuiteConfig(n_tasks=1, state="robot"), policy, 2, rename_map=rename_map)


def test_a_run_keeps_its_map(dppo_config, capsys):
    rename_map = {ROBOT: STATE}
    config = dppo_config(
        env=SmallSuiteConfig(n_tasks=1, state="robot"), rename_map=rename_map, iterations=1,
        rollout=RolloutConfig(n_envs=2, n_episodes=2), eval_freq=0,
        eval=EvalConfig(n_episodes=2, n_episodes_during=2, batch_size=2, n_videos=0),
    )  # fmt: skip
    Trainer(config).train()
    assert len(metrics(config.output_dir, "train")) == 1
    assert f"--rename_map='{json.dumps(rename_map)}'" in capsys.readouterr().out
    assert f"rename_map:\n  {ROBOT}: {STATE}\n" in (config.output_dir / "rlft_config.yaml").read_text()
    folder = config.output_dir / "checkpoints/last/pretrained_model"
    assert saved_renames(read_processors(str(folder))) == rename_map


def test_datasets_are_not_renamed(bc_config):
    with pytest.raises(UserError, match=r"rename_map=.*algorithm.type=bc learns from a dataset"):
        bc_config(rename_map={ROBOT: STATE})


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pi0", "smolvla"])
def test_fewer_cameras_than_the_policy_knows(kind, capsys):
    cameras = {f"observation.images.camera{i}": (FeatureType.VISUAL, (3, SIZE, SIZE)) for i in (1, 2, 3)}
    inputs = {STATE: (FeatureType.STATE, (4,)), **cameras}
    stats = {STATE: {"mean": [0.0] * 4, "std": [1.0] * 4}, "action": {"mean": [0.0] * 2, "std": [1.0] * 2}}
    rename_map = {"observation.images.top": "observation.images.camera1",
                  "observation.images.wrist": "observation.images.camera2"}  # fmt: skip
    for empty, fits in ((0, False), (1, True)):
        policy = vlas.build(kind, inputs, {"action": (FeatureType.ACTION, (2,))}, stats, empty_cameras=empty)
        rename_inputs(policy, rename_map)
        if not fits:
            with pytest.raises(UserError, match=r"camera3 is missing instead of \(3, 48, 48\)"):
                make_runner(CameraEnvConfig(), policy, 2, rename_map=rename_map)
            continue
        runner = make_runner(CameraEnvConfig(), policy, 2, rename_map=rename_map)
        episodes = runner.evaluate(2, np.arange(2), runner.deployed)
        assert episodes.length.tolist() == [8, 8]
