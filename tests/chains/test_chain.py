"""Kernels against diffusers' schedulers and hand-computed numbers; sampling and log-probabilities by hand."""

import math

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from torch.distributions import Normal

from lerobot_rlft.chains import chain as chains
from lerobot_rlft.chains.chain import DDIMKernel, DDPMKernel, kl_divergence, sample_chain, step_log_prob


def everything(x):
    return x


def kernel_and_step(sampler, prediction_type, clip, train_steps, steps):
    """A kernel and diffusers' own step (noise, timestep, x, prediction) -> next x."""
    options = {
        "beta_schedule": "squaredcos_cap_v2",
        "clip_sample": clip is not None,
        "clip_sample_range": clip or 1,
    }
    scheduler_class = DDPMScheduler if sampler == "ddpm" else DDIMScheduler
    scheduler = scheduler_class(train_steps, prediction_type=prediction_type, **options)
    scheduler.set_timesteps(steps)
    schedule = (scheduler.alphas_cumprod, scheduler.timesteps, prediction_type, clip)
    if sampler == "ddpm":
        step = scheduler.step
    else:

        def step(prediction, timestep, x, generator):
            return scheduler.step(prediction, timestep, x, eta=sampler, generator=generator)

    return DDPMKernel(*schedule) if sampler == "ddpm" else DDIMKernel(*schedule, eta=sampler), step


@pytest.mark.parametrize("train_steps, steps", [(10, 10), (10, 4), (100, 5)])
@pytest.mark.parametrize(
    "prediction_type, clip", [("epsilon", 1.0), ("epsilon", 0.3), ("sample", 1.0), ("sample", None)]
)
@pytest.mark.parametrize("sampler", ["ddpm", 0.0, 0.5, 1.0])
def test_every_step_is_that_of_diffusers(sampler, prediction_type, clip, train_steps, steps):
    kernel, step = kernel_and_step(sampler, prediction_type, clip, train_steps, steps)
    torch.manual_seed(0)
    for k in reversed(range(steps)):
        x, prediction = 2 * torch.randn(5, 4, 2), torch.randn(5, 4, 2)
        normal = kernel.transition(x, torch.full((5,), k), prediction)
        for seed in (1, 2):  # two different noises determine mean and std
            theirs = step(prediction, kernel.timesteps[k], x, generator=torch.Generator().manual_seed(seed))
            noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
            torch.testing.assert_close(
                normal.mean + normal.stddev * noise, theirs.prev_sample, rtol=1e-6, atol=1e-6
            )


def two_steps(kernel_class, **options):
    return kernel_class(torch.tensor([0.8, 0.4]), torch.tensor([1, 0]), clip_range=None, **options)


def cell(value: float, rows: int = 1):
    return torch.full((rows, 1, 1), value)


# x = 1 and a noise estimate of 0.5 at alphas 0.8 and 0.4:
# k = 1: x0 = (1 - sqrt(.6) / 2) / sqrt(.4) = .9687664, posterior variance .2 / .6 * .5 = 1/6;
# k = 0: x0 = (1 - sqrt(.2) / 2) / sqrt(.8) = .8680340.
@pytest.mark.parametrize(
    "kernel, k, mean, std",
    [
        (two_steps(DDPMKernel), 1, math.sqrt(0.8) / 1.2 * 0.9687664 + math.sqrt(0.5) / 3, math.sqrt(1 / 6)),
        (two_steps(DDPMKernel), 0, 0.8680340, 0.0),
        (two_steps(DDIMKernel, eta=0.0), 1, math.sqrt(0.8) * 0.9687664 + math.sqrt(0.2) / 2, 0.0),
        (
            two_steps(DDIMKernel, eta=0.5),
            1,
            math.sqrt(0.8) * 0.9687664 + math.sqrt(0.2 - 1 / 24) / 2,
            0.5 * math.sqrt(1 / 6),
        ),
        (two_steps(DDIMKernel, eta=1.0), 0, 0.8680340, 0.0),
    ],
)
def test_transition_by_hand(kernel, k, mean, std):
    normal = kernel.transition(cell(1.0), torch.tensor([k]), cell(0.5))
    assert normal.mean.item() == pytest.approx(mean, abs=1e-6)
    assert normal.stddev.item() == pytest.approx(std, abs=1e-6)


