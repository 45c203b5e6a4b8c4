"""A value learns realised returns, says how well, and is kept as plain files."""

import json

import numpy as np
import pytest
import torch
from families import IMAGES, diffusion, observations
from recorded_data import read, record
from safetensors.torch import load_file

from lerobot_rlft.configs.train import load_policy_config
from lerobot_rlft.critics.configuration import ValueConfig
from lerobot_rlft.critics.return_value import (
    Value,
    calibration,
    fit_value,
    load_value,
    predict_all,
    save_value,
)
from lerobot_rlft.policies.loading import load_policy
from lerobot_rlft.utils.errors import UserError


@pytest.fixture(scope="module")
def policy(base_policy):
    return load_policy(load_policy_config(str(base_policy), []), base_policy)


@pytest.fixture(scope="module")
def data(policy, tmp_path_factory):
    """40 episodes of 6 frames."""
    return read(record(tmp_path_factory.mktemp("recorded") / "a", (6,) * 40), policy.module.config)


@pytest.fixture
def recorded(data):
    """What the episodes return stands in their first state."""
    target = (-50 * (data.windows.columns["observation.state"][:, 0].numpy() + 0.01)).clip(-1, 0)
    return data, target


@pytest.mark.parametrize("source", ["features", "state"])
def test_it_learns_returns_and_is_kept(source, policy, recorded, tmp_path):
    data, target = recorded
    config = ValueConfig(input=source, hidden_dims=(32,), steps=200, lr=2e-3, held_out=0.25)
    torch.manual_seed(0)
    value = Value(config, policy)
    losses = []
    numbers = fit_value(value, [data], [target], 0, lambda step, loss: losses.append(loss))
    assert len(losses) == 200 and losses[-1] < losses[0]
    assert numbers["episodes"] == 10 and numbers["frames"] == 60, "whole episodes are held out"
    assert numbers["explained_variance"] > 0.5 and numbers["calibration_error"] < 0.2
    (found,) = predict_all(value, [data])
    assert np.corrcoef(found, target)[0, 1] > 0.8
    save_value(tmp_path / "value", value, {"input": source}, numbers)
    names = sorted(path.name for path in (tmp_path / "value").iterdir())
    assert names == ["calibration.json", "calibration.png", "value.json", "value.safetensors"]
    assert json.loads((tmp_path / "value/calibration.json").read_text()) == numbers
    again = Value(config, policy)
    load_value(tmp_path / "value", again, {"input": source})
    assert np.array_equal(predict_all(again, [data])[0], found)
    with pytest.raises(
        UserError, match=r"was fitted for {'input': .*}, not for {'input': 'x'}: delete .*stage=v"
    ):
        load_value(tmp_path / "value", again, {"input": "x"})
    (tmp_path / "value/value.safetensors").write_bytes(b"half")
    with pytest.raises(UserError, match="missing or damaged"):
        load_value(tmp_path / "value", again, {"input": source})


def test_told_modes_it_does_not_pay_for_turning_to_a_better_one(policy, tmp_path):
    """Two modes from the same states, one returns -.2 and the other -.8: neither is good luck."""
    data = read(record(tmp_path / "a", (6,) * 40, mode=[i % 2 for i in range(40)]), policy.module.config)
    target = np.where(data.mode[data.episode] == 0, -0.2, -0.8)
    config = ValueConfig(input="state", hidden_dims=(32,), steps=300, lr=2e-3, held_out=0.25)
    told, untold = Value(config, policy, 2), Value(config, policy)
    known, guessed = (fit_value(v, [data], [target], 0)["explained_variance"] for v in (told, untold))
    assert known > 0.9 and guessed < 0.1, "of held-out episodes"
    assert np.abs(predict_all(told, [data])[0] - target).mean() < 0.1
    batch = data.windows.batch(torch.tensor([0, 6, 12]))
    assert told.encode(batch, torch.tensor([0, 1, -1]))[:, -2:].tolist() == [[1, 0], [0, 1], [0, 0]]


def test_unknown_outcomes_are_left_out(policy, recorded):
    data, target = recorded
    target = target.copy()
    target[data.episode < 30] = np.nan
    config = ValueConfig(hidden_dims=(8,), steps=2, held_out=0.2)
    assert fit_value(Value(config, policy), [data], [target], 0)["episodes"] == 2
    target[data.episode < 39] = np.nan
    with pytest.raises(ValueError, match="at least 2 episodes with a known outcome, there are 1"):
        fit_value(Value(config, policy), [data], [target], 0)


def test_calibration_by_hand():
    predicted = torch.tensor([-0.9, -0.1, -0.5, -0.3])
    numbers = calibration(predicted, predicted - 0.1)
    assert numbers["predicted"] == pytest.approx([-0.9, -0.5, -0.3, -0.1])
    assert numbers["realised"] == pytest.approx([-1.0, -0.6, -0.4, -0.2])
    assert numbers["mae"] == pytest.approx(0.1) and numbers["calibration_error"] == pytest.approx(0.1)
    assert numbers["correlation"] == pytest.approx(1) and numbers["explained_variance"] == pytest.approx(1)
    assert calibration(torch.full((3,), -0.5), torch.tensor([-1.0, -0.5, 0.0]))["correlation"] == 0


def test_images_through_an_encoder_of_its_own():
    policy = diffusion(IMAGES, crop_shape=(40, 40))
    value = Value(ValueConfig(input="images", hidden_dims=(8,)), policy)
    batch, unknown = observations(policy, 3), torch.full((3,), -1)
    value.loss(value.encode(batch, unknown), torch.tensor([-0.5, -0.2, -0.9])).backward()
    assert value.encode(batch, unknown).shape == (3, policy.feature_dim)
    assert any(p.grad is not None and p.grad.any() for p in value.encoder.parameters())
    assert all(p.grad is None for p in policy.module.parameters())
    assert any(key.startswith("encoder.") for key in value.state_dict())
    frozen = Value(ValueConfig(hidden_dims=(8,)), policy)
    assert set(frozen.state_dict()) == {"mean", "std"} | {f"head.{k}" for k in frozen.head.state_dict()}
    seen = Value(ValueConfig(input="state", hidden_dims=(8,)), policy)
    assert seen.keys == ["observation.state"] and seen.encode(batch, unknown).shape == (3, 8)


def test_images_of_a_policy_that_sees_none(policy):
    with pytest.raises(
        ValueError, match=r"value.input=images needs a policy that sees images: choose features or"
    ):
        Value(ValueConfig(input="images"), policy)


def test_only_safetensors_and_json(policy, recorded, tmp_path):
    value = Value(ValueConfig(hidden_dims=(8,)), policy)
    save_value(
        tmp_path / "v", value, {}, {"frames": 1, "episodes": 1, **calibration(torch.zeros(2), torch.zeros(2))}
    )
    assert set(load_file(tmp_path / "v/value.safetensors")) == set(value.state_dict())
