"""Modes from paths alone."""

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from lerobot_rlft.diversity.atlas import ModeAtlas
from lerobot_rlft.diversity.paths import path_features, resample
from lerobot_rlft.envs.avoiding.avoiding import NUM_MODES, AvoidingVectorEnv
from lerobot_rlft.envs.avoiding.demonstrations import record_episode
from lerobot_rlft.utils.errors import UserError

HERE = {"env": "avoiding", "key": "observation.state"}


def padded(paths) -> np.ndarray:
    out = np.full((len(paths), max(map(len, paths)), len(paths[0][0])), np.nan)
    for row, path in zip(out, paths, strict=True):
        row[: len(path)] = path
    return out


def around(side: int, count: int, seed: int, steps: int = 30) -> list[np.ndarray]:
    """Noisy paths from (0, 0) to (0, 2) around an obstacle at (0, 1), on the left (-1) or the right (1)."""
    rng = np.random.default_rng([seed, side + 1])
    y = np.linspace(0, 2, steps)
    width = 0.6 + 0.05 * rng.standard_normal((count, 1))
    x = side * width * np.sin(np.pi * y / 2)
    return list(
        np.stack([x, np.broadcast_to(y, x.shape)], -1) + 0.01 * rng.standard_normal((count, steps, 2))
    )


@pytest.fixture(scope="module")
def sides() -> ModeAtlas:
    return ModeAtlas.fit(padded(around(-1, 30, 0) + around(1, 20, 0, steps=45)), **HERE)


def test_points_lie_at_equal_arc_length():
    # Length 3 + 4 = 7; a rest in the middle adds nothing, and neither does the padding.
    path = [[0, 0], [3, 0], [3, 0], [3, 4]]
    points = resample(padded([path, [[1, 1]]]), points=8)
    assert points[0].tolist() == [[0, 0], [1, 0], [2, 0], [3, 0], [3, 1], [3, 2], [3, 3], [3, 4]]
    assert (points[1] == 1).all()  # never moved


def test_points_lie_at_equal_times_when_asked():
    # Three steps of one time unit each, of length 3, 0 and 4; points every half unit.
    points = resample(padded([[[0, 0], [3, 0], [3, 0], [3, 4]]]), points=7, equal_times=True)
    assert points[0].tolist() == [[0, 0], [1.5, 0], [3, 0], [3, 0], [3, 0], [3, 2], [3, 4]]


def test_a_rest_on_the_way_does_not_change_the_mode(sides):
    rested = [np.concatenate([path[:9], np.repeat(path[9:10], 25, 0), path[9:]]) for path in around(1, 5, 7)]
    assert sides.assign(padded(rested)).tolist() == [1] * 5


def test_features_of_groups_share_their_units():
    one, two = path_features([padded([[[0, 0, 5], [2, 0, 5]]]), padded([[[0, 0, 5], [0, 4, 5], [0, 8, 5]]])])
    assert one.shape == two.shape == (1, 32 * 3)
    # x ranges over 2, y over 8, the third dim is constant.
    assert one[0, -3:].tolist() == [1, 0, 5] and two[0, -3:].tolist() == [0, 1, 5]


def test_two_ways_around_an_obstacle(sides):
    assert sides.num_modes == 2 and sides.unknown_share == 0 and sides.dims == (0, 1)
    # The larger is mode 0; episodes that were not fitted, of any length.
    new = padded(around(1, 5, 7, steps=70) + around(-1, 5, 7))
    assert sides.assign(new).tolist() == [1] * 5 + [0] * 5
    middle = sides.representative(0)[16]
    assert middle == pytest.approx([-0.6, 1.0], abs=0.1)


def test_what_goes_another_way_is_unknown(sides):
    straight = np.stack([np.zeros(20), np.linspace(0, 2, 20)], -1)
    half = around(1, 1, 9)[0][:8]
    assert sides.assign(padded([straight, half])).tolist() == [-1, -1]
    assert sides.assign(np.zeros((0, 3, 2))).tolist() == []


