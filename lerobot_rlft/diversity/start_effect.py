"""The part of a path that its start explains, by ridge regression of the path on the first observation.

Where starts vary more than ways do, paths from near starts are nearer than paths that go the same way, and
clusters of paths are clusters of starts, or one. What is left once the effect of the start is taken away is
the way. It is linear: of a start that moves a whole path it takes all, of one that bends paths the mean bend.

Shapes: E episodes, S observation dims, Q dims of them that vary between starts, F features of a path.
"""

from dataclasses import dataclass

import numpy as np

# Of the range of the whole path: a spread of the starts below it moves no cluster, and is not looked at.
LEAST_SPREAD = 0.01
RIDGE = 3.0  # episodes whose starts are the mean, added to those there are
# A dim of the start for so many episodes: more would explain by chance. Of more, principal components.
EPISODES_EACH = 10


@dataclass(frozen=True, eq=False)
class StartEffect:
    """What a start adds to a path.

    Attributes:
        dims: (Q,) those of S that vary between starts.
        mean: (Q,) of the starts.
        weights: (Q, F) features of the path for each unit of the start.
    """

    dims: np.ndarray
    mean: np.ndarray
    weights: np.ndarray

    @classmethod
    def fit(cls, starts: np.ndarray, features: np.ndarray, ranges: np.ndarray) -> "StartEffect | None":
        """Regress paths on starts; None where all start alike.

        Args:
            starts: (E, S) first observations.
            features: (E, F).
            ranges: (S,) of the observations over whole episodes.
        """
        starts = starts.astype(np.float64)
        spread = starts.std(0)
        dims = np.flatnonzero(np.isfinite(spread) & (spread > LEAST_SPREAD * ranges))
        if not len(dims):
            return None
        mean = starts[:, dims].mean(0)
        unit = (starts[:, dims] - mean) / spread[dims]  # (E, Q)
        axes = np.linalg.svd(unit, full_matrices=False)[2][: max(1, len(unit) // EPISODES_EACH)].T
        parts = unit @ axes  # (E, at most Q)
        moments = parts.T @ parts + RIDGE * np.eye(parts.shape[1])
        weights = axes @ np.linalg.solve(moments, parts.T @ (features - features.mean(0)))
        return cls(dims, mean, weights / spread[dims][:, None])

    def remove(self, starts: np.ndarray, features: np.ndarray) -> np.ndarray:
        """Features (E, F) as they would be from the mean start, given the starts (E, S)."""
        return features - (starts[:, self.dims] - self.mean) @ self.weights


def without_start(
    features: np.ndarray, starts: np.ndarray, ranges: np.ndarray
) -> tuple[np.ndarray, StartEffect | None]:
    """Features (E, F) less what the starts explain of them, and that; see `StartEffect.fit`."""
    effect = StartEffect.fit(starts, features, ranges)
    return (features if effect is None else effect.remove(starts, features)), effect
