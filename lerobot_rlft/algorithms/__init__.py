"""Algorithms. A new one is one file here and one import below."""

from . import bc, dppo  # noqa: F401
