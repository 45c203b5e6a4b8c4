"""Flow kernels against numbers by hand, LeRobot's own integrators, and a Gaussian whose flow is known."""

import math

import pytest
import torch
from lerobot.policies.common.flow_matching import euler_integrate
from lerobot.policies.multi_task_dit.configuration_multi_task_dit import MultiTaskDiTConfig
from lerobot.policies.multi_task_dit.modeling_multi_task_dit import FlowMatchingObjective

from lerobot_rlft.chains.chain import sample_chain, step_log_prob
from lerobot_rlft.chains.flow import FlowSDEKernel, HybridKernel, NoiseHead


def numbers(*values):
    return torch.tensor(values).view(1, 1, -1)


def at(k):
    return torch.tensor([k])


@pytest.mark.parametrize("noise_at_one", [True, False])
@pytest.mark.parametrize(
    "k, mean, std",
    [
        # t = .5, sigma = .5 sqrt(.5 / .5), n_hat = 2 + .5 * 1, mean = 2 - .25 (1 + .25 / (2 * .5) * 2.5)
        (1, 1.59375, 0.5 * 0.5),
        # t = 1, sigma = .5 sqrt(1 / (1 - .75)) = 1, n_hat = 2, mean = 2 - .25 (1 + 1 / 2 * 2)
        (3, 1.5, 1.0 * 0.5),
        # t = .25, sigma^2 = .25 / 3, n_hat = 2.75, mean = 2 - .25 (1 + .25 / 3 / .5 * 2.75)
        (0, 2 - 0.25 * (1 + 2.75 / 6), math.sqrt(0.25 / 3) * 0.5),
    ],
)
def test_flow_sde_by_hand(noise_at_one, k, mean, std):
    kernel = FlowSDEKernel(4, 0.5, noise_at_one)
    velocity = numbers(1.0) if noise_at_one else numbers(-1.0)
    normal = kernel.transition(numbers(2.0), at(k), velocity)
    assert (normal.mean.item(), normal.stddev.item()) == (pytest.approx(mean), pytest.approx(std))


def test_the_network_is_given_its_own_time():
    assert FlowSDEKernel(4).timesteps.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert FlowSDEKernel(4, noise_at_one=False).timesteps.tolist() == [0.75, 0.5, 0.25, 0.0]
    assert FlowSDEKernel(4, noise_at_one=False).noise_time.tolist() == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize("sigma_min", [0.0, 0.1])
@pytest.mark.parametrize("noise_at_one", [True, False])
def test_what_is_noised_is_found_again(noise_at_one, sigma_min):
    kernel = FlowSDEKernel(4, 0.5, noise_at_one, sigma_min)
    x0, noise = numbers(3.0), numbers(-1.0)
    x, velocity = kernel.noised(x0, at(1), noise)
    scale = 0.5 + 0.5 * sigma_min  # of the noise at t = .5
    assert x.item() == pytest.approx(0.5 * 3 - scale)
    assert velocity.item() == pytest.approx((-(1 - sigma_min) - 3) * (1 if noise_at_one else -1))
    assert kernel.score(x, at(1), velocity).item() == pytest.approx(1 / scale)
    # Euler steps along a straight path meet its end.
    for k in (1, 0):
        x = kernel.deterministic(x, at(k), velocity)
    assert x.item() == pytest.approx(3 - sigma_min)


def test_multi_task_dit_is_trained_on_the_same_path():
    config = MultiTaskDiTConfig(objective="flow_matching", sigma_min=0.1, device="cpu")
    seen = {}

    def network(x, t, conditioning_vec):
        seen["x"], seen["t"] = x, t
        return torch.zeros_like(x)

    chunk = torch.randn(1, 3, 2)
    torch.manual_seed(0)
    loss = FlowMatchingObjective(config, 2, 3).compute_loss(network, {"action": chunk}, None)
    torch.manual_seed(0)
    noise = torch.randn_like(chunk)
    kernel = FlowSDEKernel(1, noise_at_one=False, sigma_min=0.1)
    kernel.noise_time = 1 - seen["t"]
    kernel.noise_scale = kernel.noise_time + seen["t"] * 0.1
    x, velocity = kernel.noised(chunk, at(0), noise)
    torch.testing.assert_close(x, seen["x"])
    torch.testing.assert_close(velocity.square().mean(), loss)


