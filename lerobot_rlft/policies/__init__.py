"""Adapters of policy families. A new family is one file here and one import in `load_adapters`."""


def load_adapters() -> None:
    """Import every adapter file, so that each registers itself."""
    from . import diffusion, eo1, groot, multi_task_dit, pi0, pi05, smolvla, vla_jepa, xvla  # noqa: F401
    from .rlft_commanded import adapter as commanded  # noqa: F401
    from .rlft_flow import adapter as rlft_flow  # noqa: F401
    from .rlft_guided import adapter as guided  # noqa: F401
