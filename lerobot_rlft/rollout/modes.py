"""The atlas that names modes where the environment does not: from disk, or fitted to episodes of the base."""

from pathlib import Path

import numpy as np

from ..diversity.atlas import AtlasConfig, ModeAtlas
from ..diversity.suite_atlas import Atlas, SuiteAtlas, load_any
from ..metrics.points import join_paths
from ..utils.errors import UserError
from .episodes import Episodes

ENOUGH_SUCCESSES = 20  # with fewer, an atlas clusters all episodes of the base
MANY_PATHS = 500  # with fewer, clusters of a task with 24 modes are not stable under resampling


def load_atlas(folder: Path, env: str, key: str) -> Atlas:
    """Read an atlas that fits the environment.

    Raises:
        UserError: it is missing, damaged, or of another environment or observation.
    """
    atlas = load_any(folder)
    atlas.check(env, key)
    return atlas


def fit_atlas(
    options: AtlasConfig,
    env: str,
    demonstrations: list[np.ndarray],
    episodes: Episodes,
    tasks: tuple[str, ...] = (),
) -> tuple[Atlas | None, str]:
    """Cluster the paths of the base's successes and of demonstrations; of several tasks each by itself.

    Args:
        env: type of the environment.
        demonstrations: arrays (E, L+1, S).
        episodes: of the base.
        tasks: of several, their names or the sentences that recorded episodes carry; demonstrations, whose
            tasks are not known, are then left out.

    Returns:
        the atlas, None where there is nothing to cluster, and a sentence about it.
    """
    if options.key not in episodes.states:
        keys = ", ".join(episodes.states) or "none"
        return None, (
            f"warning: no modes, the environment gives no {options.key} whose path could be clustered "
            f"(--atlas.key, known here: {keys})"
        )
    selection, of = episodes[episodes.success], "successes"
    if selection.success.sum() < ENOUGH_SUCCESSES:
        selection, of = episodes, f"episodes (only {int(episodes.success.sum())} succeeded)"
    several = bool(tasks) and selection.task is not None
    paths = [selection.states[options.key], *([] if several else demonstrations)]

    def fit(states: np.ndarray) -> ModeAtlas:
        return ModeAtlas.fit(
            states, options.dims, env=env, key=options.key, min_cluster_size=options.min_cluster_size
        )

    atlas: Atlas
    try:
        if several:
            atlas = SuiteAtlas.fit(fit, tasks, paths[0], selection.task, options.key)
        else:
            atlas = fit(join_paths(paths))
    except UserError as error:
        return None, f"warning: no modes, {error}"
    count = sum(map(len, paths))
    modes = f"{atlas.num_modes} modes"
    if isinstance(atlas, SuiteAtlas):
        modes = f"{sum(a.num_modes for a in atlas.atlases if a is not None)} modes of {len(tasks)} tasks"
    message = f"mode atlas: {modes} in {count} paths of {options.key}, the base's {of}; "
    message += f"{100 * atlas.unknown_share:.0f} % belong to none"
    if count < MANY_PATHS:
        message += f". Below {MANY_PATHS} paths modes may be split or merged: play more episodes"
    return atlas, message
