"""Terms that hold the diversity of the base. One file each; importing the package registers them."""

from . import entropy, kl_base, manifold_ensemble, rehearsal

__all__ = ["entropy", "kl_base", "manifold_ensemble", "rehearsal"]
