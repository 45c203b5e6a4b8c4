"""Adapters of policy families. A new family is one file here and one import in `load_adapters`."""


def load_adapters() -> None:
    """Import every adapter file, so that each registers itself."""
    from . import commanded, diffusion, guided, multi_task_dit, pi0, pi05, rlft_flow, smolvla  # noqa: F401
