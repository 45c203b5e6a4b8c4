"""KL of chains by hand, and why forward needs the base's chains."""

import math

import pytest
import torch

from lerobot_rlft.chains.chain import gaussian, sample_chain
from lerobot_rlft.metrics.chain_kl import chain_kl

WHOLE = lambda x: x  # noqa: E731


def shift_by(shift, std):
    """A policy that moves x by `shift` with `std`, each (K,)."""
    shift, std = torch.tensor(shift), torch.tensor(std)
    return lambda x, k: gaussian(x + shift[k][:, None, None], std[k])


def test_chain_kl_by_hand():
    chains = torch.randn(5, 3, 2, 1)  # B 5, K 2, H 2, D 1
    p, q = shift_by([1.0, 0.0], [0.5, 1.0]), shift_by([0.0, 0.0], [0.5, 2.0])
    # Step 0: (1 / .5)^2 / 2 for each of 2 dims. Step 1: log 2 + 1 / 8 - 1 / 2.
    wider = math.log(2) + 1 / 8 - 0.5
    assert chain_kl(p, q, chains, WHOLE, 0.1).tolist() == pytest.approx([4, 2 * wider])
    narrower = math.log(0.5) + 4 / 2 - 0.5
    assert chain_kl(q, p, chains, WHOLE, 0.1).tolist() == pytest.approx([4, 2 * narrower])
    assert chain_kl(p, q, chains, lambda x: x[:, :1], 0.1).tolist() == pytest.approx([2, wider])
    assert chain_kl(p, q, chains, WHOLE, 1.0)[0] == pytest.approx(1)  # std .5 raised to the floor


def test_every_step_sees_the_state_that_it_came_from():
    chains = torch.arange(3.0).reshape(1, 3, 1, 1)
    seen = []

    def record(x, k):
        seen.append((int(k), x.item()))
        return gaussian(x, torch.ones(1))

    chain_kl(record, shift_by([0.0, 0.0], [1.0, 1.0]), chains, WHOLE, 0.1)
    assert seen == [(0, 1.0), (1, 2.0)]


def test_forward_on_base_chains_shows_a_dropped_mode_that_reverse_hides():
    torch.manual_seed(0)

    def split(x, k):  # the base: away from 0 on both sides
        return gaussian(2 * x.sign(), torch.full((len(x),), 0.1))

    def one_side(x, k):  # the tuned policy knows the positive side only
        return gaussian(torch.full_like(x, 2), torch.full((len(x),), 0.1))

    noise = torch.randn(200, 1, 1).abs()
    tuned_chains = sample_chain(one_side, noise, 2, WHOLE).x
    base_chains = sample_chain(split, torch.randn(200, 1, 1), 2, WHOLE).x
    assert chain_kl(one_side, split, tuned_chains, WHOLE, 0.1).sum() == 0
    assert chain_kl(split, one_side, base_chains, WHOLE, 0.1).min() > 100
    assert chain_kl(split, one_side, tuned_chains, WHOLE, 0.1).sum() == 0  # the wrong chains hide it


@pytest.mark.parametrize("chains", [torch.zeros(2, 1, 2, 1), torch.zeros(0, 3, 2, 1), torch.zeros(2, 3, 2)])
def test_chains_of_another_shape_are_refused(chains):
    with pytest.raises(ValueError, match=r"chains has shape .* give \(B, K\+1, H, D\)"):
        chain_kl(shift_by([0.0], [1.0]), shift_by([0.0], [1.0]), chains, WHOLE, 0.1)


def test_chains_with_nan_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        chain_kl(
            shift_by([0.0], [1.0]), shift_by([0.0], [1.0]), torch.full((1, 2, 1, 1), torch.nan), WHOLE, 0.1
        )
