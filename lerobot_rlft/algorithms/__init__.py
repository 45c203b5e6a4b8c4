"""Algorithms. A new one is one file here and one import below."""

from . import awr, bc, dppo, filtered_bc, nft, recap  # noqa: F401
