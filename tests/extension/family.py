"""A policy family: configuration, model and processors in LeRobot's dialect, and the adapter."""

from dataclasses import dataclass

from lerobot.configs import PreTrainedConfig

from lerobot_rlft.policies.base import register
from lerobot_rlft.policies.rlft_flow.adapter import RLFTFlowAdapter
from lerobot_rlft.policies.rlft_flow.configuration_rlft_flow import RLFTFlowConfig
from lerobot_rlft.policies.rlft_flow.modeling_rlft_flow import RLFTFlowPolicy
from lerobot_rlft.policies.rlft_flow.processor_rlft_flow import make_rlft_flow_pre_post_processors


@PreTrainedConfig.register_subclass("toy_family")
@dataclass
class ToyFamilyConfig(RLFTFlowConfig):
    pass


class ToyFamilyPolicy(RLFTFlowPolicy):
    name = "toy_family"
    config_class = ToyFamilyConfig


make_toy_family_pre_post_processors = make_rlft_flow_pre_post_processors


@register("toy_family")
class ToyFamilyAdapter(RLFTFlowAdapter):
    pass
