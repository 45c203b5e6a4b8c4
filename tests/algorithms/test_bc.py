"""Behaviour cloning of a toy module: the loss is the policy's, weights are averaged and resumed exactly."""

import copy
import math

import pytest
import torch
from torch import nn

from lerobot_rlft.algorithms.bc import BC, BCConfig


class Toy(nn.Module):
    """A policy whose training loss is random, like the denoising loss."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.dropout = nn.Linear(3, 1), nn.Dropout(0.5)

    def forward(self, batch):
        noise = torch.randn(len(batch["x"]), 1)
        return (self.layer(self.dropout(batch["x"])) - noise).square().mean(), None


def double(batch):
    return {"x": 2 * batch["x"]}


def make(module=None, lr=0.1, schedule=False, **fields):
    module = module or Toy()
    optimizer = torch.optim.Adam(module.parameters(), lr)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step) if schedule else None
    return BC(BCConfig(**fields), module, double, optimizer, scheduler)


def batch(seed=1):
    return {"x": torch.randn(8, 3, generator=torch.Generator().manual_seed(seed))}


def weights(module):
    return [p.detach().clone() for p in module.parameters()]


def assert_equal(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)


def test_the_loss_is_that_of_the_policy_in_train_mode():
    bc = make()
    reference = copy.deepcopy(bc.module).train()
    torch.manual_seed(4)
    expected, _ = reference(double(batch()))
    expected.backward()
    torch.manual_seed(4)
    metrics = bc.update(batch())
    assert metrics["loss"] == expected.item()
    norm = torch.cat([p.grad.flatten() for p in reference.parameters()]).norm().item()
    assert metrics["grad_norm"] == pytest.approx(norm)
    assert not bc.module.training


def test_one_step_is_one_step_of_the_optimizer():
    bc = make(schedule=True)
    before = weights(bc.module)
    assert bc.update(batch())["lr"] == 0.1  # the rate of this step, not of the next
    for old, new in zip(before, bc.module.parameters(), strict=True):
        assert torch.allclose(
            (new - old).abs(), torch.tensor(0.1), atol=1e-4
        )  # Adam's first step is the rate
    assert bc.update(batch())["lr"] == 0.05


def test_gradients_of_a_step_do_not_reach_the_next():
    bc = make(lr=1e-12)
    norms = []
    for _ in range(2):
        torch.manual_seed(3)
        norms.append(bc.update(batch())["grad_norm"])
    assert norms[1] == pytest.approx(norms[0], rel=1e-5)


def test_the_gradient_is_clipped():
    bc = make(max_grad_norm=0.01)
    bc.optimizer = torch.optim.SGD(bc.module.parameters(), lr=1.0)
    before = weights(bc.module)
    assert bc.update(batch())["grad_norm"] > 0.1
    moved = torch.cat(
        [(new - old).flatten() for new, old in zip(bc.module.parameters(), before, strict=True)]
    )
    assert moved.norm().item() == pytest.approx(0.01, rel=1e-3)


def test_average_of_the_weights_by_hand():
    bc = make(ema_decay=0.9)
    seen = [weights(bc.module)]
    for _ in range(2):
        bc.update(batch())
        seen.append(weights(bc.module))
    for average, w0, w1, w2 in zip(bc.ema.values, *seen, strict=True):
        torch.testing.assert_close(average, 0.81 * w0 + 0.09 * w1 + 0.1 * w2)


def test_deployed_weights_are_the_average_while_open():
    bc = make(ema_decay=0.9)
    bc.update(batch())
    trained, average = weights(bc.module), [p.clone() for p in bc.ema.values]
    assert not torch.equal(trained[0], average[0])
    with bc.deployed_weights():
        assert_equal(bc.module.parameters(), average)
    assert_equal(bc.module.parameters(), trained)
    assert_equal(bc.ema.values, average)
    with pytest.raises(KeyboardInterrupt), bc.deployed_weights():
        raise KeyboardInterrupt
    assert_equal(bc.module.parameters(), trained)


class Normalised(Toy):
    """With batch normalisation, LeRobot's `use_group_norm=false`."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(3, 1), nn.BatchNorm1d(1))


