"""The mode that a failed episode was on the way to.

An advantage that is centred inside modes needs a mode for failures, too, and must not learn it from where an
episode failed: such a label explains the failure away. So a failure takes the mode of the success whose path
was nearest to its own up to the moment it ended.

Shapes: E episodes, R remembered successes, L steps of the longest episode, S path dimensions.
"""

from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ..utils.errors import UserError
from ..utils.files import replacing


class Attempts:
    """Names attempted modes.

    Args:
        paths: (R, L+1, S) of the base's successes, NaN after the end of an episode.
        modes: (R,) int, all known.

    Raises:
        ValueError: there is no success in a known mode.
    """

    def __init__(self, paths: np.ndarray, modes: np.ndarray) -> None:
        if not len(modes):
            raise ValueError("the base has no success in a known mode whose path failures could be held to")
        self.paths, self.modes = _held(paths), np.asarray(modes)
        spread = np.nanstd(paths.reshape(-1, paths.shape[-1]), axis=0)
        self.scale = np.where(spread > 0, spread, 1.0)

    def save(self, file: Path) -> None:
        """Write to one safetensors file."""
        with replacing(file) as partial:
            save_file({"paths": self.paths, "modes": self.modes, "scale": self.scale}, partial)

    @classmethod
    def load(cls, file: Path) -> "Attempts":
        """Read what `save` wrote.

        Raises:
            UserError: it is missing or damaged.
        """
        self = cls.__new__(cls)
        try:
            vars(self).update(load_file(file))
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"the paths that failures are held to, {file}, are missing or damaged ({error}): put the "
                "file back, or start a new run"
            ) from error
        return self

    def name(self, paths: np.ndarray, modes: np.ndarray, success: np.ndarray) -> np.ndarray:
        """(E,) the modes of all episodes: those given where known, else of the nearest success so far.

        Successes of the base and of these episodes are compared, at equal times and with each dimension in
        units of its spread; a success that ended earlier waits at its end.

        Args:
            paths: (E, L+1, S).
            modes: (E,) int, -1 where unknown.
            success: (E,) bool.
        """
        modes = modes.copy()
        has_mode = success & (modes >= 0)
        length = (~np.isnan(paths).any(-1)).sum(1)  # (E,) states of each episode
        steps = max(paths.shape[1], self.paths.shape[1])
        scaled_paths = _longer(_held(paths), steps) / self.scale
        candidates = np.concatenate([_longer(self.paths, steps) / self.scale, scaled_paths[has_mode]])
        names = np.concatenate([self.modes, modes[has_mode]])
        for i in np.flatnonzero(modes < 0):
            n = length[i]
            modes[i] = names[np.square(candidates[:, :n] - scaled_paths[i, :n]).sum((1, 2)).argmin()]
        return modes


def _held(paths: np.ndarray) -> np.ndarray:
    """The paths with NaN after an end replaced by the last state."""
    last = (~np.isnan(paths).any(-1)).sum(1) - 1  # (E,)
    steps = np.minimum(np.arange(paths.shape[1])[None], last[:, None])
    return np.take_along_axis(paths, steps[..., None], 1)


def _longer(paths: np.ndarray, steps: int) -> np.ndarray:
    return np.concatenate([paths, np.repeat(paths[:, -1:], steps - paths.shape[1], 1)], 1)
