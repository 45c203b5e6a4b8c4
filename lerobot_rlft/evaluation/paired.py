"""Change of success between two policies that played the same seeds."""

from typing import Literal

from scipy.stats import binomtest

LEVEL = 0.05  # of the two-sided test


def success_change(
    base: int, tuned: int, episodes: int, gained: int | None = None
) -> Literal["rose", "fell"] | None:
    """Change that McNemar's exact test (Psychometrika 12, 1947) of paired episodes shows; None: none shown.

    Where it is not known which episodes both solved, the pairing that says least is assumed: the word then
    holds for every pairing.

    Args:
        base, tuned: successes of `episodes` episodes on the same seeds.
        gained: of the tuned policy in episodes that the base failed; None = not known.

    Raises:
        ValueError: such a `gained` does not fit the successes.
    """
    most = min(tuned, episodes - base)
    least = max(0, tuned - base)
    gained = most if gained is None else gained
    if not least <= gained <= most:
        raise ValueError(f"gained={gained} must lie between {least} and {most}")
    losses = gained - (tuned - base)
    if gained == losses or binomtest(gained, gained + losses).pvalue >= LEVEL:
        return None
    return "rose" if gained > losses else "fell"
