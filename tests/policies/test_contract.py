"""What algorithms rely on, for every policy family and sampler."""

import copy
import functools

import pytest
import torch
from families import EXPLORES_OTHERWISE, VARIANTS, WITH_ENCODER, experience, observations
from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import get_policy_class

from lerobot_rlft.algorithms.dppo import DPPO, DPPOConfig
from lerobot_rlft.chains.chain import step_log_prob
from lerobot_rlft.policies.base import Exploration
from lerobot_rlft.policies.conditioning import LABELS, POSITIVE, UNKNOWN, AdvantageEmbedding
from lerobot_rlft.policies.loading import load_pretrained
from lerobot_rlft.policies.rlft_guided.adapter import guided


@pytest.fixture(params=list(VARIANTS))
def variant(request):
    return request.param


build = functools.cache(lambda variant: VARIANTS[variant]())


@pytest.fixture
def policy(variant):
    """Shared: a test that changes it makes a copy."""
    return build(variant)


@torch.no_grad()
def explore(policy, batch=6, seed=0):
    """Condition and chain of random observations."""
    condition = policy.encode(observations(policy, batch))
    torch.manual_seed(seed)
    return condition, policy.sample(condition, policy.std_floor, policy.std_floor)


def replayed(policy, chain, condition, rows, k):
    normal = policy.transition(chain.x[rows, k + 1], k, condition[rows])
    return step_log_prob(normal, chain.x[rows, k], policy.executed, policy.std_floor)


def count_calls(monkeypatch, policy, name):
    calls, original = [], getattr(policy, name)

    def counted(*args):
        calls.append(args)
        return original(*args)

    monkeypatch.setattr(policy, name, counted)
    return calls


def test_shapes(policy, variant):
    condition, chain = explore(policy)
    steps = policy.kernel.num_steps
    assert policy.features(condition).shape == (6, policy.feature_dim)
    assert (policy.encoder is not None) == (variant in WITH_ENCODER)
    assert chain.x.shape == (6, steps + 1, policy.horizon, policy.action_dim)
    assert chain.log_prob.shape == (6, steps)
    assert policy.executed(chain.x[:, 0]).shape == (6, policy.n_action_steps, 2)
    assert policy.to_action(chain.x[:, 0]).shape == (6, policy.n_action_steps, 2)
    assert policy.deployed_chunk(condition).shape == (6, policy.horizon, policy.action_dim)


def test_a_chunk_costs_one_network_call_for_each_step(policy, monkeypatch):
    calls = count_calls(monkeypatch, policy, "predict")
    explore(policy)
    assert [timestep[0].item() for _, timestep, _ in calls] == policy.kernel.timesteps.flip(0).tolist()


def test_sampling_and_replay_agree_on_log_probs(policy):
    condition, chain = explore(policy)
    all_rows, steps = chain.pairs(policy.kernel.num_steps)
    with torch.no_grad():
        for part in torch.randperm(len(steps)).split(7):  # other batches than those of sampling
            rows, k = all_rows[part], steps[part]
            ratio = (replayed(policy, chain, condition, rows, k) - chain.log_prob[rows, k]).exp()
            assert (ratio - 1).abs().max() <= 1e-4


def test_exploration_without_a_floor_is_the_deployed_sampler(policy, variant):
    condition, _ = explore(policy, batch=8)
    torch.manual_seed(5)
    mine = policy.sample(condition, sampling_floor=0.0, log_prob_floor=0.1).x[:, 0]
    torch.manual_seed(5)
    stock = policy.deployed_chunk(condition)
    assert torch.allclose(mine, stock, rtol=0, atol=1e-6) == (variant not in EXPLORES_OTHERWISE)


def test_the_condition_depends_on_every_observation(policy):
    obs = observations(policy, 2)
    with torch.no_grad():
        condition = policy.encode(obs)
        for key in obs:
            for step in range(policy.n_obs_steps):
                changed = {k: v.clone() for k, v in obs.items()}
                changed[key][0, step] = changed[key][0, step].flip(-1)
                moved = (policy.encode(changed) - condition).abs().amax(1)
                assert moved[0] > 1e-5 and moved[1] < 1e-6, (key, step)


