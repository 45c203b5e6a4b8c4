"""Metrics of a tuned policy beside its base, one decorated function each.

`diversity.json`, the page, the table, the card and the reference of the documentation follow from what is
registered here.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from .keys import KEYS

# What a metric may read, of the tuned policy and of the base.
READS = {
    "mode_counts": "(M,) successes in each mode; not asked where no modes are known",
    "episodes": "`Episodes` of the deployed sampler",
}


class Metric(NamedTuple):
    """One registered metric.

    Attributes:
        compute: (tuned, base), each what `reads` names -> a number, or a number and its (low, high). It
            raises a ValueError that says why where the data cannot carry it.
        reads: key of `READS`.
        row: its line in the table of the page and the card; None = only in the list of all numbers.
    """

    compute: Callable[[Any, Any], float | tuple[float, tuple[float, float]]]
    reads: str
    row: str | None


METRICS: dict[str, Metric] = {}


def metric(name: str, meaning: str, reads: str, row: str | None = None) -> Callable[[Callable], Callable]:
    """Register a function as the metric `name` of diversity.json.

    Args:
        meaning: in words, with its unit and what is best; it is shown wherever the number is.

    Raises:
        ValueError: the name is taken, or nothing is called `reads`.
    """
    if name in KEYS:
        raise ValueError(f"metric {name!r} exists already: choose another name")
    if reads not in READS:
        raise ValueError(f"metric {name!r}: reads={reads!r} is unknown, choose {' or '.join(READS)}")

    def register(compute: Callable) -> Callable:
        METRICS[name] = Metric(compute, reads, row)
        KEYS[name] = meaning
        return compute

    return register
