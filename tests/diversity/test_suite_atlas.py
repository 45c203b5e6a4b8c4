"""An atlas of several tasks: each is clustered by itself, and modes are numbered apart."""

from functools import partial

import numpy as np
import pytest

from lerobot_rlft.diversity.atlas import ModeAtlas
from lerobot_rlft.diversity.attempts import Attempts
from lerobot_rlft.diversity.suite_atlas import SuiteAtlas, load_any
from lerobot_rlft.utils.errors import UserError

KEY = "observation.state"
fit = partial(ModeAtlas.fit, env="small", key=KEY)


def fan(ends, count, noise=0.01, seed=0):
    """`count` straight paths to each end, (E, 6, 1)."""
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [[np.linspace(0, end + noise * rng.normal(), 6)[:, None]] for end in np.repeat(ends, count)]
    )


@pytest.fixture(scope="module")
def atlas():
    """Task "a" has two ways, "b" one, "c" no path that varies."""
    states = np.concatenate([fan([1, -1], 10), fan([1], 8), np.zeros((3, 6, 1))])
    return SuiteAtlas.fit(fit, ["a", "b", "c"], states, np.repeat([0, 1, 2], [20, 8, 3]), KEY)


def test_modes_are_numbered_within_their_task(atlas):
    assert [part and part.num_modes for part in atlas.atlases] == [2, 1, None]
    assert atlas.num_modes == 6  # 3 tasks of at most 2
    states, task = fan([1, -1, 1, -1, 1], 1), np.array([0, 0, 1, 1, 2])
    up, down, only, unknown, none = atlas.assign(states, task)
    assert {up, down} == {0, 3} and only == 1
    assert unknown == -1 and none == -1


def test_tasks_by_their_sentences(atlas):
    states, names = fan([1, 1, 1], 1), np.array(["b", "nowhere", "a"], object)
    modes = atlas.assign(states, names)
    assert modes[:2].tolist() == [1, -1] and modes[2] in (0, 3)


def test_tasks_must_be_told(atlas):
    with pytest.raises(ValueError, match="must be told the tasks"):
        atlas.assign(fan([1], 1))


def test_it_is_read_back(atlas, tmp_path):
    atlas.save(tmp_path)
    again = load_any(tmp_path)
    states, task = fan([1, -1, 1], 1, seed=1), np.array([0, 0, 1])
    assert isinstance(again, SuiteAtlas) and again.tasks == ("a", "b", "c") and again.num_modes == 6
    assert again.assign(states, task).tolist() == atlas.assign(states, task).tolist()
    atlas.atlases[0].save(tmp_path / "one")
    assert isinstance(load_any(tmp_path / "one"), ModeAtlas)
    with pytest.raises(UserError, match="holds no whole mode atlas"):
        load_any(tmp_path / "none")
    with pytest.raises(UserError, match=r"env.type=small, not of large"):
        again.check("large", KEY)


def test_without_paths_the_reason_names_a_task():
    with pytest.raises(UserError, match=r"constant in all steps.*\(task b\)"):
        SuiteAtlas.fit(fit, ["a", "b"], np.zeros((6, 4, 1)), np.arange(6) % 2, KEY)


def test_failures_are_held_to_successes_at_their_task():
    base = Attempts(
        fan([1, -1, 1], 1), np.array([0, 3, 1])
    )  # modes 0 and 1 of task 0, mode 0 of task 1, of 3
    failed = fan([-1, -1, 1], 1)
    modes, success, task = np.full(3, -1), np.zeros(3, bool), np.array([0, 1, 2])
    assert base.name(failed, modes, success, task, 3).tolist() == [3, 1, -1]
