"""Algorithms. A new one is one file here and one import below."""

from . import awr, bc, dppo, filtered_bc, recap  # noqa: F401
