"""Labels are told by adding to one layer, and folded into its bias."""

import copy

import pytest
import torch
from torch import nn

from lerobot_rlft.policies.conditioning import (
    LABEL,
    NEGATIVE,
    POSITIVE,
    UNKNOWN,
    AdvantageEmbedding,
    Conditioned,
    drop_labels,
    keeping_labels,
)


def layer() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 2)


def test_each_sample_is_told_its_own_label():
    linear, x = layer(), torch.ones(3, 3)
    plain = linear(x)
    embedding = AdvantageEmbedding(linear)
    with embedding.given(torch.tensor([NEGATIVE, POSITIVE, UNKNOWN])):
        assert torch.equal(linear(x), plain), "zero at first, bit for bit"
    with torch.no_grad():
        embedding.weight.copy_(torch.tensor([[1.0, 2.0], [10.0, 20.0], [0.5, 0.25]]))
    with embedding.given(torch.tensor([POSITIVE, NEGATIVE, UNKNOWN])):
        added = linear(x) - plain
    assert torch.allclose(added, torch.tensor([[10.0, 20.0], [1.0, 2.0], [0.5, 0.25]]), atol=1e-5)
    with embedding.given(torch.tensor([POSITIVE, NEGATIVE])):  # a layer that is called for every token
        added = linear(torch.ones(2, 4, 3)) - plain[0]
    assert torch.allclose(added[:, 3], torch.tensor([[10.0, 20.0], [1.0, 2.0]]), atol=1e-5)
    with embedding.given(torch.tensor([POSITIVE, NEGATIVE])):  # two noises for each sample, one after another
        added = linear(torch.ones(4, 3)) - plain[0]
    assert torch.allclose(added[:, 0], torch.tensor([10.0, 1.0, 10.0, 1.0]), atol=1e-5)
    assert torch.equal(linear(x), plain), "told nothing"


def test_a_folded_label_is_exact_and_leaves_no_trace():
    linear, x = layer(), torch.randn(5, 3)
    embedding = AdvantageEmbedding(linear)
    with torch.no_grad():
        embedding.weight.normal_()
    with embedding.given(POSITIVE):
        told = linear(x)
    embedding.fold(linear)
    assert torch.allclose(linear(x), told, rtol=0, atol=1e-6)
    assert not linear._forward_hooks
    with pytest.raises(ValueError, match="no bias"):
        AdvantageEmbedding(nn.Linear(2, 2, bias=False))


def test_copies_are_told_on_their_own():
    net = nn.Sequential(layer())
    embedding = AdvantageEmbedding(net[0])
    twin = copy.deepcopy(net)
    with torch.no_grad():
        embedding.weight.fill_(1.0)
    with embedding.given(POSITIVE):
        assert not torch.allclose(net(torch.ones(1, 3)), twin(torch.ones(1, 3)))


def test_labels_are_dropped_in_training_only():
    torch.manual_seed(0)
    labels = torch.full((10_000,), POSITIVE)
    dropped = drop_labels(labels, 0.3)
    assert set(dropped.tolist()) == {POSITIVE, UNKNOWN}
    assert (dropped == UNKNOWN).float().mean().item() == pytest.approx(0.3, abs=0.02)
    assert torch.equal(drop_labels(labels, 0.0), labels)

    class Seen(nn.Module):
        def forward(self, batch):
            assert LABEL not in batch
            return embedding.labels

    embedding = AdvantageEmbedding(layer())
    module = Conditioned(Seen(), embedding, dropout=0.999_999)
    assert module.train()({LABEL: labels}).unique().tolist() == [UNKNOWN]
    assert module.eval()({LABEL: labels}).unique().tolist() == [POSITIVE]


def test_labels_travel_around_a_pipeline():
    carried = keeping_labels(lambda batch: {"x": batch["x"] + 1})
    batch = carried({"x": torch.zeros(2), LABEL: torch.tensor([0, 1]), "y": 3})
    assert batch.keys() == {"x", LABEL} and batch["x"].tolist() == [1, 1] and batch[LABEL].tolist() == [0, 1]
