"""Optimizers are put into a saved state that fits them, and into no other."""

import copy

import pytest
import torch

from lerobot_rlft.utils.optimization import load_optimizer


def stepped(seed: int = 0) -> torch.optim.Optimizer:
    torch.manual_seed(seed)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(3))])
    for weight in optimizer.param_groups[0]["params"]:
        weight.grad = torch.rand_like(weight)
    optimizer.step()
    return optimizer


def test_a_state_comes_back():
    state = stepped().state_dict()
    other = stepped(seed=1)
    load_optimizer(other, copy.deepcopy(state))
    for index, entry in state["state"].items():
        assert torch.equal(other.state_dict()["state"][index]["exp_avg"], entry["exp_avg"])


def test_settings_of_another_device_or_an_earlier_torch_are_taken():
    state = stepped().state_dict()
    state["param_groups"][0] |= {"fused": True, "lr": 1}
    del state["param_groups"][0]["maximize"]
    load_optimizer(stepped(), state)


@pytest.mark.parametrize(
    "spoil, answer",
    [
        (lambda s: s["param_groups"][0].update(lr="x"), "lr of the optimizer is 'x'"),
        (lambda s: s["param_groups"][0].pop("eps"), "eps of the optimizer is None"),
        (lambda s: s["param_groups"][0].update(betas=[0.9]), r"betas of the optimizer is \[0.9\]"),
        (lambda s: s["param_groups"][0].update(amsgrad=None), "amsgrad of the optimizer is None"),
        (lambda s: s["state"][1].pop("exp_avg"), "no whole step, exp_avg, exp_avg_sq of every weight"),
        (lambda s: s["state"][1].update(exp_avg=torch.ones(2)), "no whole step, exp_avg"),
        (lambda s: s["state"][0].update(exp_avg_sq=None), "no whole step, exp_avg"),
    ],
)
def test_a_state_that_would_fail_at_the_next_step(spoil, answer):
    optimizer = stepped()
    state = copy.deepcopy(optimizer.state_dict())
    spoil(state)
    with pytest.raises(ValueError, match=answer):
        load_optimizer(optimizer, state)
