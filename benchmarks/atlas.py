"""Modes without labels, against the labels: the atlas and the ways ratio on episodes of the committed bases.

OMP_NUM_THREADS=1 python -m benchmarks.atlas

Labels are read for scoring only.
"""

from collections.abc import Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path

import numpy as np
from lerobot.configs import PreTrainedConfig
from lerobot.envs import EnvConfig
from scipy.stats import spearmanr
from sklearn.metrics import adjusted_rand_score

import lerobot_rlft.plugin  # noqa: F401  registers the environments
from lerobot_rlft.diversity.atlas import ModeAtlas
from lerobot_rlft.diversity.paths import resample
from lerobot_rlft.metrics.ways import CLOSE, ways_ratio
from lerobot_rlft.policies.loading import load_policy
from lerobot_rlft.rollout.environments import make_runner
from lerobot_rlft.rollout.evaluation import play

ROOT = Path(__file__).parents[1]
EPISODES, REPEATS, KEY = 2000, 16, "observation.state"


def successes(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Paths (E, L+1, S) of the successes of a committed base, and their true modes (E,)."""
    path = ROOT / f"recipes/{name}_base"
    policy = load_policy(PreTrainedConfig.from_pretrained(path), path)
    runner = make_runner(EnvConfig.get_choice_class(name)(), policy, 500)
    with closing(runner):
        episodes = play(runner, EPISODES, 0)
    return episodes.states[KEY][episodes.success].astype(float), episodes.mode[episodes.success]


def shifted(states: np.ndarray, seed: int) -> np.ndarray:
    """Every episode of Avoiding-Lite as a whole moved by up to .1 on both axes, which its start shows."""
    offset = np.random.default_rng(seed).uniform(-0.1, 0.1, (len(states), 2))
    return states + np.tile(offset, 2)[:, None]


def human() -> np.ndarray:
    """Positions of the pusher in the human demonstrations of Push-T, (206, L, 2)."""
    data = np.load(ROOT / "recipes/data/pusht_human_206.npz")
    parts = np.split(data["state"][:, :2], data["episode_ends"][:-1])
    out = np.full((len(parts), max(map(len, parts)), 2), np.nan)
    for row, part in zip(out, parts, strict=True):
        row[: len(part)] = part
    return out


def nothing(kind: str, count: int, seed: int) -> np.ndarray:
    """Paths without ways: random walks, or reaches from anywhere to anywhere."""
    rng, t = np.random.default_rng(seed), np.linspace(0, 1, 50)[:, None]
    if kind == "walks":
        return rng.standard_normal((count, 60, 2)).cumsum(1)
    start, goal = rng.uniform(-1, 1, (2, count, 1, 2))
    return start + (goal - start) * t + 0.01 * rng.standard_normal((count, 50, 2))


def atlas_rows() -> Iterator[str]:
    """One line for each set of paths."""
    head = ("paths", "episodes", "modes", "agreement", "ARI, all", "ARI, held out")
    yield "{:24s} {:>8s} {:>6s} {:>10s} {:>9s} {:>14s}".format(*head)
    avoiding, modes = successes("avoiding")
    for count in (120, 160, 320, 640, len(avoiding)):
        rows = np.random.default_rng(0).permutation(len(avoiding))[:count]
        yield line("avoiding", avoiding[rows], modes[rows])
        for seed in range(3 if count == len(avoiding) else 1):
            yield line(f"avoiding, shifted ({seed})", shifted(avoiding[rows], seed), modes[rows])
    yield line("grasps", *successes("grasps"))
    yield line("pusht, human", human())
    for kind in ("walks", "reaches"):
        for count in (40, 160, 600):
            yield line(f"{kind}, no ways", nothing(kind, count, 0))


def line(name: str, states: np.ndarray, modes: np.ndarray | None = None) -> str:
    def fit(rows: slice) -> ModeAtlas:
        return ModeAtlas.fit(states[rows], env=name, key=KEY)

    atlas, scores = fit(slice(None)), ["-", "-"]
    if modes is not None:
        half, rest = slice(None, None, 2), slice(1, None, 2)
        scores[0] = f"{adjusted_rand_score(modes, atlas.assign(states)):.3f}"
        scores[1] = f"{adjusted_rand_score(modes[rest], fit(half).assign(states[rest])):.3f}"
    agreement = "-" if atlas.agreement is None else f"{atlas.agreement:.2f}"
    return (
        f"{name:24s} {len(states):8d} {atlas.num_modes:6d} {agreement:>10s} {scores[0]:>9s} {scores[1]:>14s}"
    )


def ways_rows() -> Iterator[str]:
    """The ways ratio beside the true one, the ratio of the chances that two successes are of one mode."""
    states, modes = successes("avoiding")
    paths = resample(states, 16, equal_times=True)
    rows = (paths / paths.std((0, 1))).reshape(len(paths), -1)
    rng = np.random.default_rng(0)
    base, pool = np.array_split(rng.permutation(len(rows)), 2)

    def groups(ids: np.ndarray) -> list[np.ndarray]:
        return [rows[part] for part in np.array_split(ids, len(ids) // REPEATS)]

    def chance(ids: np.ndarray) -> float:
        return float(np.square(np.bincount(modes[ids]) / len(ids)).sum())

    frequent = np.argsort(-np.bincount(modes))
    closes = (0.03, CLOSE, 0.25)
    yield "modes kept   true   ways ratio at close = " + ", ".join(map(str, closes))
    for kept in (24, 8, 3, 1):
        tuned = rng.choice(pool[np.isin(modes[pool], frequent[:kept])], len(base))
        ratios = [ways_ratio(groups(tuned), groups(base), close) for close in closes]
        shown = "  ".join(f"{r.ratio:.2f} [{r.low:.2f}, {r.high:.2f}]" for r in ratios)
        yield f"{kept:10d}   {chance(base) / chance(tuned):.2f}   {shown}"
    true, measured = [], []
    for _ in range(40):  # policies of all degrees of collapse
        weight = rng.dirichlet(np.full(len(frequent), rng.choice([0.05, 0.2, 1.0, 5.0])))
        share = weight[modes[pool]] / np.bincount(modes[pool], minlength=len(weight))[modes[pool]]
        tuned = rng.choice(pool, len(base), p=share / share.sum())
        true.append(chance(base) / chance(tuned))
        measured.append(ways_ratio(groups(tuned), groups(base)).ratio)
    error = np.exp(np.abs(np.log(np.array(measured) / true)).mean()) - 1
    yield (
        f"40 policies, true ratios {min(true):.2f} to {max(true):.2f}: rank correlation "
        f"{spearmanr(true, measured).statistic:.3f}, mean error {100 * error:.0f} %"
    )


if __name__ == "__main__":
    for row in chain(atlas_rows(), [""], ways_rows()):
        print(row, flush=True)
