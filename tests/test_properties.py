"""What must not change a number, tried on many inputs: shifts, orders, scales and what nobody executes."""

import math

import hypothesis.extra.numpy as arrays
import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Normal

from lerobot_rlft.chains.chain import kl_divergence, sample_chain, step_log_prob
from lerobot_rlft.critics.advantages import gae
from lerobot_rlft.diversity.atlas import ModeAtlas
from lerobot_rlft.metrics.chain_kl import chain_kl_rows
from lerobot_rlft.metrics.modes import (
    effective_modes,
    entropy,
    entropy_ratio,
    jensen_shannon,
    min_retention,
    mode_counts,
    wilson_interval,
)
from lerobot_rlft.regularizers.entropy import particle_entropy

SEEDS = st.integers(0, 2**32 - 1)
COUNTS = st.lists(st.integers(0, 300), min_size=2, max_size=8).filter(any)


def tensors(*shape, low=-3.0, high=3.0):
    return arrays.arrays(np.float64, shape, elements=st.floats(low, high)).map(torch.from_numpy)


def pairs_of_counts():
    """Two policies' successes in the same modes, and an order of these."""
    return st.integers(2, 8).flatmap(
        lambda modes: st.tuples(
            *(arrays.arrays(np.int64, modes, elements=st.integers(0, 300)).filter(np.any) for _ in range(2)),
            st.permutations(range(modes)),
        )
    )


@st.composite
def episodes(draw):
    """Arguments of `gae`: up to 5 decisions of 3 episodes of different lengths."""
    length = np.array(draw(st.lists(st.integers(1, 5), min_size=3, max_size=3)))
    valid = torch.from_numpy(np.arange(length.max())[:, None] < length)
    terminated = torch.tensor(draw(st.lists(st.booleans(), min_size=3, max_size=3)))
    return draw(tensors(*valid.shape)), draw(tensors(*valid.shape)), draw(tensors(3)), terminated, valid


@given(episodes(), st.floats(-5, 5), st.floats(0, 0.99), st.floats(0, 1))
def test_gae_does_not_see_a_reward_that_the_values_know(data, shift, gamma, gae_lambda):
    """A constant c in every value and c (1 - gamma) in every reward, c at an end, change no advantage."""
    reward, value, final_value, terminated, valid = data
    expected, target = gae(*data, gamma, gae_lambda)
    last = torch.cat([valid[1:], torch.zeros_like(valid[:1])]) != valid
    paid = reward + shift * (1 - gamma) + shift * gamma * (last & terminated).double()
    found, shifted = gae(paid, value + shift, final_value + shift, terminated, valid, gamma, gae_lambda)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(shifted, target + shift * valid)


@given(episodes(), SEEDS)
def test_gae_takes_episodes_one_by_one(data, seed):
    """Neither their order nor what lies behind an end matters."""
    reward, value, final_value, terminated, valid = data
    expected, _ = gae(*data, 0.9, 0.8)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(3))
    garbage = ~valid * 1e3
    found, _ = gae(
        (reward + garbage)[:, order], (value + garbage)[:, order], final_value[order], terminated[order],
        valid[:, order], 0.9, 0.8,
    )  # fmt: skip
    torch.testing.assert_close(found, expected[:, order])


NEAR = tensors(2, 4, 3, low=-0.3, high=0.3)  # farther apart, densities are cut to the same smallest one


@given(NEAR, NEAR, tensors(2, 4, 3), st.integers(1, 4), st.floats(0.05, 1))
def test_what_is_not_executed_has_no_density_and_no_divergence(mean, x, other, sent, floor):
    executed = lambda chunk: chunk[:, :sent]  # noqa: E731
    p, q = Normal(mean, 0.2), Normal(x, 0.3)
    tail = torch.where(torch.arange(4)[:, None] < sent, 0.0, other)
    moved = Normal(mean + tail, 0.2)
    log_prob = step_log_prob(p, x, executed, floor)
    assert torch.equal(step_log_prob(moved, x + tail, executed, floor), log_prob)
    assert torch.equal(step_log_prob(p, x + tail, executed, floor), log_prob)
    assert torch.equal(kl_divergence(moved, q, executed, floor), kl_divergence(p, q, executed, floor))


