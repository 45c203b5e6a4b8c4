"""The atlas that names modes where the environment does not: from disk, or fitted to episodes of the base."""

from pathlib import Path

import numpy as np

from ..diversity.atlas import LEAST_AGREEMENT, AtlasConfig, ModeAtlas
from ..metrics.points import join_paths
from ..utils.errors import UserError
from .episodes import Episodes

ENOUGH_SUCCESSES = 20  # with fewer, an atlas clusters all episodes of the base
MANY_PATHS = 500  # with fewer, clusters of a task with 24 modes are not stable under resampling


def load_atlas(folder: Path, env: str, key: str) -> ModeAtlas:
    """Read an atlas that fits the environment.

    Raises:
        UserError: it is missing, damaged, or of another environment or observation.
    """
    atlas = ModeAtlas.load(folder)
    atlas.check(env, key)
    return atlas


def fit_atlas(
    options: AtlasConfig, env: str, demonstrations: list[np.ndarray], episodes: Episodes
) -> tuple[ModeAtlas | None, str]:
    """Cluster the paths of the base's successes and of demonstrations.

    Args:
        env: type of the environment.
        demonstrations: arrays (E, L+1, S).
        episodes: of the base.

    Returns:
        the atlas, None where there is nothing to cluster, and a sentence about it.
    """
    if options.key not in episodes.states:
        known = ", ".join(episodes.states) or "none"
        return None, (
            f"warning: no modes, the environment gives no {options.key} whose path could be clustered "
            f"(--atlas.key, known here: {known})"
        )
    chosen, of = episodes[episodes.success], "successes"
    if chosen.success.sum() < ENOUGH_SUCCESSES:
        chosen, of = episodes, f"episodes (only {int(episodes.success.sum())} succeeded)"
    paths = [chosen.states[options.key], *demonstrations]
    try:
        atlas = ModeAtlas.fit(
            join_paths(paths),
            options.dims,
            env=env,
            key=options.key,
            min_cluster_size=options.min_cluster_size,
        )
    except UserError as error:
        return None, f"warning: no modes, {error}"
    count = sum(map(len, paths))
    said = f"mode atlas: {atlas.num_modes} modes in {count} paths of {options.key}, the base's {of}"
    if atlas.effect is not None:
        said += ", less what their start explains"
    said += f"; {100 * atlas.unknown_share:.0f} % belong to none"
    if atlas.agreement is not None and atlas.agreement < LEAST_AGREEMENT:
        said += (
            f". All are one mode: random halves agree on clusters by an adjusted Rand index of only "
            f"{atlas.agreement:.2f} ({LEAST_AGREEMENT} is needed)"
        )
    elif atlas.agreement is not None:
        said += f"; random halves agree on them by an adjusted Rand index of {atlas.agreement:.2f}"
    if count < MANY_PATHS:
        said += f". Below {MANY_PATHS} paths modes may be split or merged: play more episodes"
    return atlas, said
