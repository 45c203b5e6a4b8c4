"""A policy that does not hold what its file does is noticed."""

import pytest
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import get_policy_class
from safetensors.torch import load_file, save_file

from lerobot_rlft.configs.pretrained import load_policy_config
from lerobot_rlft.policies.loading import load_policy
from lerobot_rlft.policies.weights import check_loaded, listed
from lerobot_rlft.utils.errors import UserError

NAME = "diffusion.unet.final_conv.1.weight"


@pytest.fixture
def loaded(base_policy):
    """The policy as stock LeRobot loads it, and its file."""
    config = PreTrainedConfig.from_pretrained(base_policy)
    module = get_policy_class("diffusion").from_pretrained(base_policy, config=config)
    return module, base_policy / "model.safetensors"


def test_what_was_loaded_is_what_the_file_holds(loaded):
    check_loaded(*loaded)


def test_one_tensor_that_was_not_loaded_is_named(loaded):
    module, file = loaded
    torch.nn.init.normal_(module.get_parameter(NAME))
    with pytest.raises(ValueError, match=rf"did not load {NAME} from model.safetensors"):
        check_loaded(module, file)


def test_a_renamed_tensor_is_found_by_its_content(loaded, tmp_path):
    module, file = loaded
    tensors = load_file(file)
    tensors["time_mlp.weight"] = tensors.pop(NAME)
    save_file(tensors, tmp_path / file.name)
    check_loaded(module, tmp_path / file.name)


def test_rounding_is_no_difference(loaded, tmp_path):
    module, file = loaded
    check_loaded(module.to(torch.bfloat16), file)


def test_random_weights_of_a_failed_load_are_refused(base_policy, monkeypatch):
    policy_class = get_policy_class("diffusion")
    monkeypatch.setattr(policy_class, "from_pretrained", lambda _, config, **__: policy_class(config))
    with pytest.raises(UserError, match=r"LeRobot did not load diffusion.* more from model.safetensors"):
        load_policy(load_policy_config(str(base_policy), []), base_policy)


def test_long_lists_are_cut():
    assert listed(["a", "b", "c"]) == "a, b, c"
    assert listed(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
