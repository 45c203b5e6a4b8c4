"""An algorithm is built by its own config, whoever wrote it."""

from dataclasses import dataclass

import draccus
import pytest
import torch

from lerobot_rlft.algorithms.base import Algorithm, AlgorithmConfig
from lerobot_rlft.algorithms.bc import BC, BCConfig
from lerobot_rlft.algorithms.dppo import DPPO
from lerobot_rlft.chains.chain import Chain
from lerobot_rlft.policies.base import Exploration
from lerobot_rlft.training.setup import make_algorithm, make_base, make_policy


class Noise(Algorithm):
    """Explores by noise on the deployed chunk and learns nothing."""

    def __init__(self, config, policy):
        self.config, self.policy = config, policy

    def explore(self, condition):
        chunk = torch.full((len(condition), 1, 2, 1), self.config.size)
        return Chain(chunk, chunk.new_zeros(len(chunk), 0))

    def update(self, data):
        return {"size": self.config.size}

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


@pytest.fixture
def registered():
    @AlgorithmConfig.register_subclass("noise")
    @dataclass
    class NoiseConfig(AlgorithmConfig):
        """A toy."""

        consumes = "rollouts"
        size: float = 1.0

        def build(self, parts):
            return Noise(self, parts.policy)

    yield NoiseConfig
    del AlgorithmConfig.get_known_choices()["noise"]


def test_a_stranger_builds_itself(registered, dppo_config):
    options = draccus.decode(AlgorithmConfig, {"type": "noise", "size": 0.5})
    config = dppo_config(algorithm=options)
    policy = make_policy(config, None, None)
    base = make_base(config, policy)
    algorithm = make_algorithm(config, policy, base, torch.Tensor.backward)
    assert type(algorithm) is Noise and algorithm.policy is policy
    assert algorithm.explore(torch.zeros(3, 2)).x.unique() == 0.5
    assert not algorithm.needs_reference and not algorithm.adjustable and algorithm.progress({}) == ""
    assert options.exploration == Exploration() and options.commanded is None


def test_own_algorithms_are_built_as_what_they_are(dppo_config, bc_config):
    config = dppo_config()
    policy = make_policy(config, None, None)
    algorithm = make_algorithm(config, policy, make_base(config, policy), torch.Tensor.backward)
    assert type(algorithm) is DPPO and algorithm.floor == policy.std_floor
    assert algorithm.progress({"kl_to_base": 0.123, "clip_fraction": 0.1}) == "KL 0.12 clip 0.10"
    assert issubclass(BCConfig, AlgorithmConfig) and BC.progress(None, {"loss": 0.25}) == "loss 0.2500"


def test_who_collects_from_no_rollouts_does_not_explore():
    class Silent(Noise):
        explore = Algorithm.explore

    with pytest.raises(NotImplementedError, match="Silent does not learn from rollouts"):
        Silent(None, None).explore(torch.zeros(1, 2))
