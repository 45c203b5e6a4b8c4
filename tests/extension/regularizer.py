"""A regularizer: network outputs stay small."""

from dataclasses import dataclass

from lerobot_rlft.regularizers.base import Regularizer, RegularizerConfig


@RegularizerConfig.register_subclass("toy_small_outputs")
@dataclass
class ToySmallConfig(RegularizerConfig):
    """Weight decay of what the network says."""

    def build(self, policy, base, load=None):
        return ToySmall(self)


class ToySmall(Regularizer):
    def loss(self, step):
        return step.prediction.square().mean()