def field(x, time):
    return torch.sin(3 * x) + time[:, None, None] * x.cos()


def chain(kernel, noise, network=field):
    x = [noise]
    for k in reversed(range(kernel.num_steps)):
        steps = torch.full((len(noise),), k)
        x.append(kernel.transition(x[-1], steps, network(x[-1], kernel.timesteps[steps])).mean)
    return x[-1]


@pytest.mark.parametrize("steps", [1, 3, 4, 7, 10, 100])
def test_without_noise_it_is_lerobots_integrator_to_the_last_bit(steps):
    noise = torch.randn(5, 4, 2)
    assert torch.equal(chain(FlowSDEKernel(steps), noise), euler_integrate(field, noise, steps))
    config = MultiTaskDiTConfig(objective="flow_matching", num_integration_steps=steps, device="cpu")
    stock = FlowMatchingObjective(config, 2, 4)._euler_integrate(
        lambda x, t, conditioning_vec: field(x, t), noise, torch.linspace(0, 1, steps + 1), None
    )
    assert torch.equal(chain(FlowSDEKernel(steps, noise_at_one=False), noise), stock)


def marginal_std(steps, noise_level, std=0.3, mean=0.5):
    """Of the chunks of a chain whose network knows the velocity E[n - a | x] of a ~ N(mean, std^2)."""
    kernel = FlowSDEKernel(steps, noise_level)

    def velocity(x, t):
        slope = (t - (1 - t) * std**2) / ((1 - t) ** 2 * std**2 + t**2)
        return -mean + slope * (x - (1 - t) * mean)

    # A linear network: each step maps the std s of x to sqrt((slope s)^2 + its own^2).
    spread = 1.0
    for k in reversed(range(steps)):
        ends = numbers(0.0, 1.0)
        normal = kernel.transition(ends, at(k), velocity(ends, kernel.timesteps[k]))
        slope = (normal.mean[0, 0, 1] - normal.mean[0, 0, 0]).item()
        spread = math.sqrt((slope * spread) ** 2 + normal.stddev[0, 0, 0].item() ** 2)
    return spread


def test_marginals_of_a_gaussian_come_nearer_with_more_steps():
    """The bias that the docs name: exact .300, so the ODE is what is evaluated and exported."""
    ode, sde = ({n: marginal_std(n, a) for n in (10, 50, 400)} for a in (0.0, 0.7))
    assert (ode[10], ode[50]) == (pytest.approx(0.247, abs=5e-4), pytest.approx(0.289, abs=5e-4))
    assert (sde[10], sde[50]) == (pytest.approx(0.282, abs=5e-4), pytest.approx(0.297, abs=5e-4))
    assert marginal_std(10, 0.5) == pytest.approx(0.270, abs=5e-4)
    for found in (ode, sde):
        assert abs(found[50] - 0.3) < 0.5 * abs(found[10] - 0.3)
        assert found[400] == pytest.approx(0.3, abs=0.002)


def test_sampled_marginals_agree_with_the_computed_one():
    kernel, std = FlowSDEKernel(10, 0.5), 0.3

    def transition(x, k):
        t = kernel.timesteps[k][:, None, None]
        return kernel.transition(x, k, (t - (1 - t) * std**2) / ((1 - t) ** 2 * std**2 + t**2) * x)

    torch.manual_seed(0)
    drawn = sample_chain(transition, torch.randn(20_000, 1, 1), 10, lambda x: x, 0.0, 0.0).x[:, 0]
    assert drawn.std().item() == pytest.approx(marginal_std(10, 0.5, mean=0.0), abs=0.005)