@given(tensors(3, 2, 2), tensors(3, 2, 2), tensors(3, 2, 2, low=0.01), tensors(3, 2, 2, low=0.01))
def test_kl_is_zero_only_between_equals(mean, other, std, other_std):
    everything = lambda chunk: chunk  # noqa: E731
    p, q = Normal(mean, std), Normal(other, other_std)
    kl = kl_divergence(p, q, everything, 0.1)
    assert (kl >= -1e-12).all() and torch.equal(kl_divergence(p, p, everything, 0.1), torch.zeros(3).double())
    apart = ((mean - other).abs() > 1e-3) | ((std.clamp(min=0.1) - other_std.clamp(min=0.1)).abs() > 1e-3)
    assert (kl[apart.flatten(1).any(1)] > 0).all()
    # Inputs in the other order of rows give the other order of rows.
    turned = kl_divergence(Normal(mean.flip(0), std.flip(0)), q, everything, 0.1)
    flipped = kl_divergence(p, Normal(other.flip(0), other_std.flip(0)), everything, 0.1)
    torch.testing.assert_close(turned, flipped.flip(0))


@given(st.floats(0.2, 0.9), st.lists(st.floats(0.1, 1), min_size=1, max_size=4), SEEDS)
def test_a_chain_of_linear_steps_has_the_marginal_of_their_product(decay, stds, seed):
    """x_k = decay x_{k+1} + std_k noise, from N(0, 1): the variance of x_0 can be written down."""
    steps = len(stds)
    scale = torch.tensor(stds, dtype=torch.float64)
    transition = lambda x, k: Normal(decay * x, scale[k][:, None, None].expand_as(x))  # noqa: E731
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        noise = torch.randn(20_000, 1, 1, dtype=torch.float64)
        chain = sample_chain(transition, noise, steps, lambda x: x)
    variance = decay ** (2 * steps) + sum(std**2 * decay ** (2 * k) for k, std in enumerate(stds))
    x = chain.x[:, 0].flatten()
    # Seven standard errors: of the mean sqrt(v / n), of the variance v sqrt(2 / n).
    assert abs(x.mean()) < 7 * math.sqrt(variance / len(x))
    assert abs(x.var() - variance) < 7 * variance * math.sqrt(2 / len(x))
    # Means .3 apart in every step: the KL of step k is .09 / (2 std_k^2), along any chain.
    shifted = lambda x, k: Normal(decay * x + 0.3, scale[k][:, None, None].expand_as(x))  # noqa: E731
    rows = chain_kl_rows(transition, shifted, chain.x[:5], lambda x: x, 0.1)
    torch.testing.assert_close(rows, (0.3**2 / (2 * scale**2)).expand(5, -1))


@given(st.integers(1, 5000), st.data())
def test_wilson_intervals_lie_within_0_and_1_and_rise_with_successes(count, data):
    successes = data.draw(st.integers(0, count))
    low, high = wilson_interval(successes, count)
    assert 0 <= low <= successes / count <= high <= 1
    mirrored = wilson_interval(count - successes, count)
    assert np.allclose([low, high], [1 - mirrored[1], 1 - mirrored[0]])
    if successes < count:
        more = wilson_interval(successes + 1, count)
        assert more[0] > low and more[1] > high
    wider, narrower = wilson_interval(successes, count), wilson_interval(3 * successes, 3 * count)
    assert narrower[1] - narrower[0] < wider[1] - wider[0]


@given(pairs_of_counts())
def test_names_of_modes_do_not_matter(data):
    counts, base, order = data[0], data[1], list(data[2])
    for one in (entropy, effective_modes):
        assert math.isclose(one(counts[order]), one(counts))
    divergence = jensen_shannon(counts, base)
    assert 0 <= divergence <= 1 + 1e-12 and math.isclose(
        divergence, jensen_shannon(base, counts), abs_tol=1e-12
    )
    assert math.isclose(divergence, jensen_shannon(counts[order], base[order]), abs_tol=1e-12)
    assert jensen_shannon(counts, 3 * counts) < 1e-12
    kept, renamed = min_retention(counts, base), min_retention(counts[order], base[order])
    assert math.isclose(kept.ratio, renamed.ratio) and kept.low <= kept.ratio <= kept.high
    mode = np.repeat(np.arange(len(counts)), counts)
    success = np.arange(len(mode)) % 3 > 0
    named = mode_counts(mode, success, len(counts))
    shuffle = np.random.default_rng(0).permutation(len(mode))
    assert np.array_equal(mode_counts(mode[shuffle], success[shuffle], len(counts)), named)
    assert named.sum() == success.sum()


@given(COUNTS)
def test_entropy_lies_between_one_mode_and_all(counts):
    counts = np.array(counts)
    assert 0 <= entropy(counts) <= 1 and 1 <= effective_modes(counts) <= len(counts)
    assert math.isclose(entropy(np.full(len(counts), counts.sum())), 1)
    assert entropy(np.eye(len(counts), dtype=int)[0] * counts.sum()) == 0
    if (counts > 0).sum() > 1 and effective_modes(counts) > 1:
        ratio = entropy_ratio(counts, counts, resamples=50)
        assert ratio.successes == counts.sum() and math.isclose(ratio.ratio, 1, rel_tol=1e-9)


@given(SEEDS, st.floats(0.1, 10), st.floats(-100, 100))
def test_the_atlas_does_not_see_the_order_of_episodes(seed, scale, origin):
    """Nor the unit and the origin of what it clusters."""
    rng = np.random.default_rng(seed)
    ahead = np.linspace(0, 1, 12)
    side = np.repeat([-1.0, 1.0, 2.0], [12, 9, 7])[:, None] * np.sin(np.pi * ahead)
    x = side + 0.03 * rng.standard_normal((28, 1)) * np.sin(np.pi * ahead)
    states = np.stack([x, np.broadcast_to(ahead, x.shape)], -1)
    here = {"env": "avoiding", "key": "observation.state", "min_cluster_size": 5}
    atlas = ModeAtlas.fit(states, **here)
    modes = atlas.assign(states)
    assert modes.tolist() == [0] * 12 + [1] * 9 + [2] * 7
    order = rng.permutation(len(states))
    shuffled = ModeAtlas.fit(states[order], **here)
    assert np.array_equal(shuffled.assign(states), modes) and np.array_equal(
        atlas.assign(states[order]), modes[order]
    )
    other = ModeAtlas.fit(scale * states + origin, **here)
    assert np.array_equal(other.assign(scale * states + origin), modes)


@given(st.floats(-5, 5), SEEDS)
def test_particle_entropy_sees_distances_only(shift, seed):
    rng = np.random.default_rng(seed)
    chunks, t = (
        torch.from_numpy(rng.standard_normal((16, 3))).float(),
        torch.from_numpy(rng.integers(0, 3, 16)),
    )
    novelty = particle_entropy(chunks, t, 3)
    axes = torch.from_numpy(np.linalg.qr(rng.standard_normal((3, 3)))[0]).float()
    torch.testing.assert_close(particle_entropy(chunks @ axes + shift, t, 3), novelty, rtol=1e-3, atol=1e-4)
    order = torch.from_numpy(rng.permutation(16))
    torch.testing.assert_close(particle_entropy(chunks[order], t[order], 3), novelty[order])
    for at in t.unique():
        assert abs(novelty[t == at].sum()) < 1e-5
