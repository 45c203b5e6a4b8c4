import json

import pytest
import torch
from constant import Constant, make_step, rollout
from families import IMAGES, diffusion, observations
from safetensors.torch import load, save

from lerobot_rlft.regularizers.base import Step
from lerobot_rlft.regularizers.rehearsal import RehearsalConfig


def build(**fields):
    return RehearsalConfig(**fields).build(Constant(), Constant())


def decisions(count, value=0.0):
    """`count` decisions whose observations and chunks are value, value + 1, ..."""
    rows = value + torch.arange(float(count))
    return {"observation.state": rows.view(-1, 1, 1).expand(-1, 1, 2)}, rows.view(-1, 1, 1).expand(-1, 3, 2)


def remembered(regularizer):
    """mode -> the numbers of its chunks, in their order."""
    kept: dict[int, list[float]] = {}
    for mode, x0 in zip(regularizer.mode.tolist(), regularizer.x0[:, 0, 0].tolist(), strict=True):
        kept.setdefault(mode, []).append(x0)
    return kept


def test_loss_by_hand():
    """A policy that predicts the sample: the error is that of the chunk, whatever the noise."""
    policy = Constant(1.5)
    regularizer = build(batch_size=500)
    regularizer.remember(*decisions(1, value=4.0), None)
    loss = regularizer.loss(make_step(policy, Constant()))
    # prediction: value + mean observation = 1.5 + 4, chunk 4
    assert loss.item() == pytest.approx(1.5**2)
    loss.backward()
    assert policy.module["value"].grad.item() == pytest.approx(2 * 1.5)


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample"])
def test_all_steps_are_rehearsed_with_what_the_kernel_gives(prediction_type, monkeypatch):
    policy, seen = Constant(), {}
    policy.kernel.prediction_type = prediction_type

    def predict(x, timestep, condition):
        seen.update(x=x, timestep=timestep)
        return torch.zeros_like(x)

    regularizer = build(batch_size=200)
    regularizer.remember(*decisions(1, value=3.0), None)
    step = make_step(policy, Constant())
    monkeypatch.setattr(policy, "predict", predict)
    loss = regularizer.loss(step)
    assert set(seen["timestep"].tolist()) == {0, 1, 2}
    alpha = policy.kernel.alpha[seen["timestep"]][:, None, None]
    noise = (seen["x"] - alpha.sqrt() * 3) / (1 - alpha).sqrt()
    assert noise.std().item() == pytest.approx(1, abs=0.1)
    target = noise if prediction_type == "epsilon" else torch.full_like(noise, 3)
    assert loss.item() == pytest.approx(target.square().mean().item(), rel=1e-3)


def test_the_encoder_learns_if_it_is_trained():
    policy = Constant(encoder=True)
    regularizer = build()
    regularizer.remember(*decisions(3, value=1.0), None)
    for trained in (True, False):
        policy.module["unit"].requires_grad_(trained).grad = None
        regularizer.loss(make_step(policy, Constant())).backward()
        assert (policy.module["unit"].grad is not None) == trained


@pytest.mark.parametrize("source", ["base", "recent"])
def test_successes_of_the_reference_are_remembered(source):
    regularizer = build(source=source)
    # (t, episode): 0: (0, 0), 1: (0, 1), 2: (0, 2), 3: (1, 0), 4: (1, 1)
    data = rollout([2, 2, 1], [True, False, True], [5, 5, -1], chunks=decisions(5)[1])
    regularizer.begin(data, None)
    assert {mode: sorted(kept) for mode, kept in remembered(regularizer).items()} == {5: [0, 3], -1: [2]}
    assert torch.equal(regularizer.obs["observation.state"][:, 0, 0], regularizer.x0[:, 0, 0])
    assert regularizer.x0.device.type == "cpu"


def test_only_recent_goes_on_to_remember():
    base, recent, demonstrations = (build(source=s) for s in ("base", "recent", "demonstrations"))
    later = rollout([1], [True], [0], chunks=decisions(1, value=7)[1])
    for regularizer in (base, recent, demonstrations):
        regularizer.remember(*decisions(1), torch.tensor([0]))
        regularizer.begin(rollout([1], [False], [0]), None)
        regularizer.observe(later)
    assert [remembered(r) for r in (base, recent, demonstrations)] == [{0: [0]}, {0: [0, 7]}, {0: [0]}]


def test_recent_replaces_the_oldest_and_keeps_modes_that_are_gone():
    regularizer = build(source="recent", capacity=4)
    regularizer.begin(rollout([1] * 4, [True] * 4, [0, 0, 1, 1], chunks=decisions(4)[1]), None)
    for value in (10, 20):
        regularizer.observe(rollout([1, 1], [True, True], [0, 0], chunks=decisions(2, value)[1]))
    kept = remembered(regularizer)
    assert sorted(kept[0]) == [20, 21] and sorted(kept[1]) == [2, 3]


def test_the_capacity_is_shared_between_modes():
    regularizer = build(capacity=6)
    regularizer.remember(*decisions(20), torch.zeros(20, dtype=torch.long))
    assert len(regularizer.x0) == 6
    regularizer.remember(*decisions(20, 100), torch.ones(20, dtype=torch.long))
    assert {mode: len(kept) for mode, kept in remembered(regularizer).items()} == {0: 3, 1: 3}
    regularizer.remember(*decisions(1, 200), torch.tensor([2]))
    assert {mode: len(kept) for mode, kept in remembered(regularizer).items()} == {0: 2, 1: 2, 2: 1}


