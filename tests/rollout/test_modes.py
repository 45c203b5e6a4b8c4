"""The atlas of a run: fitted, given, or inside the checkpoint of a policy that was told its modes."""

from types import SimpleNamespace

import numpy as np
import pytest
from families import diffusion

from lerobot_rlft.diversity.atlas import AtlasConfig, ModeAtlas
from lerobot_rlft.policies.base import Exploration
from lerobot_rlft.policies.rlft_commanded.adapter import commanded
from lerobot_rlft.rollout.episodes import Episodes
from lerobot_rlft.rollout.modes import first_atlas, settle_atlas
from lerobot_rlft.utils.errors import UserError

ENV, KEY = "maze", "observation.state"


def paths(left: int, right: int, seed: int = 0) -> np.ndarray:
    """Bows to the left of a line, then bows to the right, (E, 20, 2)."""
    rng, y = np.random.default_rng(seed), np.linspace(0, 2, 20)
    side = np.repeat([-1.0, 1.0], [left, right])[:, None]
    x = side * (0.6 + 0.05 * rng.standard_normal(side.shape)) * np.sin(np.pi * y / 2)
    return np.stack([x, np.broadcast_to(y, x.shape)], -1) + 0.01 * rng.standard_normal((*x.shape, 2))


def episodes(states: np.ndarray, mode: np.ndarray | None = None) -> Episodes:
    zeros = np.zeros(len(states))
    return Episodes(zeros == 0, mode, zeros, zeros, zeros, {KEY: states})


@pytest.fixture(scope="module")
def atlas() -> ModeAtlas:
    """Left, the more frequent one, is mode 0."""
    return ModeAtlas.fit(paths(30, 20), env=ENV, key=KEY)


def told(shares=(0.6, 0.4)):
    policy = commanded(diffusion(n_obs_steps=1), Exploration())
    policy.command(list(shares))
    return policy


def source(folder) -> SimpleNamespace:
    return SimpleNamespace(pretrained_path=folder, pretrained_revision=None)


def settle(policy, folder, played, path=None):
    """What a run settles on after its base's episodes."""
    options = AtlasConfig(path=path)
    first = first_atlas(options, ENV, policy, source(folder))
    return settle_atlas(options, ENV, policy, source(folder), first, [], played)


def test_a_commanded_policy_keeps_the_numbers_it_was_told(atlas, tmp_path):
    """It goes right more often than its base did: an atlas fitted now would call that mode 0."""
    atlas.save(tmp_path)
    now = episodes(paths(30, 60, seed=1))
    fitted, _ = settle(diffusion(n_obs_steps=1), tmp_path, now)
    assert fitted.assign(now.states[KEY]).tolist() == [1] * 30 + [0] * 60
    kept, sentence = settle(told(), tmp_path, now)
    assert kept.assign(now.states[KEY]).tolist() == [0] * 30 + [1] * 60
    assert kept.same_as(atlas) and sentence == ""


def test_the_same_atlas_may_be_named(atlas, tmp_path):
    for name in ("policy", "run"):
        atlas.save(tmp_path / name)
    kept, _ = settle(told(), tmp_path / "policy", episodes(paths(10, 40)), tmp_path / "run")
    assert kept.same_as(atlas)


def test_another_atlas_is_refused(atlas, tmp_path):
    atlas.save(tmp_path / "policy")
    ModeAtlas.fit(paths(20, 30), env=ENV, key=KEY).save(tmp_path / "other")
    with pytest.raises(UserError, match=r"other numbers modes otherwise than the atlas in --p"):
        first_atlas(AtlasConfig(path=tmp_path / "other"), ENV, told(), source(tmp_path / "policy"))


def test_an_atlas_of_another_task_inside_is_refused(atlas, tmp_path):
    atlas.save(tmp_path)
    with pytest.raises(UserError, match=r"told modes of env.type=maze by observation.state, not of pusht"):
        first_atlas(AtlasConfig(), "pusht", told(), source(tmp_path))


def test_modes_of_the_environment_are_not_those_of_the_atlas_inside(atlas, tmp_path):
    atlas.save(tmp_path)
    named = episodes(paths(2, 2), np.zeros(4, int))
    with pytest.raises(UserError, match=r"told modes of the atlas inside it, and env.type=maze names"):
        settle(told(), tmp_path, named)


def test_a_commanded_policy_without_its_atlas(atlas, tmp_path):
    """As versions before this one saved them: the run's own atlas can be named, and none is fitted."""
    (tmp_path / "policy").mkdir()
    with pytest.raises(UserError, match=r"was told 2 modes, and neither .*--atlas.path=RUN/diversity"):
        settle(told(), tmp_path / "policy", episodes(paths(10, 40)))
    atlas.save(tmp_path / "run")
    kept, _ = settle(told(), tmp_path / "policy", episodes(paths(10, 40)), tmp_path / "run")
    assert kept.same_as(atlas)
    with pytest.raises(UserError, match=r"has 2 modes and --policy.path=.* was told 3"):
        settle(told((0.5, 0.3, 0.2)), tmp_path / "policy", episodes(paths(10, 40)), tmp_path / "run")
    # Where the environment named them, it does so again.
    assert settle(told(), tmp_path / "policy", episodes(paths(2, 2), np.zeros(4, int))) == (None, "")


def test_an_atlas_that_is_not_used_is_mentioned(atlas, tmp_path):
    atlas.save(tmp_path)
    played = episodes(paths(2, 2), np.zeros(4, int))
    none, sentence = settle(diffusion(n_obs_steps=1), tmp_path, played, tmp_path)
    assert none is None and f"--atlas.path={tmp_path} is not used" in sentence


def test_the_sentence_says_what_was_clustered_and_how_sure_it_is(tmp_path):
    moved = paths(300, 200) + np.random.default_rng(0).uniform(-1, 1, (500, 1, 2))
    _, sentence = settle(diffusion(n_obs_steps=1), tmp_path, episodes(moved))
    assert sentence.startswith(
        "mode atlas: 2 modes in 500 paths of observation.state, the base's successes, less what their start "
        "explains; 0 % belong to none; random halves agree on them by an adjusted Rand index of 1.00"
    )
    rng, t = np.random.default_rng(0), np.linspace(0, 1, 20)[:, None]
    start, goal = rng.uniform(-1, 1, (2, 160, 1, 2))
    _, sentence = settle(diffusion(n_obs_steps=1), tmp_path, episodes(start + (goal - start) * t))
    assert (
        "All are one mode: random halves agree on clusters by an adjusted Rand index of only 0." in sentence
    )