def test_running_statistics_are_averaged_and_counters_copied():
    bc = make(Normalised(), ema_decay=0.9)
    norm, seen = bc.module.layer[1], []
    for seed in range(2):
        bc.update(batch(seed))
        seen.append((norm.running_mean.clone(), norm.running_var.clone()))
    (mean_1, var_1), (mean_2, var_2) = seen
    with bc.deployed_weights():  # they began at mean 0, variance 1
        torch.testing.assert_close(norm.running_mean, 0.09 * mean_1 + 0.1 * mean_2)
        torch.testing.assert_close(norm.running_var, 0.81 + 0.09 * var_1 + 0.1 * var_2)
        assert norm.num_batches_tracked == 2
    assert torch.equal(norm.running_mean, mean_2) and torch.equal(norm.running_var, var_2)


def test_a_state_of_parameters_alone_is_loaded():
    """As it was saved before buffers were averaged."""
    whole, resumed = make(Normalised(), ema_decay=0.9), make(Normalised(), ema_decay=0.9)
    whole.update(batch())
    state, count = whole.state_dict(), len(weights(whole.module))
    resumed.load_state_dict(state | {"ema": {i: state["ema"][i] for i in range(count)}})
    assert_equal(resumed.ema.values, [*whole.ema.values[:count], *whole.module.buffers()])


def test_without_average_the_trained_weights_are_deployed():
    bc = make()
    bc.update(batch())
    trained = weights(bc.module)
    with bc.deployed_weights():
        assert_equal(bc.module.parameters(), trained)


@pytest.mark.parametrize("ema_decay", [None, 0.9])
def test_a_resumed_run_is_bit_equal(ema_decay):
    whole = make(ema_decay=ema_decay, schedule=True)
    for seed in range(3):
        whole.update(batch(seed))
    state = copy.deepcopy(whole.state_dict())
    resumed = make(ema_decay=ema_decay, schedule=True)
    with resumed.deployed_weights():  # what a checkpoint gives a resumed run are the deployed weights
        nn.init.zeros_(resumed.module.layer.weight)
    resumed.load_state_dict(state)
    metrics = []
    for bc in (whole, resumed):
        torch.manual_seed(7)
        metrics.append([bc.update(batch(seed)) for seed in (3, 4)])
    assert metrics[0] == metrics[1]
    assert_equal(resumed.module.parameters(), weights(whole.module))
    if ema_decay:
        assert_equal(resumed.ema.values, whole.ema.values)


def test_a_bad_loss_changes_nothing():
    bc = make(ema_decay=0.9)
    before, bad = weights(bc.module), batch()
    bad["x"][0, 0] = math.nan
    with pytest.raises(
        FloatingPointError, match=r"loss of algorithm.type=bc is nan.*--policy.optimizer_lr.*statistics"
    ):
        bc.update(bad)
    assert_equal(bc.module.parameters(), before)
    assert_equal(bc.ema.values, before)


def test_a_bad_gradient_changes_nothing():
    def backward(loss):
        loss.backward()
        bc.module.layer.weight.grad[0, 0] = math.inf

    bc = make()
    bc.backward = backward
    before = weights(bc.module)
    with pytest.raises(FloatingPointError, match=r"gradient of algorithm.type=bc is inf"):
        bc.update(batch())
    assert_equal(bc.module.parameters(), before)


@pytest.mark.parametrize(
    "field, value, wanted",
    [
        ("batch_size", 0, "at least 1"),
        ("num_workers", -1, "0 or more"),
        ("ema_decay", 1.0, r"a number in \(0, 1\), for example 0.995, or null"),
        ("ema_decay", 0.0, r"a number in \(0, 1\), for example 0.995, or null"),
        ("max_grad_norm", 0.0, "a number > 0"),
    ],
)
def test_values_out_of_range_are_refused(field, value, wanted):
    with pytest.raises(ValueError, match=rf"algorithm\.{field}={value} .*choose {wanted}"):
        BCConfig(**{field: value})