def test_what_is_cut_off_is_no_end_of_the_episodes():
    regularizer = build(capacity=100)
    regularizer.remember(*decisions(1000), None)
    kept = remembered(regularizer)[-1]
    assert len(set(kept)) == 100 and min(kept) < 100 and max(kept) >= 900


@pytest.mark.parametrize("balanced, share", [(True, 0.5), (False, 0.1)])
@pytest.mark.parametrize("capacity, kept", [(20, {0: 10, 1: 10}), (1000, {0: 90, 1: 10})])
def test_modes_are_drawn_uniformly_or_as_they_occur(balanced, share, capacity, kept):
    """90 decisions of one mode and 10 of another, whether or not all are kept."""
    regularizer = build(balanced=balanced, capacity=capacity, batch_size=20_000)
    regularizer.remember(*decisions(100), (torch.arange(100) >= 90).long())
    assert {mode: len(rows) for mode, rows in remembered(regularizer).items()} == kept
    torch.manual_seed(0)
    obs, x0 = regularizer.draw()
    assert (x0[:, 0, 0] >= 90).float().mean().item() == pytest.approx(share, abs=0.01)
    assert torch.equal(obs["observation.state"][:, 0, 0], x0[:, 0, 0])
    counts = torch.bincount(x0[:, 0, 0].long())[90:]
    assert counts.min() > 0.8 * 20_000 * share / 10  # uniform within a mode


def test_without_a_success_there_is_no_loss_yet():
    regularizer = build(source="recent")
    step = make_step(Constant(), Constant())
    regularizer.begin(rollout([2, 1], [False, False], [0, 1]), None)
    assert regularizer.loss(step) is None
    regularizer.observe(rollout([1], [True]))
    assert regularizer.loss(step) is not None
    assert regularizer.reward(rollout([1], [True]), lambda: iter(())) is None


@pytest.mark.parametrize("full", [True, False])
def test_a_resume_is_bit_equal(full):
    """Through the files of a checkpoint: safetensors and JSON."""
    settings = {"source": "recent", "capacity": 8, "batch_size": 4, "balanced": False}
    first, second = build(**settings), build(**settings)
    if full:
        first.begin(rollout([3, 2], [True, True], [-1, 3], chunks=decisions(5)[1]), None)
    state = first.state_dict()
    tensors = load(save(state["obs"] | {"x0": state["x0"], "mode": state["mode"]}))
    second.load_state_dict(
        {
            "obs": {key: tensors[key] for key in state["obs"]},
            "x0": tensors["x0"],
            "mode": tensors["mode"],
            "seen": json.loads(json.dumps(state["seen"])),
        }
    )
    results = []
    for regularizer in (first, second):
        torch.manual_seed(1)
        regularizer.observe(rollout([1] * 6, [True] * 6, [3, 4, 4, -1, 3, 4], chunks=decisions(6, 10)[1]))
        results.append((regularizer.x0, regularizer.mode, regularizer.draw()[1], regularizer.seen))
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def test_demonstrations_without_actions_are_refused():
    regularizer = build(source="demonstrations")
    obs, chunks = decisions(2)
    with pytest.raises(ValueError, match=r"source=demonstrations .*actions of shape \(2, 3, 2\) .*nothing"):
        regularizer.remember(obs, None, None)
    with pytest.raises(
        ValueError, match=r"actions of shape \(2, 3, 2\) and was given actions of shape \(2, 1, 2\)"
    ):
        regularizer.remember(obs, chunks[:, :1], None)
    with pytest.raises(ValueError, match=r"source='demonstrations' .*no demonstrations are here"):
        regularizer.begin(rollout([1], [True]), None)
    regularizer.remember(obs, chunks, None)
    regularizer.begin(rollout([1], [True]), None)
    assert remembered(regularizer)[-1] in ([0, 1], [1, 0])


def test_images_are_kept_as_bytes_and_encoded_when_drawn():
    policy = diffusion(IMAGES, crop_shape=(40, 40))
    regularizer = RehearsalConfig(batch_size=2).build(policy, policy)
    obs = observations(policy, 3)
    regularizer.remember(obs, torch.zeros(3, policy.horizon, policy.action_dim), None)
    assert regularizer.obs["observation.images.top"].dtype == torch.uint8
    x, k = torch.zeros(3, policy.horizon, policy.action_dim), torch.zeros(3, dtype=torch.long)
    step = Step(policy, policy, x, k, policy.encode(obs), x, policy.encode, 0.1)
    regularizer.loss(step).backward()
    assert any(p.grad is not None for p in policy.encoder.parameters())


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"source": "replay"}, "source='replay' of regularizer rehearsal .*base, recent or demonstrations"),
        ({"capacity": 0}, "capacity=0 .*choose at least 1"),
        ({"batch_size": 0}, "batch_size=0 .*choose at least 1"),
    ],
)
def test_options_out_of_range_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        RehearsalConfig(**fields)
