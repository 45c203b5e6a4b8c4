"""Episodes by their initial state, and the ways ratio of real paths."""

from types import SimpleNamespace

import numpy as np
import pytest

from lerobot_rlft.diversity.atlas import AtlasConfig
from lerobot_rlft.evaluation import initial_states
from lerobot_rlft.evaluation.initial_states import by_start, counts_by_state, measure_ways, parts
from lerobot_rlft.evaluation.measures import Metrics
from lerobot_rlft.rollout.episodes import Episodes

RUNNER = SimpleNamespace(tasks=())
KEY = "observation.state"


def episodes_of(states: np.ndarray, mode: np.ndarray | None = None) -> Episodes:
    ones = np.ones(len(states))
    return Episodes(ones == 1, mode, ones, ones, ones, {KEY: states})


def options(**fields) -> SimpleNamespace:
    defaults = {"n_episodes": 960, "n_initial_states": 30, "seed": 7, "atlas": AtlasConfig()}
    return SimpleNamespace(**(defaults | fields))


@pytest.mark.parametrize(
    "n_episodes, states, repeats",
    [(960, 30, 32), (60, 30, 2), (59, 29, 2), (8, 4, 2), (3, 1, 3)],
)
def test_no_more_episodes_are_played_from_fixed_states_than_were_asked_for(
    n_episodes, states, repeats, monkeypatch, capsys
):
    def play(runner, count, seed, attempts):
        assert (count, seed, attempts) == (states * repeats, 7, repeats)
        return episodes_of(np.zeros((count, 1, 2)), np.arange(count) // attempts % 2)

    monkeypatch.setattr(initial_states, "play", play)
    first = episodes_of(np.arange(4.0).reshape(2, 1, 2))
    groups = by_start("base", RUNNER, first, True, options(n_episodes=n_episodes))
    counts = counts_by_state(groups, SimpleNamespace(call=lambda name: (2,)), None)
    assert counts.tolist() == [[repeats, 0] if i % 2 == 0 else [0, repeats] for i in range(states)]
    output = capsys.readouterr()
    assert (f"base: n_episodes={n_episodes} suffices for {states} initial" in output.out + output.err) == (
        states < 30
    )


def test_episodes_that_all_start_alike_are_cut_into_groups():
    groups = by_start("base", RUNNER, episodes_of(np.zeros((37, 3, 2))), False, options())
    assert [len(group.success) for group in groups] == [16, 16]


def test_nothing_is_played_where_nothing_is_measured():
    pictures = episodes_of(np.zeros((4, 3, 2)))
    pictures.states = {}
    assert by_start("base", RUNNER, pictures, False, options()) == []
    assert by_start("base", RUNNER, episodes_of(np.zeros((4, 3, 2))), True, options(n_initial_states=0)) == []


def from_starts(sides: tuple[float, ...], seed: int, starts: int = 20, repeats: int = 12) -> list[Episodes]:
    """Bows to these sides alike often, from starts that lie farther apart than ways do."""
    rng, t = np.random.default_rng(seed), np.linspace(0, 1, 30)
    origin = np.repeat(10 * np.random.default_rng(0).standard_normal((starts, 2)), repeats, 0)
    side = rng.choice(sides, (len(origin), 1)) + 0.02 * rng.standard_normal((len(origin), 1))
    bows = np.stack([side * np.sin(np.pi * t), np.broadcast_to(t, (len(origin), 30))], -1)
    return parts(episodes_of(origin[:, None] + bows), repeats)


def test_the_ways_ratio_does_not_care_where_episodes_start():
    m, base = Metrics(), from_starts((-2.0, -1.0, 1.0, 2.0), 1)
    measure_ways(m, from_starts((-2.0, -1.0, 1.0, 2.0), 2), base, KEY)
    low, high = m["ways_ratio_ci"]
    assert low < 1 < high and m["ways_ratio"] == pytest.approx(1, abs=0.2) and m["ways_ratio_samples"] == 20
    measure_ways(m, from_starts((2.0,), 2), base, KEY)
    assert m["ways_ratio"] == pytest.approx(0.25, abs=0.06)  # one of four is left
    assert m["ways_ratio_control"] == pytest.approx(1, abs=0.4)


def test_an_environment_that_ignores_its_seeds_repeats_no_start():
    rng, m = np.random.default_rng(0), Metrics()
    groups = parts(episodes_of(rng.standard_normal((120, 5, 2))), 12)
    measure_ways(m, groups, groups, KEY)
    assert m["ways_ratio"] is None and "same seed start differently" in m["notes"]["ways_ratio"]


def test_without_paths_there_is_no_ways_ratio():
    m = Metrics()
    measure_ways(m, [], [], KEY)
    assert m["ways_ratio"] is None and "gives no paths" in m["notes"]["ways_ratio"]
