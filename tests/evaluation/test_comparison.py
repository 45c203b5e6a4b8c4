"""What is checked before policies play, and where modes come from."""

from types import SimpleNamespace

import numpy as np
import pytest

from lerobot_rlft.diversity.atlas import AtlasConfig, ModeAtlas
from lerobot_rlft.evaluation.comparison import atlas_for, given_atlas
from lerobot_rlft.rollout.episodes import Episodes
from lerobot_rlft.utils.errors import UserError

KEY = "observation.state"


@pytest.fixture
def folder(tmp_path):
    """An atlas of the env "maze", fitted on 3 numbers of the state."""
    states = np.random.default_rng(0).normal(size=(30, 5, 3)).cumsum(1)
    ModeAtlas.fit(states, env="maze", key=KEY).save(tmp_path)
    return tmp_path


def config(path, env: str = "maze", key: str = KEY) -> SimpleNamespace:
    policy = SimpleNamespace(type="diffusion")
    return SimpleNamespace(
        atlas=AtlasConfig(path=path, key=key), env=SimpleNamespace(type=env), policy=policy
    )


def test_an_atlas_that_fits(folder):
    assert given_atlas(config(folder), {KEY: 3}).num_modes >= 1
    assert given_atlas(config(None), {KEY: 3}) is None


def test_a_commanded_policy_brings_the_atlas_of_its_modes(folder):
    plain = config(None)
    plain.policy = SimpleNamespace(type="rlft_commanded", pretrained_path=folder, pretrained_revision=None)
    assert given_atlas(plain, {KEY: 3}).same_as(ModeAtlas.load(folder))
    # Of another task, or of states of another size, it says nothing here: one is fitted.
    assert given_atlas(plain, {KEY: 4}) is None
    plain.env.type = "pusht"
    assert given_atlas(plain, {KEY: 3}) is None


@pytest.mark.parametrize(
    "env, sizes, answer",
    [
        ("pusht", {KEY: 3}, "maze"),
        ("maze", {KEY: 4}, "of 3 numbers, here it has 4"),
        (
            "maze",
            {"observation.environment_state": 3},
            "env.type=maze does not give .it gives observation.environment_state",
        ),
        ("maze", {}, "does not give .it gives no vectors"),
    ],
)
def test_an_atlas_of_something_else_is_refused_before_anything_plays(env, sizes, answer, folder):
    with pytest.raises(UserError, match=answer):
        given_atlas(config(folder, env), sizes)


def test_modes_of_the_environment_come_before_those_of_an_atlas(folder, capsys):
    column = np.ones(4)
    paths = {KEY: np.zeros((4, 5, 3))}
    named = Episodes(column.astype(bool), np.arange(4), column, column, column, paths)
    given = given_atlas(config(folder), {KEY: 3})
    assert atlas_for(config(folder), given, named) is None
    said = capsys.readouterr()
    assert f"warning: --atlas.path={folder} is not used" in said.out + said.err
    unnamed = Episodes(column.astype(bool), None, column, column, column, paths)
    assert atlas_for(config(folder), given, unnamed) is given
