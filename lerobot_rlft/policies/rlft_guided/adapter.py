"""Adapter for `rlft_guided`: that of the policy inside, whose network is guided wherever it is called."""

from ..base import DenoisingPolicy, Exploration, register
from ..conditioning import AdvantageEmbedding
from ..wrapped.adapter import WrappingAdapter
from .configuration_rlft_guided import RLFTGuidedConfig


@register("rlft_guided")
class GuidedAdapter(WrappingAdapter):
    """See `rlft_guided.modeling_rlft_guided`."""


def guided(policy: DenoisingPolicy, embedding: AdvantageEmbedding, weight: float) -> GuidedAdapter:
    """A conditioned policy, as it is now, under guidance.

    Args:
        embedding: of its `condition_layer`.
        weight: see `RLFTGuidedConfig.guidance_weight`.

    Raises:
        UserError: the family cannot be guided.
    """
    from .modeling_rlft_guided import RLFTGuidedPolicy  # which imports the adapters

    config = RLFTGuidedConfig.around(policy.module.config, guidance_weight=weight)
    module = RLFTGuidedPolicy(config)
    module.inner.load_state_dict(policy.module.state_dict())
    module.embedding.load_state_dict(embedding.state_dict())
    adapter = GuidedAdapter(
        module.to(config.device), policy.preprocessor, policy.postprocessor, Exploration()
    )
    adapter.task = policy.task
    return adapter
