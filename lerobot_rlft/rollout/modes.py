"""The atlas that names modes where the environment does not: from disk, or fitted to episodes of the base."""

from pathlib import Path

import numpy as np
from huggingface_hub.errors import EntryNotFoundError
from lerobot.configs import PreTrainedConfig

from ..diversity.atlas import JSON, LEAST_AGREEMENT, TENSORS, AtlasConfig, ModeAtlas
from ..diversity.suite_atlas import Atlas, SuiteAtlas, load_any
from ..metrics.points import join_paths
from ..policies.base import DenoisingPolicy
from ..policies.pretrained_files import fetch
from ..policies.rlft_commanded.adapter import CommandedAdapter
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


def atlas_inside(policy: PreTrainedConfig) -> ModeAtlas | None:
    """The atlas that travels inside a commanded policy's checkpoint; None where there is none.

    Raises:
        UserError: it is damaged.
    """
    path, revision = str(policy.pretrained_path), policy.pretrained_revision
    try:
        files = [fetch(path, name, revision) for name in (JSON, TENSORS)]
    except EntryNotFoundError:
        return None
    return ModeAtlas.load(files[0].parent)


def modes_told(policy: DenoisingPolicy) -> int:
    """Number of modes that a policy is commanded in; 0 of one that is not commanded."""
    return len(policy.shares) if isinstance(policy, CommandedAdapter) else 0


def first_atlas(
    options: AtlasConfig, env: str, policy: DenoisingPolicy, source: PreTrainedConfig
) -> Atlas | None:
    """The atlas that a run begins with: of a commanded policy the one inside its checkpoint, whose numbers it
    was told, else that of `atlas.path`. None where one is to be fitted, or the environment names modes.

    Args:
        env: type of the environment.
        policy: that the run tunes.
        source: its config, with its Hub id or folder.

    Raises:
        UserError: the atlas is missing, damaged, or of another environment or observation, or it is not the
            one of the commanded policy.
    """
    preset = load_atlas(options.path, env, options.key) if options.path is not None else None
    commands, path = modes_told(policy), source.pretrained_path
    own = atlas_inside(source) if commands else None
    if own is not None and (own.env, own.key) != (env, options.key):
        raise UserError(
            f"--policy.path={path} was told modes of env.type={own.env} by {own.key}, not of {env} by "
            f"{options.key}: tune it with --env.type={own.env} --atlas.key={own.key}, or tune what it was "
            "made from"
        )
    if own is not None and preset is not None and not (isinstance(preset, ModeAtlas) and own.same_as(preset)):
        raise UserError(
            f"--atlas.path={options.path} numbers modes otherwise than the atlas in --policy.path={path}, "
            "whose numbers the policy was told: leave --atlas.path out, or tune what the policy was made from"
        )
    if own is None and preset is not None and commands not in (0, preset.num_modes):
        raise UserError(
            f"--atlas.path={options.path} has {preset.num_modes} modes and --policy.path={path} was told "
            f"{commands}: give the atlas of the run that made it, or tune what it was made from"
        )
    return own or preset


def settle_atlas(
    options: AtlasConfig,
    env: str,
    policy: DenoisingPolicy,
    source: PreTrainedConfig,
    atlas: Atlas | None,
    demonstrations: list[np.ndarray],
    episodes: Episodes,
    tasks: tuple[str, ...] = (),
) -> tuple[Atlas | None, str]:
    """The atlas that names a run's modes, None where the environment does or nothing can be clustered, and
    a sentence about it, which may be empty.

    Args:
        options, env, policy, source: see `first_atlas`, which gave `atlas`.
        demonstrations, episodes, tasks: see `fit_atlas`.

    Raises:
        UserError: the modes of a commanded policy would be numbered otherwise than it was told.
    """
    commands, path = modes_told(policy), source.pretrained_path
    if episodes.mode is not None:
        if commands and atlas_inside(source) is not None:
            raise UserError(
                f"--policy.path={path} was told modes of the atlas inside it, and env.type={env} names its "
                "own: tune it where it was made, or tune what it was made from"
            )
        if atlas is None:
            return None, ""
        return None, f"warning: --atlas.path={options.path} is not used, the environment names its modes"
    if atlas is not None:
        return atlas, ""
    if commands:
        raise UserError(
            f"--policy.path={path} was told {commands} modes, and neither env.type={env} nor an atlas in it "
            "says which they are; an atlas fitted now would number them otherwise: give that of the run that "
            "made it (--atlas.path=RUN/diversity), or tune what it was made from"
        )
    return fit_atlas(options, env, demonstrations, episodes, tasks)


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
    modes, effect, agreement = f"{atlas.num_modes} modes", None, None
    if isinstance(atlas, SuiteAtlas):
        modes = f"{sum(a.num_modes for a in atlas.atlases if a is not None)} modes of {len(tasks)} tasks"
    else:
        effect, agreement = atlas.effect, atlas.agreement
    message = f"mode atlas: {modes} in {count} paths of {options.key}, the base's {of}"
    if effect is not None:
        message += ", less what their start explains"
    message += f"; {100 * atlas.unknown_share:.0f} % belong to none"
    if agreement is not None and agreement < LEAST_AGREEMENT:
        message += (
            f". All are one mode: random halves agree on clusters by an adjusted Rand index of only "
            f"{agreement:.2f} ({LEAST_AGREEMENT} is needed)"
        )
    elif agreement is not None:
        message += f"; random halves agree on them by an adjusted Rand index of {agreement:.2f}"
    if count < MANY_PATHS:
        message += f". Below {MANY_PATHS} paths modes may be split or merged: play more episodes"
    return atlas, message
