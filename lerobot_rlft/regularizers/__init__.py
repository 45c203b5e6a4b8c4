"""Terms that hold the diversity of the base. One file each; importing the package registers them."""

from . import kl_base, rehearsal

__all__ = ["kl_base", "rehearsal"]