def test_a_hybrid_chain_has_one_stochastic_step():
    kernel = HybridKernel(4, 0.5)
    torch.manual_seed(0)
    noise, drawn = torch.randn(400, 2, 1), kernel.stochastic(400)
    assert drawn.sum(1).tolist() == [1] * 400
    assert (drawn.float().mean(0) - 0.25).abs().max() < 0.08  # any of the four, equally often

    def transition(x, k):
        velocity = field(x, kernel.timesteps[k])
        normal, here = kernel.transition(x, k, velocity), drawn.gather(1, k[:, None])[:, :, None]
        normal.loc = normal.mean.where(here, kernel.deterministic(x, k, velocity))
        return normal

    chains = sample_chain(transition, noise, 4, lambda x: x, 0.0, 0.0, drawn)
    for k in range(4):
        steps = torch.full((400,), k)
        x, after = chains.x[:, k + 1], chains.x[:, k]
        velocity, here = field(x, kernel.timesteps[steps]), drawn[:, k]
        assert torch.equal(after[~here], kernel.deterministic(x, steps, velocity)[~here])
        assert not torch.equal(after[here], kernel.transition(x, steps, velocity).mean[here])
        log_prob = step_log_prob(kernel.transition(x, steps, velocity), after, lambda x: x, 0.0)
        assert torch.equal(chains.log_prob[here, k], log_prob[here])
        assert not chains.log_prob[~here, k].any()
    rows, k = chains.pairs(4)
    assert rows.tolist() == list(range(400)) and torch.equal(k, drawn.int().argmax(1))
    assert chains.pairs(2)[1].unique().tolist() == [0, 1]


def test_without_a_floor_nothing_is_clamped():
    """At a std of .01 the density of the mean is beyond DPPO's upper clamp of e^2."""
    normal = torch.distributions.Normal(numbers(0.0), numbers(0.01))
    assert step_log_prob(normal, numbers(0.0), lambda x: x, 0.0).item() == pytest.approx(
        -math.log(0.01 * math.sqrt(2 * math.pi))
    )


def test_the_noise_head_starts_in_the_middle_and_stays_in_its_range():
    head = NoiseHead(3, (2, 4), (0.08, 0.16))
    features, time = torch.randn(5, 3), torch.rand(5)
    std = head(features, time)
    # log std^2 half way between those of .08 and .16
    torch.testing.assert_close(std, torch.full((5, 2, 4), math.sqrt(0.08 * 0.16)))
    last = head.net[-1]
    with torch.no_grad():
        last.bias[0], last.bias[1], last.bias[2] = 100.0, -100.0, 0.5
    std = head(features, time)[0].flatten()
    assert std[:2].tolist() == pytest.approx([0.16, 0.08])
    low, high = 2 * math.log(0.08), 2 * math.log(0.16)
    variance = math.exp(low + (high - low) * (math.tanh(0.5) + 1) / 2)
    assert std[2].item() == pytest.approx(math.sqrt(variance))
    with torch.no_grad():
        last.weight.normal_()
    assert not torch.equal(head(features, time), head(features.flip(0), time))
    assert not torch.equal(head(features, time), head(features, 1 - time))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: FlowSDEKernel(0), "0 integration steps, choose at least 1"),
        (lambda: FlowSDEKernel(4, -0.1), r"noise_level=-0.1 is out of range, choose 0 to 1.5"),
        (lambda: FlowSDEKernel(4, 1.6), "noise_level=1.6 .*explodes"),
        (lambda: NoiseHead(1, (1, 1), (0.2, 0.1)), r"noise_std_range=\[0.2, 0.1\] .*the smaller first"),
        (lambda: NoiseHead(1, (1, 1), (0.0, 0.1)), r"noise_std_range=\[0.0, 0.1\] .*two numbers > 0"),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_half_precision_predictions_give_log_probs_in_float32():
    kernel = FlowSDEKernel(4, 0.5)
    x = torch.randn(2, 3, 2)
    normal = kernel.transition(x, torch.tensor([0, 3]), torch.randn(2, 3, 2).bfloat16())
    assert normal.mean.dtype == normal.log_prob(x).dtype == torch.float32
