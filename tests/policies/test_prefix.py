"""The prefix of a vision-language-action policy as one tensor."""

import pytest
import torch

from lerobot_rlft.policies.prefix import Prefix, PrefixShape, join, masked_mean, split

# 2 state dims, width 3, 2 layers of 2 heads of size 4; a token keeps 2 * 2 * 2 * 4 + 1 = 33 numbers.
SHAPE = PrefixShape(state_dim=2, width=3, layers=2, heads=2, head_dim=4)


def make(dtype: torch.dtype, batch: int = 3, tokens: int = 5) -> Prefix:
    torch.manual_seed(0)
    cache = [
        (torch.randn(batch, 2, tokens, 4).to(dtype), torch.randn(batch, 2, tokens, 4).to(dtype))
        for _ in range(2)
    ]
    mask = torch.arange(tokens) < torch.tensor([[5], [3], [1]])
    return Prefix(torch.randn(batch, 2), torch.randn(batch, 3).to(dtype), mask, cache)


@pytest.mark.parametrize("dtype, size", [(torch.float32, 2 + 3 + 5 * 33), (torch.bfloat16, 6 + 3 + 5 * 33)])
def test_flattening_can_be_undone_for_any_rows(dtype, size):
    prefix, rows = make(dtype), torch.tensor([2, 0, 2])
    condition = prefix.flatten()
    assert condition.shape == (3, size) and condition.dtype == dtype
    again = Prefix.unflatten(condition[rows], SHAPE)
    assert torch.equal(again.state, prefix.state[rows]) and again.state.dtype == torch.float32
    assert torch.equal(again.summary, prefix.summary[rows])
    assert torch.equal(again.mask, prefix.mask[rows]) and again.mask.dtype == torch.bool
    for mine, theirs in zip(again.cache, prefix.cache, strict=True):
        assert torch.equal(mine[0], theirs[0][rows]) and torch.equal(mine[1], theirs[1][rows])


def test_keys_and_values_are_views():
    condition = make(torch.float32).flatten()
    keys, values = Prefix.unflatten(condition, SHAPE).cache[1]
    condition += 1
    original = make(torch.float32).cache[1]
    assert torch.equal(keys, original[0] + 1) and torch.equal(values, original[1] + 1)


def test_without_a_state():
    prefix = make(torch.bfloat16)
    prefix.state = prefix.state[:, :0]
    again = Prefix.unflatten(prefix.flatten(), PrefixShape(0, 3, 2, 2, 4))
    assert again.state.shape == (3, 0) and torch.equal(again.cache[0][0], prefix.cache[0][0])


def test_gradients_reach_keys_and_values():
    prefix = make(torch.float32)
    prefix.cache[0][0].requires_grad_(True)
    Prefix.unflatten(prefix.flatten(), SHAPE).cache[0][0].sum().backward()
    assert torch.equal(prefix.cache[0][0].grad, torch.ones(3, 2, 5, 4))


def test_three_bfloat16_hold_a_float32():
    """1 + 2^-10 + 2^-20 needs 21 significant bits, bfloat16 has 8."""
    x = torch.tensor([[1 + 2**-10 + 2**-20, -0.3]])
    parts = split(x, torch.bfloat16)
    assert parts[0, ::2].tolist() == [1.0, 2**-10, 2**-20]
    assert torch.equal(join(parts, 2), x)
    many = torch.randn(1000, 7) * 10 ** torch.linspace(-5, 5, 7)
    assert torch.equal(join(split(many, torch.bfloat16), 7), many)


def test_the_mean_is_over_real_tokens():
    hidden = torch.tensor([[[1.0, 2], [3, 6], [100, 100]]])
    assert masked_mean(hidden, torch.tensor([[True, True, False]])).tolist() == [[2.0, 4.0]]