def test_what_is_not_executed_does_not_count(policy):
    condition, chain = explore(policy)
    rows, k = torch.arange(6), torch.zeros(6, dtype=torch.long)
    normal = policy.transition(chain.x[:, 1], k, condition)
    chain.x[:, 0] = normal.mean + 0.1  # a hybrid chain may have none of the step's noise
    position = policy.executed(torch.arange(policy.horizon).repeat(6, 1)[..., None])[0, :, 0]
    unexecuted = [i for i in range(policy.horizon) if i not in position.tolist()]
    assert unexecuted
    with torch.no_grad():
        reference = replayed(policy, chain, condition, rows, k)
        chain.x[:, 0, unexecuted] += 1
        chain.x[:, 0, :, 2:] += 1  # dims that a family pads
        assert torch.equal(replayed(policy, chain, condition, rows, k), reference)
        chain.x[:, 0, position[-1], 1] += 1
        assert (replayed(policy, chain, condition, rows, k) < reference).all()


@pytest.mark.parametrize("train_encoder", [True, False])
def test_gradients_reach_exactly_the_declared_parameters(policy, train_encoder):
    policy = copy.deepcopy(policy)
    head = set()
    if policy.noise_head is not None:
        torch.nn.init.normal_(policy.noise_head.net[-1].weight)  # at 0 nothing reaches the layers before
        head = set(policy.noise_head.parameters())
    _, chain = explore(policy)
    policy.freeze(train_encoder)
    encoder = set() if policy.encoder is None else set(policy.encoder.parameters())
    declared = set(policy.module.parameters()) - (set() if train_encoder else encoder)
    declared -= set(policy.idle_parameters())
    assert set(policy.trainable_parameters()) == declared | head
    condition = policy.encode(observations(policy, 6))
    steps = policy.kernel.num_steps
    rows, k = torch.arange(6).repeat_interleave(steps), torch.arange(steps).repeat(6)
    replayed(policy, chain, condition, rows, k).sum().backward()
    reached = {p for p in {*policy.module.parameters(), *head} if p.grad is not None and p.grad.any()}
    assert reached == declared | head


def test_freezing_can_be_undone(policy):
    policy = copy.deepcopy(policy)
    policy.module.requires_grad_(False)
    policy.freeze(train_encoder=True)
    idle = set(policy.idle_parameters())
    assert all(p.requires_grad == (p not in idle) for p in policy.module.parameters())


def test_a_saved_and_reloaded_policy_acts_the_same(policy, tmp_path):
    policy.save_pretrained(tmp_path)
    again = load_pretrained(PreTrainedConfig.from_pretrained(tmp_path), tmp_path, Exploration())
    again.task = policy.task
    assert again.kernel.num_steps == policy.kernel.num_steps
    obs, actions = observations(policy, 3), []
    for p in (policy, again):
        torch.manual_seed(7)
        with torch.no_grad():
            actions.append(p.to_action(p.deployed_chunk(p.encode(obs))))
    assert torch.equal(*actions)
    assert actions[0].abs().max() > 1  # unnormalised: the chunk itself is within +-1


@pytest.mark.parametrize("variant", sorted(WITH_ENCODER))
def test_a_copied_encoder_encodes_alike_and_stands_alone(policy):
    obs = observations(policy, 2)
    twin = policy.copy_encoder()
    with torch.no_grad():
        before = policy.encode(obs)
        assert torch.equal(twin.encode(obs), before)
        for parameter in twin.encoder.parameters():
            parameter += 0.1
        assert not torch.allclose(twin.encode(obs), before)
        assert torch.equal(policy.encode(obs), before)
    size = sum(p.numel() for p in twin.module.parameters())
    assert size == sum(p.numel() for p in policy.encoder.parameters())


def test_dppo_starts_at_ratio_one_and_moves_only_what_it_trains(policy):
    policy, base = copy.deepcopy(policy), copy.deepcopy(policy)
    base.module.requires_grad_(False)
    steps = None if experience(policy).chain.stochastic is not None else 2
    config = DPPOConfig(
        update_epochs=1, minibatch_size=16, finetuned_steps=steps, train_encoder=False, actor_lr=1e-3
    )
    metrics = DPPO(config, policy, base).update(experience(policy))
    assert metrics["first_ratio_error"] <= 1e-4
    assert metrics["kl_to_base"] > 0
    pairs = zip(policy.module.named_parameters(), base.module.parameters(), strict=True)
    moved = {name for (name, new), old in pairs if not torch.equal(new, old)}
    assert moved == {name for name, p in policy.module.named_parameters() if p.requires_grad}