def test_rows_may_be_at_different_steps():
    kernel = two_steps(DDPMKernel)
    mixed = kernel.transition(cell(1.0, 3), torch.tensor([1, 0, 1]), cell(0.5, 3))
    assert mixed.mean.flatten().tolist() == pytest.approx([0.957778, 0.868034, 0.957778], abs=1e-6)
    assert mixed.stddev.flatten().tolist() == pytest.approx([math.sqrt(1 / 6), 0, math.sqrt(1 / 6)], abs=1e-6)


def test_step_zero_is_the_last_and_its_timestep_the_smallest():
    kernel, _ = kernel_and_step("ddpm", "epsilon", 1.0, 10, 4)
    assert kernel.num_steps == 4
    assert kernel.timesteps.tolist() == [0, 2, 4, 6]


def test_the_estimate_of_x0_is_clipped_but_the_noise_estimate_is_not():
    kernel = DDIMKernel(torch.tensor([0.8, 0.4]), torch.tensor([1, 0]), "sample", 0.25)
    x0, noise = kernel.denoised(cell(1.0), torch.tensor([1]), cell(0.5))
    assert x0.item() == 0.25
    assert noise.item() == pytest.approx((1 - math.sqrt(0.4) * 0.5) / math.sqrt(0.6), abs=1e-6)


def test_unknown_prediction_type_is_refused_with_the_choices():
    with pytest.raises(ValueError, match=r"prediction_type='v_prediction'.*epsilon.*sample"):
        two_steps(DDPMKernel, prediction_type="v_prediction")


def test_to_moves_every_tensor():
    kernel = two_steps(DDIMKernel, eta=1.0).to("meta")
    tensors = [value for value in vars(kernel).values() if isinstance(value, torch.Tensor)]
    assert len(tensors) >= 6
    assert all(value.device.type == "meta" for value in tensors)


def log_normal(z: float, std: float) -> float:
    return -z * z / 2 - math.log(std) - math.log(2 * math.pi) / 2


def test_log_prob_is_the_clamped_mean_over_the_executed_part():
    normal = Normal(torch.zeros(1, 3, 2), torch.tensor([[[0.5, 0.5], [0.5, 0.01], [0.5, 0.5]]]))
    x_next = torch.tensor([[[0.5, 9.0], [-1.0, 0.05], [7.0, 7.0]]])
    # one std; 18 stds, clamped; two stds; half a std of the floor 0.1; the last row is not executed
    expected = (log_normal(1, 0.5) - 5 + log_normal(2, 0.5) + log_normal(0.5, 0.1)) / 4
    found = step_log_prob(normal, x_next, lambda x: x[:, :2], floor=0.1)
    assert found.shape == (1,)
    assert found.item() == pytest.approx(expected, abs=1e-6)


def test_log_prob_is_not_clamped_above():
    normal = Normal(torch.zeros(1, 1, 2), torch.full((1, 1, 2), 0.01))
    found = step_log_prob(normal, torch.zeros(1, 1, 2), everything, floor=1e-6).item()
    assert found == pytest.approx(log_normal(0, 0.01)) and found > 3


def test_kl_is_the_sum_over_the_executed_part_with_floored_stds():
    p = Normal(torch.full((1, 2, 2), 0.3), torch.full((1, 2, 2), 0.01))
    q = Normal(torch.full((1, 2, 2), 0.1), torch.full((1, 2, 2), 0.02))
    # both stds are the floor 0.1, the means two of them apart: 2 nats for each of two elements
    assert kl_divergence(p, q, lambda x: x[:, 1:], floor=0.1).item() == pytest.approx(4, abs=1e-5)
    wide = Normal(torch.full((1, 2, 2), 0.1), torch.full((1, 2, 2), 0.4))
    # KL(N(.3, .2) || N(.1, .4)) = ln 2 + (.04 + .04) / .32 - 1/2; the other order would be different
    narrow = Normal(torch.full((1, 2, 2), 0.3), torch.full((1, 2, 2), 0.2))
    expected = 2 * (math.log(2) + 0.08 / 0.32 - 0.5)
    assert kl_divergence(narrow, wide, lambda x: x[:, 1:], floor=0.1).item() == pytest.approx(
        expected, abs=1e-5
    )


