"""The way to matplotlib, which is imported when the first picture is drawn and not when a run starts."""

from functools import cache
from typing import Any


@cache
def pyplot() -> Any:
    """`matplotlib.pyplot`, drawing into files only."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot
