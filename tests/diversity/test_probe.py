"""Branching states: fixed, the same noise for base and tuned policy, and kept with the run."""

import copy

import pytest
import torch
from families import IMAGES, diffusion, observations

from lerobot_rlft.diversity.probe import (
    FULL,
    SMALL,
    Probe,
    ProbeSize,
    deployed_chunks,
    encode,
    probe_size,
    residuals,
)
from lerobot_rlft.metrics.chain_kl import chain_kl
from lerobot_rlft.utils.errors import UserError

FLOOR = 0.1
TINY = ProbeSize(chunks=24)


@pytest.fixture(scope="module")
def base():
    return diffusion()


@pytest.fixture(scope="module")
def tuned():
    policy = diffusion()
    torch.manual_seed(5)
    with torch.no_grad():
        for p in policy.module.diffusion.unet.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return policy


@pytest.fixture(scope="module")
def probe(base):
    return Probe(base, observations(base, 2), FLOOR, TINY)


def test_the_base_beside_itself(probe, base):
    before = torch.get_rng_state()
    reading = probe.measure(base)
    assert torch.equal(torch.get_rng_state(), before)
    assert reading.chunk_spread == 1 and reading.off_manifold == pytest.approx(1)
    assert reading.kl_forward == [0.0] * base.kernel.num_steps and reading.peaks == reading.base_peaks


def test_a_changed_policy_beside_its_base(probe, base, tuned):
    reading = probe.measure(tuned)
    chunks = deployed_chunks(tuned, encode(tuned, probe.obs), 24, 0)
    # Spread by hand: mean distance over the pairs of the executed part.
    spread = [torch.pdist(tuned.executed(c).flatten(1).double()).mean() for c in chunks]
    base_spread = [torch.pdist(base.executed(c).flatten(1).double()).mean() for c in probe.base_chunks]
    assert reading.chunk_spread == pytest.approx(float(sum(spread) / sum(base_spread)))
    condition = probe.condition.repeat_interleave(TINY.chains, 0)
    tuned_condition = encode(tuned, probe.obs).repeat_interleave(TINY.chains, 0)
    kl = chain_kl(
        lambda x, k: base.transition(x, k, condition),
        lambda x, k: tuned.transition(x, k, tuned_condition),
        probe.base_chains, base.executed, FLOOR,
    )  # fmt: skip
    assert reading.kl_forward == pytest.approx(kl.tolist()) and min(reading.kl_forward) > 0
    assert reading.off_manifold != pytest.approx(1)


def test_residual_is_the_error_of_the_denoiser_on_noised_chunks(base):
    obs = observations(base, 1)
    condition, chunks = encode(base, obs), torch.zeros(1, 6, 8, 2)
    error = residuals(base, condition, chunks, seed=3)
    assert error.shape == (6,)
    # By hand: K = T = 10, so .05 to .3 are steps 0, 1, 2; chunks of zeros become pure noise.
    generator = torch.Generator().manual_seed(3)
    k = torch.tensor([0, 1, 2])[torch.randint(3, (6,), generator=generator)]
    noise = torch.randn((6, 8, 2), generator=generator)
    x = (1 - base.kernel.alpha[k]).sqrt()[:, None, None] * noise
    with torch.no_grad():
        wanted = (base.predict(x, base.kernel.timesteps[k], condition.expand(6, -1)) - noise) ** 2
    assert torch.allclose(error, wanted[:, 1:5].flatten(1).mean(1))


def test_a_coarse_sampler_measures_the_residual_at_its_nearest_step():
    policy = diffusion(num_inference_steps=1)  # one step, at time .1 of the schedule: leading spacing
    policy.kernel.noise_time = torch.tensor([0.9])
    assert (
        residuals(policy, encode(policy, observations(policy, 1)), torch.zeros(1, 3, 8, 2), 0)
        .isfinite()
        .all()
    )


def test_states_are_those_where_the_base_spreads_most_one_of_each_decision(base, monkeypatch):
    obs = observations(base, 6)
    spreads = [1.0, 5.0, 4.0, 3.0, 2.0, 6.0]

    def chunks(policy, condition, count, seed):
        rows = [int((condition_of_all == c).all(1).nonzero()) for c in condition]
        return torch.stack(
            [torch.linspace(0, spreads[i], count)[:, None, None].expand(-1, 8, 2) for i in rows]
        )

    condition_of_all = encode(base, obs)
    with monkeypatch.context() as patch:
        patch.setattr("lerobot_rlft.diversity.probe.deployed_chunks", chunks)
        patch.setattr(Probe, "__init__", lambda self, base, obs, *args: setattr(self, "obs", obs))
        chosen = Probe.choose(base, obs, torch.tensor([0, 1, 1, 2, 0, 1]), FLOOR, ProbeSize(states=2))
    # Row 5 spreads most but belongs to decision 1 like rows 1 and 2; then row 3 of decision 2.
    assert torch.equal(chosen.obs["observation.state"], obs["observation.state"][[5, 3]])


def test_what_is_saved_gives_the_same_readings(probe, base, tuned, tmp_path):
    probe.save(tmp_path / "probe.safetensors")
    again = Probe.load(tmp_path / "probe.safetensors", copy.copy(base), FLOOR, TINY)
    assert again.measure(tuned) == probe.measure(tuned)
    (tmp_path / "probe.safetensors").write_bytes(b"cut")
    with pytest.raises(UserError, match=r"probe.safetensors are missing or damaged"):
        Probe.load(tmp_path / "probe.safetensors", base, FLOOR)


def test_states_of_cameras(tmp_path):
    base = diffusion(IMAGES, crop_shape=(40, 40))
    probe = Probe(base, observations(base, 2), FLOOR, TINY)
    assert probe.obs["observation.images.top"].dtype == torch.uint8
    probe.save(tmp_path / "probe.safetensors")
    again = Probe.load(tmp_path / "probe.safetensors", base, FLOOR, TINY)
    assert again.obs["observation.images.top"].dtype == torch.uint8
    assert again.measure(base).chunk_spread == 1


def test_the_rows_of_a_probe_counted_by_hand():
    """Of 10 denoising steps: 64 x 16 chunks to choose, 4 x 128 of the base and 4 x 32 chains, residuals of
    4 x 128; then as many chunks and residuals of the policy, and both policies on the chains.
    """
    assert FULL.rows(10) == (10 * (1024 + 512 + 128) + 512, 10 * (512 + 2 * 128) + 512)
    assert SMALL.rows(10) == (10 * (64 + 64 + 16) + 64, 10 * (64 + 2 * 16) + 64)


def test_a_large_policy_has_a_small_probe(base, monkeypatch):
    assert probe_size(base) is FULL
    count = sum(p.numel() for p in base.module.parameters())
    monkeypatch.setattr("lerobot_rlft.diversity.probe.LARGE", count)
    assert probe_size(base) is SMALL
    pictures = diffusion(IMAGES)  # the encoder sees each state once
    count = sum(p.numel() for p in pictures.module.parameters())
    monkeypatch.setattr("lerobot_rlft.diversity.probe.LARGE", count)
    assert probe_size(pictures) is FULL

    called, counted = [], diffusion()
    counted.module.diffusion.unet.register_forward_pre_hook(lambda _, given: called.append(len(given[0])))
    probe = Probe.choose(counted, observations(base, 16), torch.arange(16), FLOOR, SMALL)
    chosen = sum(called)
    assert probe.base_chunks.shape[:2] == (2, 32)
    assert probe.measure(counted).kl_forward == [0.0] * base.kernel.num_steps
    assert (chosen, sum(called) - chosen) == SMALL.rows(base.kernel.num_steps)