def conditioned(policy, seed=3):
    """A copy of the policy with a random advantage embedding."""
    policy = copy.deepcopy(policy)
    embedding = AdvantageEmbedding(policy.condition_layer)
    torch.manual_seed(seed)
    with torch.no_grad():
        embedding.weight.normal_(std=0.5)
    return policy, embedding


def noise_and_step(policy, batch=6):
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(batch, policy.horizon, policy.action_dim, generator=generator)
    return x, policy.kernel.timesteps[torch.zeros(batch, dtype=torch.long)]


@torch.no_grad()
def test_an_untrained_label_changes_nothing(policy):
    twin = copy.deepcopy(policy)
    embedding = AdvantageEmbedding(twin.condition_layer)
    obs, (x, timestep) = observations(policy, 6), noise_and_step(policy)
    expected = policy.predict(x, timestep, policy.encode(obs))
    labels = torch.arange(6) % len(LABELS)
    with embedding.given(labels):
        assert torch.equal(twin.predict(x, timestep, twin.encode(obs)), expected)


@torch.no_grad()
def test_a_folded_label_is_what_the_policy_was_told_and_stock_lerobot_loads_it(policy, tmp_path):
    twin, embedding = conditioned(policy)
    obs = observations(policy, 6)

    def chunk(of):
        torch.manual_seed(5)
        return of.deployed_chunk(of.encode(obs))

    with embedding.given(POSITIVE):
        told = chunk(twin)
    with embedding.given(UNKNOWN):
        assert not torch.allclose(chunk(twin), told, atol=1e-3)
    embedding.fold(twin.condition_layer)
    twin.save_pretrained(tmp_path)
    config = PreTrainedConfig.from_pretrained(tmp_path)
    assert config.type == policy.module.config.type
    again = copy.copy(policy)
    # Stock: the family's own class, strictly the keys that it knows.
    again.module = get_policy_class(config.type).from_pretrained(tmp_path, config=config, strict=True)
    assert (chunk(again) - told).abs().max() <= 1e-5


@torch.no_grad()
@pytest.mark.parametrize("weight", [0.0, 1.0, 2.5])
def test_guidance_asks_told_and_untold_in_one_call(policy, weight, tmp_path):
    if policy.network_path is None:
        pytest.skip("the family cannot be guided")
    twin, embedding = conditioned(policy)
    obs, (x, timestep) = observations(policy, 6), noise_and_step(policy)
    condition = twin.encode(obs)
    with embedding.given(POSITIVE):
        told = twin.predict(x, timestep, condition)
    with embedding.given(UNKNOWN):
        untold = twin.predict(x, timestep, condition)
    expected = untold + weight * (told - untold)

    both = guided(twin, embedding, weight)
    network = both.module.inner.get_submodule(policy.network_path)
    calls = []
    handle = network.register_forward_pre_hook(lambda module, args: calls.append(len(args[0])))
    found = both.predict(x, timestep, both.encode(obs))
    handle.remove()
    assert calls == [6 if weight == 1 else 12]
    assert torch.allclose(found, expected, rtol=0, atol=1e-5)
    assert torch.allclose(both.frozen_copy().predict(x, timestep, condition), expected, rtol=0, atol=1e-5)

    both.save_pretrained(tmp_path)
    config = PreTrainedConfig.from_pretrained(tmp_path)
    assert config.type == "rlft_guided" and config.guidance_weight == weight
    again = load_pretrained(config, tmp_path, Exploration())
    again.task = policy.task
    assert again.kernel.num_steps == policy.kernel.num_steps
    assert torch.allclose(again.predict(x, timestep, again.encode(obs)), expected, rtol=0, atol=1e-5)
    torch.manual_seed(6)
    chunk = again.to_action(again.deployed_chunk(again.encode(obs)))
    torch.manual_seed(6)
    assert torch.allclose(chunk, both.to_action(both.deployed_chunk(condition)), atol=1e-4)