class Recorder:
    """A transition that halves x and adds noise of std `stds[k]`; remembers the steps it was asked for."""

    def __init__(self, *stds: float) -> None:
        self.stds, self.steps = stds, []

    def __call__(self, x, k):
        assert (k == k[0]).all()
        self.steps.append(int(k[0]))
        return Normal(x / 2, torch.full_like(x, self.stds[k[0]]), validate_args=False)


def test_a_chain_by_hand(monkeypatch):
    draws = iter([1.0, -2.0, 5.0])
    monkeypatch.setattr(torch, "randn_like", lambda x: torch.full_like(x, next(draws)))
    transition = Recorder(0.0, 0.05, 0.2)
    chain = sample_chain(transition, cell(8.0), 3, everything, sampling_floor=0.1, log_prob_floor=0.4)
    assert transition.steps == [2, 1, 0]
    # 4 + .2 * 1; then std .05 is raised to .1, 2.1 - .2; last std 0 is raised to .1, the draw of 5 cut to 3
    assert chain.x.flatten().tolist() == pytest.approx([0.95 + 0.3, 1.9, 4.2, 8.0], abs=1e-6)
    # distances to the means .3, -.2, .2 in units of the floor 0.4, which is above all stds
    expected = [log_normal(z, 0.4) for z in (0.75, -0.5, 0.5)]
    assert chain.log_prob.flatten().tolist() == pytest.approx(expected, abs=1e-6)
    assert chain.x.shape == (1, 4, 1, 1) and chain.log_prob.shape == (1, 3)


def test_without_a_floor_nothing_is_clipped_and_a_step_without_noise_draws_nothing(monkeypatch):
    draws = iter([5.0])
    monkeypatch.setattr(torch, "randn_like", lambda x: torch.full_like(x, next(draws)))
    chain = sample_chain(Recorder(0.0, 0.2), cell(8.0), 2, everything, sampling_floor=0.0)
    assert chain.x.flatten().tolist() == pytest.approx([2.5, 5.0, 8.0], abs=1e-6)


def test_exploration_noise_is_clipped_to_three_stds():
    torch.manual_seed(0)
    chain = sample_chain(Recorder(0.0), torch.zeros(1, 1000, 20), 1, everything, sampling_floor=0.1)
    assert chains.NOISE_CLIP == 3
    assert chain.x[:, 0].abs().max().item() == pytest.approx(0.3, abs=1e-6)
    assert chain.x[:, 0].std().item() == pytest.approx(0.1, rel=0.02)


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample"])
def test_noised_is_the_forward_process_and_its_perfect_prediction(prediction_type):
    alphas = torch.tensor([0.81, 0.36, 0.04])
    kernel = DDPMKernel(alphas, torch.tensor([2, 0]), prediction_type)  # two of three training steps
    assert kernel.noise_time.tolist() == pytest.approx([1 / 3, 1.0])
    x0, noise = torch.full((2, 1, 1), 0.5), torch.tensor([2.0, -1.0]).view(2, 1, 1)
    x, target = kernel.noised(x0, torch.tensor([0, 1]), noise)
    # Step 0: .9 * .5 + sqrt(.19) * 2; step 1: .2 * .5 - sqrt(.96).
    assert x.flatten().tolist() == pytest.approx([0.45 + 2 * 0.19**0.5, 0.1 - 0.96**0.5])
    assert torch.equal(target, noise if prediction_type == "epsilon" else x0)
    # With the perfect prediction the score is that of N(sqrt(alpha) x0, 1 - alpha): -noise / sqrt(1 - alpha).
    score = kernel.score(x, torch.tensor([0, 1]), target)
    assert score.flatten().tolist() == pytest.approx([-2 / 0.19**0.5, 1 / 0.96**0.5], rel=1e-5)
