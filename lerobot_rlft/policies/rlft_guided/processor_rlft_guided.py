"""Processors of `rlft_guided`: those of the policy inside."""

from typing import Any

from lerobot.policies import make_pre_post_processors

from .configuration_rlft_guided import RLFTGuidedConfig


def make_rlft_guided_pre_post_processors(
    config: RLFTGuidedConfig, dataset_stats: dict[str, dict[str, Any]] | None = None
) -> tuple[Any, Any]:
    """Fresh ones; a checkpoint brings its own."""
    return make_pre_post_processors(config.policy, dataset_stats=dataset_stats)
