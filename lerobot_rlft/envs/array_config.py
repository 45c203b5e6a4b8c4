"""Observations and actions of the tasks here under LeRobot's names."""

from lerobot.configs import FeatureType, PolicyFeature
from lerobot.utils.constants import ACTION, OBS_ENV_STATE, OBS_STATE

FEATURES_MAP = {ACTION: ACTION, "agent_pos": OBS_STATE, "environment_state": OBS_ENV_STATE}


def vector_features(state: int, environment_state: int, action: int) -> dict[str, PolicyFeature]:
    """`features` of an `EnvConfig`, from the lengths of the vectors."""
    return {
        ACTION: PolicyFeature(type=FeatureType.ACTION, shape=(action,)),
        "agent_pos": PolicyFeature(type=FeatureType.STATE, shape=(state,)),
        "environment_state": PolicyFeature(type=FeatureType.ENV, shape=(environment_state,)),
    }
