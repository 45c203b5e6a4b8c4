"""What datasets say of their episodes."""

from dataclasses import replace

import numpy as np
import pytest
from lerobot.datasets import LeRobotDataset
from recorded_data import STATE, read, record

from lerobot_rlft.configs.train import load_policy_config
from lerobot_rlft.datasets.recorded import check_alike, check_outcomes, name_attempts
from lerobot_rlft.utils.errors import UserError


@pytest.fixture(scope="module")
def policy(base_policy):
    return load_policy_config(str(base_policy), [])


def outcomes(data, policy, **options):
    return [None if np.isnan(s) else bool(s) for s in read(data, policy, **options).success]


@pytest.mark.slow
def test_success_from_each_source(policy, tmp_path):
    both = {"next_success": [True, False, False], "next_reward": [0.0, 0.5, 2.0]}
    said = record(tmp_path / "a", (5, 4, 6), **both)
    assert outcomes(said, policy) == [True, False, False]
    assert outcomes(replace(said, successes=[1, 2]), policy) == [False, True, True]
    assert outcomes(replace(said, episodes=[0, 2]), policy) == [True, False]
    paid = record(tmp_path / "b", (5, 4, 6), next_reward=both["next_reward"])
    assert outcomes(paid, policy) == [False, True, True]
    assert outcomes(replace(paid, success_reward=2.0), policy) == [False, False, True]
    bare = record(tmp_path / "c", (5, 4, 6))
    assert outcomes(bare, policy) == [None] * 3
    assert outcomes(bare, policy, demonstration=True) == [True] * 3
    with pytest.raises(
        UserError, match=r"successes=\[7\] are no episodes of 'local/recorded', which has 0 to 2"
    ):
        outcomes(replace(said, successes=[0, 7]), policy)


def test_an_episode_without_an_end_has_no_outcome(policy, tmp_path):
    data = record(
        tmp_path / "a", (5, 4, 6), next_success=[True, False, False], next_done=[False, True, False]
    )
    assert outcomes(data, policy) == [True, False, None], "a success is one, whether or not done was marked"
    said = []
    check_outcomes([read(data, policy)], said.append)
    assert said == [
        "warning: 1 of 3 episodes of data have no known end or outcome; their frames are learned from "
        "without a label"
    ]


def test_what_can_be_learned_from_the_outcomes(policy, tmp_path):
    demos = read(record(tmp_path / "d", (5,)), policy, "demonstrations", demonstration=True)
    bare = read(record(tmp_path / "b", (5, 4)), policy, "bare")
    for datasets, where in (
        ([demos, bare], "bare"),
        ([demos], "the demonstrations alone"),
        ([], "the demon"),
    ):
        with pytest.raises(
            UserError, match=rf"nothing says which episodes succeeded \({where}.*next.success"
        ):
            check_outcomes(datasets)
    said = []
    won = read(record(tmp_path / "w", (5, 4), next_success=[True, True]), policy)
    check_outcomes([won], said.append)
    lost = read(record(tmp_path / "l", (5, 4), next_success=[False, False]), policy)
    check_outcomes([demos, lost], said.append)
    check_outcomes([won, lost], said.append)
    assert len(said) == 2
    assert "all recorded episodes succeeded" in said[0] and "behaviour cloning" in said[0]
    assert "all recorded episodes failed" in said[1] and "only demonstrations and corrections" in said[1]


def test_datasets_must_be_alike(policy, tmp_path):
    one = read(record(tmp_path / "a", (5,)), policy, "one")
    fast = read(record(tmp_path / "b", (5,), fps=30), policy, "fast")
    with pytest.raises(UserError, match="differ in fps: 28 in one, 30 in fast: resample"):
        check_alike([one, fast], policy)
    wide = read(record(tmp_path / "c", (5,), state=5), policy, "wide")
    with pytest.raises(UserError, match=r"differ in observation.state: \(4,\) in one, \(5,\) in wide: use"):
        check_alike([one, wide], policy)
    check_alike([one, one], policy)


def test_corrections_as_lerobots_dagger_strategy_writes_them(policy, tmp_path):
    """`lerobot.rollout.context` adds the feature `intervention`, bool, shape (1,), for that strategy."""
    marked = [[False, False, True, True, False], [False] * 4]
    data = read(record(tmp_path / "a", (5, 4), intervention=marked), policy)
    assert LeRobotDataset("local/recorded", tmp_path / "a").meta.features["intervention"]["shape"] == (1,)
    assert data.intervention.tolist() == [*marked[0], *marked[1]]
    assert data.forced.tolist() == data.intervention.tolist()
    check_outcomes([data])  # corrections are enough to learn from
    assert read(data=record(tmp_path / "d", (3,)), policy=policy, demonstration=True).forced.all()


def test_a_fingerprint_tells_datasets_apart(policy, tmp_path):
    a = read(record(tmp_path / "a", (5, 4)), policy).fingerprint
    assert a == read(record(tmp_path / "b", (5, 4), repo_id="local/other"), policy).fingerprint
    assert a != read(record(tmp_path / "c", (5, 4), seed=1), policy).fingerprint
    assert a != read(record(tmp_path / "d", (4, 5)), policy).fingerprint


def test_failures_get_the_mode_of_the_nearest_success(policy, tmp_path):
    won = read(record(tmp_path / "a", (5, 5), next_success=[True, True], mode=[7, 3]), policy)
    lost = read(record(tmp_path / "b", (3, 3), next_success=[False, False], mode=[-1, 5]), policy)
    lost.paths[0] = won.paths[1][:3]
    name_attempts([won, lost])
    assert won.mode.tolist() == [7, 3] and lost.mode.tolist() == [3, 5]
    assert STATE == "observation.state"