def ways(count: int, seed: int, sides=(-1.0, -0.4, 0.4, 1.0), width: float = 0.6) -> np.ndarray:
    """`count` paths, as many by each of `sides`, of one distribution."""
    rng, y = np.random.default_rng(seed), np.linspace(0, 2, 40)
    side = np.repeat(sides, count // len(sides))[:, None]
    x = side * (width + 0.05 * rng.standard_normal(side.shape)) * np.sin(np.pi * y / 2)
    x = x + 0.03 * rng.standard_normal(side.shape) * np.sin(np.pi * y)
    return np.stack([x, np.broadcast_to(y, x.shape)], -1) + 0.01 * rng.standard_normal((*x.shape, 2))


def test_the_reach_does_not_shrink_with_more_episodes():
    few, some, many = (ModeAtlas.fit(ways(count, 0), **HERE) for count in (60, 240, 960))
    assert few.num_modes == some.num_modes == many.num_modes == 4
    assert few.reach.mean() == pytest.approx(many.reach.mean(), rel=0.15)
    assert some.reach.mean() == pytest.approx(many.reach.mean(), rel=0.15)


@pytest.mark.parametrize("count", [60, 240, 960])
def test_a_way_of_the_base_gone_otherwise_is_known(count):
    """A tuned policy that swings out farther than the base ever did, nowhere near the other ways."""
    atlas = ModeAtlas.fit(ways(count, 0), **HERE)
    right = atlas.assign(ways(4, 1))[-1]
    outer = ways(100, 2, sides=[1.0], width=0.82)
    assert (atlas.assign(outer) == right).mean() >= 0.95
    # In the middle of two ways it goes neither, and far outside none.
    assert (atlas.assign(ways(100, 3, sides=[0.0])) == -1).mean() >= 0.95
    assert (atlas.assign(ways(100, 4, sides=[2.4])) == -1).all()


def test_one_way_alone_has_no_second_to_be_nearer_than():
    atlas = ModeAtlas.fit(padded(around(1, 40, 0)), **HERE)
    farther = padded(around(1, 20, 1)) + np.array([0.4, 0])
    assert atlas.num_modes == 1 and (atlas.assign(farther) == -1).all()


def test_it_is_the_same_after_saving(sides, tmp_path):
    moving = ModeAtlas.fit(ways(60, 0) + np.random.default_rng(0).uniform(-1, 1, (60, 1, 2)), **HERE)
    for fitted in (sides, moving):
        fitted.save(tmp_path / "atlas")
        again = ModeAtlas.load(tmp_path / "atlas")
        assert again.same_as(fitted)
        assert np.array_equal(again.assign(ways(20, 1)), fitted.assign(ways(20, 1)))
    assert moving.effect is not None and not moving.same_as(sides)


def test_an_atlas_from_before_starts_were_looked_at(sides, tmp_path):
    sides.save(tmp_path)
    plain = json.loads((tmp_path / "atlas.json").read_text())
    del plain["agreement"]
    (tmp_path / "atlas.json").write_text(json.dumps(plain))
    again = ModeAtlas.load(tmp_path)
    assert again.agreement is None and again.effect is None
    assert again.assign(ways(20, 1)).tolist() == sides.assign(ways(20, 1)).tolist()


def test_what_is_saved_of_an_atlas(sides, tmp_path):
    sides.save(tmp_path / "atlas")
    assert sorted(p.name for p in (tmp_path / "atlas").iterdir()) == ["atlas.json", "atlas.safetensors"]


def test_one_way_only_is_one_mode():
    atlas = ModeAtlas.fit(padded(around(1, 30, 0)), **HERE)
    assert atlas.num_modes == 1 and atlas.assign(padded(around(1, 10, 1))).max() == 0
    # Too few for a cluster: one mode rather than none.
    assert ModeAtlas.fit(padded(around(1, 2, 0)), **HERE).num_modes == 1


def test_the_24_modes_of_avoiding_from_positions_alone():
    env, rng = AvoidingVectorEnv(1), np.random.default_rng(0)
    modes = np.repeat(np.arange(NUM_MODES), 16)
    states = padded([record_episode(env, mode, 0.003, rng)[0] for mode in modes])
    fitted = np.arange(len(modes)) % 2 == 0
    for dims in ([2, 3], None):  # current position; all
        atlas = ModeAtlas.fit(states[fitted], dims, **HERE)
        assert adjusted_rand_score(modes[fitted], atlas.assign(states[fitted])) >= 0.9
        assert adjusted_rand_score(modes[~fitted], atlas.assign(states[~fitted])) >= 0.9


def test_the_24_modes_of_avoiding_whatever_the_start():
    """Whole episodes are moved by up to .1, farther than ways are apart; the start shows it."""
    env, rng = AvoidingVectorEnv(1), np.random.default_rng(0)
    modes = np.repeat(np.arange(NUM_MODES), 16)
    states = padded([record_episode(env, mode, 0.003, rng)[0] for mode in modes])
    states += np.tile(rng.uniform(-0.1, 0.1, (len(modes), 2)), 2)[:, None]
    fitted = np.arange(len(modes)) % 2 == 0
    atlas = ModeAtlas.fit(states[fitted], **HERE)
    assert atlas.effect.dims.tolist() == [0, 1, 2, 3] and atlas.agreement >= 0.6
    assert adjusted_rand_score(modes[~fitted], atlas.assign(states[~fitted])) >= 0.9
    without = replace(atlas, effect=None)
    assert adjusted_rand_score(modes[~fitted], without.assign(states[~fitted])) < 0.5


@pytest.mark.parametrize("count", [40, 160])
def test_clusters_that_random_halves_do_not_share_are_one_mode(count):
    """Reaches from anywhere to anywhere have no ways."""
    rng, t = np.random.default_rng(0), np.linspace(0, 1, 20)[:, None]
    start, goal = rng.uniform(-1, 1, (2, count, 1, 2))
    atlas = ModeAtlas.fit(start + (goal - start) * t, **HERE)
    assert atlas.num_modes == 1 and atlas.agreement < 0.6
    # Nobody is refused: all that was fitted belongs to the one.
    assert atlas.unknown_share <= 0.1


def test_halves_of_two_clear_ways_agree(sides):
    assert sides.agreement == 1


LINE = [[0.0, 0.0], [0.0, 1.0]]


@pytest.mark.parametrize(
    "states, options, words",
    [
        (np.zeros((0, 3, 2)), {}, "at least 2 episodes, there are 0"),
        (padded([LINE]), {}, "at least 2 episodes, there are 1"),
        (padded([[[1, 1], [1, 1]]] * 3), {}, "constant in all steps"),
        (padded([LINE] * 3), {"dims": [0, 1]}, r"constant in dims \[0\]"),
        (padded([LINE] * 3), {"dims": [2]}, r"atlas.dims=\[2\] does not fit observation.state of 2 numbers"),
        (padded([LINE] * 3), {"min_cluster_size": 1}, "atlas.min_cluster_size=1 must be at least 2"),
        (np.array([LINE, [[0, np.nan], [0, 1]]]), {}, r"episodes \[1\] hold NaN"),
        (np.array([LINE, [[0, np.inf], [0, 1]]]), {}, r"episodes \[1\] hold NaN or infinity"),
        (np.array([[*LINE, LINE[0]], [LINE[0], [np.nan] * 2, LINE[1]]]), {}, r"episodes \[1\] hold NaN"),
    ],
)
def test_episodes_that_make_no_atlas(states, options, words):
    with pytest.raises(UserError, match=words):
        ModeAtlas.fit(states, **options, **HERE)


def test_an_atlas_of_something_else(sides, tmp_path):
    sides.check("avoiding", "observation.state", 2)
    with pytest.raises(UserError, match=r"of env.type=avoiding, not of pusht"):
        sides.check("pusht", "observation.state")
    with pytest.raises(
        UserError, match=r"of atlas.key=observation.state, not of observation.environment_state"
    ):
        sides.check("avoiding", "observation.environment_state")
    with pytest.raises(UserError, match="of 2 numbers, here it has 4"):
        sides.assign(np.zeros((1, 3, 4)))
    with pytest.raises(UserError, match="no whole mode atlas"):
        ModeAtlas.load(tmp_path / "nowhere")
    (tmp_path / "atlas.json").write_text("5")
    with pytest.raises(UserError, match="no whole mode atlas"):
        ModeAtlas.load(tmp_path)
    sides.save(tmp_path / "cut")
    (tmp_path / "cut" / "atlas.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="no whole mode atlas"):
        ModeAtlas.load(tmp_path / "cut")


def test_twins_still_reach_their_neighbours():
    line = np.stack([np.zeros(20), np.linspace(0, 2, 20)], -1)
    bend = line + [[1, 0]] * np.sin(np.pi * line[:, 1:] / 2)
    atlas = ModeAtlas.fit(padded([line] * 10 + [bend] * 10), **HERE)
    assert atlas.num_modes == 2
    assert len(set(atlas.assign(padded([line + 1e-4, bend + 1e-4])).tolist()) - {-1}) == 2


def test_a_dim_that_is_no_number_in_some_episodes_spoils_only_itself():
    states = padded(around(-1, 20, 0) + around(1, 20, 0))
    partly = np.concatenate([states, np.full_like(states[..., :1], np.nan)], -1)
    partly[:5, :, 2] = 0
    assert ModeAtlas.fit(partly, [0, 1], **HERE).num_modes == 2
