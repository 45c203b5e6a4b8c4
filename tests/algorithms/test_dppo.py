"""The update of DPPO on hand-made experience of a toy policy whose every number can be computed."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from lerobot_rlft.algorithms import dppo, on_policy
from lerobot_rlft.algorithms.dppo import DPPO, DPPOConfig, check_first_ratio, ppo_loss
from lerobot_rlft.algorithms.nft import NFT, NFTConfig
from lerobot_rlft.chains.chain import DDPMKernel
from lerobot_rlft.critics.advantages import gae
from lerobot_rlft.policies.base import DenoisingPolicy
from lerobot_rlft.regularizers.base import Regularizer, success_value
from lerobot_rlft.regularizers.kl_base import KLBaseConfig
from lerobot_rlft.regularizers.mode_balance import BalanceConfig
from lerobot_rlft.regularizers.rehearsal import RehearsalConfig
from lerobot_rlft.rollout.episodes import Episodes, Rollout
from lerobot_rlft.utils.optimization import Means

STEPS = 4


class Toy(DenoisingPolicy):
    """Chunks of two scalars, the first executed; the condition is two numbers, or a linear layer of them."""

    n_obs_steps, horizon, n_action_steps, action_dim, feature_dim = 1, 2, 1, 1, 2

    def __init__(self, encoder: bool = False, dropout: float = 0.0, seed: int = 0) -> None:
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(5, 16), nn.Mish(), nn.Dropout(dropout), nn.Linear(16, 2))
        self.module = nn.ModuleDict({"network": network}).eval()
        if encoder:
            self.module["encoder"] = nn.Linear(2, 2)
        alphas_cumprod = torch.tensor([0.9, 0.6, 0.3, 0.05])
        self.kernel = DDPMKernel(alphas_cumprod, torch.arange(STEPS).flip(0), clip_range=3.0)
        self.encoded = self.predicted = 0

    def encode(self, obs):
        self.encoded += 1
        flat = obs["observation.state"].flatten(1)
        return flat if self.encoder is None else self.encoder(flat)

    def predict(self, x, timestep, condition):
        self.predicted += 1
        time = timestep[:, None] / STEPS - 0.5
        return self.module["network"](torch.cat([x.flatten(1), time, condition], 1))[..., None]

    def executed(self, x):
        return x[:, :1]

    @property
    def encoder(self):
        return dict(self.module.items()).get("encoder")

    def copy_encoder(self):
        twin = copy.copy(self)
        twin.module = nn.ModuleDict({"encoder": copy.deepcopy(self.module["encoder"])})
        return twin

    def deployed_chunk(self, condition):
        raise NotImplementedError

    def to_action(self, chunk):
        return self.executed(chunk)

    def save_pretrained(self, folder):
        raise NotImplementedError


@torch.no_grad()
def explore(policy, lengths=(3, 1, 2), reward=None, seed=0, floor=0.1):
    """Episodes of these lengths, the first cut; rewards are random or `reward(chunks (D, H, 1)) -> (D,)`."""
    torch.manual_seed(seed)
    valid = torch.arange(max(lengths))[:, None] < torch.tensor(lengths)
    t, episode = valid.nonzero()[torch.randperm(sum(lengths))].T
    obs = {"observation.state": torch.randn(len(t), 1, 2)}
    chain = policy.sample(policy.encode(obs), floor, floor)
    data = Rollout(
        obs=obs,
        chain=chain,
        t=t,
        episode=episode,
        reward=torch.zeros(valid.shape),
        valid=valid,
        terminated=torch.tensor([False] + [True] * (len(lengths) - 1)),
        final_obs={"observation.state": torch.randn(len(lengths), 1, 2)},
        episodes=None,
    )
    data.reward = data.grid(torch.randn(len(t)) if reward is None else reward(chain.x[:, 0]))
    return data


def make(policy=None, base=None, backward=torch.Tensor.backward, kind=DPPO, regularizers=None, **fields):
    policy = policy or Toy()
    base = base or copy.deepcopy(policy)
    base.module.requires_grad_(False)
    config = {DPPO: DPPOConfig, NFT: NFTConfig}[kind](**{"critic_epochs": 1} | fields)
    algorithm = kind(config, policy, base, backward, regularizers)
    algorithm.warm = True  # see `test_the_critic_is_warm_before_its_first_advantages`
    return algorithm


def weights(module):
    return [p.detach().clone() for p in module.parameters()]


def same(module, before):
    return [torch.equal(p, q) for p, q in zip(module.parameters(), before, strict=True)]


def silence_critic(algorithm):
    """Values are 0 from now on."""
    with torch.no_grad():
        for parameter in algorithm.critic.net.net[-1].parameters():
            parameter.zero_()


def test_ppo_loss_by_hand():
    ratio = torch.tensor([1.5, 0.5, 1.5, 0.5, 1.05])
    advantage = torch.tensor([2.0, 2.0, -2.0, -2.0, 1.0])
    clip = torch.tensor([0.1, 0.2, 0.1, 0.2, 0.01])
    # gains are cut at 1 + clip, losses at 1 - clip, each row by its own clip; harm is not cut
    expected = -(2 * 1.1 + 2 * 0.5 - 2 * 1.5 - 2 * 0.8 + 1 * 1.01) / 5
    loss, clipped = ppo_loss(ratio.log(), advantage, clip)
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    assert clipped == 1.0
    assert ppo_loss(ratio.log(), advantage, torch.full((5,), 0.3))[1] == pytest.approx(0.8)


def test_exploring_samples_with_the_floors_of_the_options():
    algorithm = make(min_sampling_std=0.2, min_log_prob_std=0.2)
    policy = algorithm.policy
    data = explore(policy, floor=0.2)
    condition = policy.encode(data.obs)
    torch.manual_seed(5)
    chain = algorithm.explore(condition)
    torch.manual_seed(5)
    assert torch.equal(chain.log_prob, policy.sample(condition, 0.2, 0.2).log_prob)


def test_first_ratio_may_be_off_by_1e_4():
    assert check_first_ratio(torch.tensor([0.0, -5e-5])) == pytest.approx(5e-5, rel=0.01)
    for bad in (2e-4, -2e-4, math.nan):
        with pytest.raises(
            RuntimeError, match=r"must be 1 within 0.0001.*train mode.*std floors.*half precision"
        ):
            check_first_ratio(torch.tensor([0.0, bad]))


def test_what_enters_the_first_loss(monkeypatch):
    """One minibatch of everything: advantage, discount and clip of every (decision, step) pair by hand."""
    algorithm = make(
        update_epochs=1, gamma=0.5, gae_lambda=0.5, gamma_denoising=0.5, clip_range=0.2, clip_range_base=0.1,
        clip_range_rate=0.0, finetuned_steps=3, anchor_coef=0.0, scale_reward=False, critic_epochs=1,
    )  # fmt: skip
    silence_critic(algorithm)
    data, seen = explore(algorithm.policy), {}
    r = data.reward

    def transition(x, k, prediction):
        seen.setdefault("k", k), seen.setdefault("x", x)
        return DDPMKernel.transition(algorithm.policy.kernel, x, k, prediction)

    def loss(log_ratio, advantage, clip):
        seen.update(log_ratio=log_ratio, advantage=advantage, clip=clip)
        return ppo_loss(log_ratio, advantage, clip)

    monkeypatch.setattr(algorithm.policy.kernel, "transition", transition)
    monkeypatch.setattr(dppo, "ppo_loss", loss)
    metrics = algorithm.update(data)

    # Values are 0 everywhere, so the time limit's bootstrap is 0 too: A_t = r_t + .25 A_{t+1}
    by_hand = {(2, 0): r[2, 0], (0, 1): r[0, 1], (1, 2): r[1, 2]}
    by_hand[1, 0] = r[1, 0] + 0.25 * by_hand[2, 0]
    by_hand[0, 0] = r[0, 0] + 0.25 * by_hand[1, 0]
    by_hand[0, 2] = r[0, 2] + 0.25 * by_hand[1, 2]
    mean = torch.stack(list(by_hand.values())).mean()
    place = list(zip(data.t.tolist(), data.episode.tolist(), strict=True))
    pairs = set()
    for i, k in enumerate(seen["k"].tolist()):
        row = int((data.chain.x[:, k + 1] == seen["x"][i]).all(2).all(1).nonzero())
        pairs.add((row, k))
        centred = by_hand[place[row]] - mean
        assert seen["advantage"][i].item() == pytest.approx(centred.item() * 0.5**k, abs=1e-6)
        assert seen["clip"][i].item() == pytest.approx((0.2, 0.15, 0.1)[k])
    assert pairs == {(row, k) for row in range(6) for k in range(3)}
    assert seen["log_ratio"].abs().max() < 1e-5
    advantage = torch.stack([by_hand[p] for p in place])
    assert metrics["policy_loss"] == pytest.approx(0, abs=1e-5)  # whatever all decisions have in common
    assert metrics["value_loss"] == pytest.approx((advantage.square().mean() / 2).item(), abs=1e-5)
    assert metrics["advantage_std"] == pytest.approx(advantage.std(unbiased=False).item(), abs=1e-5)
    assert (metrics["decisions"], metrics["value_mean"], metrics["clip_fraction"]) == (6, 0, 0)
    assert metrics["kl_to_base"] > 0


class Pairs(Toy):
    """Executes both scalars of a chunk."""

    n_action_steps = 2

    def executed(self, x):
        return x


def test_the_trust_region_is_in_nats_of_the_whole_chunk(monkeypatch):
    """A mean log-ratio of .1 is .1 nats of one executed number and .2 of two."""
    for policy, numbers in ((Toy(), 1), (Pairs(), 2)):
        algorithm = make(policy, clip_range=0.3, clip_range_base=0.3)
        assert algorithm.objective.clip.tolist() == pytest.approx([0.3 / numbers] * STEPS)
        data = explore(policy)
        algorithm.objective.begin(data.chain, torch.zeros(6, 2), torch.zeros(6))
        monkeypatch.setattr(
            dppo, "step_log_prob", lambda *args, data=data: data.chain.log_prob[:, 0] + torch.tensor(0.1)
        )
        rows, k = torch.arange(6), torch.zeros(6, dtype=torch.long)
        step = algorithm._step(data.chain.x[:, 1], rows, k, lambda p, rows: torch.zeros(len(rows), 2))
        _, log = algorithm.objective.loss(step, rows, first=False)
        nats = 0.1 * numbers
        assert log["approx_kl"] == pytest.approx(math.exp(nats) - 1 - nats, rel=1e-4)
        assert algorithm.objective.stops(log | {"approx_kl": 0.06})
        assert not algorithm.objective.stops(log | {"approx_kl": 0.04})


def updated(algorithm, data, reference=None):
    """All weights after one update."""
    if reference is not None:
        algorithm.begin(reference, None)
    torch.manual_seed(5)
    algorithm.update(data)
    return torch.cat([w.flatten() for w in weights(algorithm.policy.module)])


@pytest.mark.parametrize("kind", [DPPO, NFT])
def test_what_all_advantages_have_in_common_moves_nothing(kind, monkeypatch):
    after = []
    for constant in (0.0, 7.0):
        algorithm = make(kind=kind, minibatch_size=7)

        def higher(*args, constant=constant):
            advantage, target = gae(*args)
            return advantage + constant, target

        monkeypatch.setattr(on_policy, "gae", higher)
        after.append(updated(algorithm, explore(algorithm.policy, (40, 40, 40))))
    torch.testing.assert_close(*after, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", [DPPO, NFT])
@pytest.mark.parametrize("held", [False, True])
def test_rewards_in_another_unit_give_the_same_update(kind, held, monkeypatch):
    """Also where a regularizer adds to rewards and to the loss."""
    monkeypatch.setattr(on_policy, "WARMUP_STEPS", 3)
    after = []
    for unit in (1.0, 10.0):
        regularizers = {"paid": Paid(coef=0.5)} if held else {}
        algorithm = make(kind=kind, regularizers=regularizers, minibatch_size=7)
        parts = [
            balanced(explore(algorithm.policy, (40, 40, 40), seed=seed), [0, 1, 2], [True, True, False])
            for seed in (0, 1)
        ]
        for data in parts:
            data.reward = data.reward * unit
        after.append(updated(algorithm, *parts if held else parts[:1]))
    torch.testing.assert_close(*after, atol=1e-5, rtol=0)


class Whole(Toy):
    """Executes both numbers of a chunk."""

    def executed(self, x):
        return x[:, :2]


class Tailed(Whole):
    """Its chunks have `extra` more numbers, with outputs of their own, that are not executed."""

    def __init__(self, extra):
        super().__init__()
        self.horizon = 2 + extra
        self.module["tail"] = nn.Linear(2, extra)

    def predict(self, x, timestep, condition):
        head = super().predict(x[:, :2], timestep, condition)
        return torch.cat([head, self.module["tail"](condition)[:, :, None]], 1)


def test_actions_that_are_not_executed_do_not_change_the_update():
    after = []
    for extra in (2, 14):
        policy = Whole()
        data = explore(policy, (40, 40, 40))
        torch.manual_seed(1)
        tail = torch.randn(len(data.chain.x), STEPS + 1, extra, 1)
        data.chain.x = torch.cat([data.chain.x, tail], 2)
        longer = Tailed(extra)
        longer.module.load_state_dict(policy.module.state_dict(), strict=False)
        torch.manual_seed(2)  # of the critic
        updated(make(longer, minibatch_size=7), data)
        after.append(torch.cat([w.flatten() for w in weights(longer.module["network"])]))
        assert (after[-1] - torch.cat([w.flatten() for w in weights(policy.module)])).abs().max() > 1e-4
    torch.testing.assert_close(*after, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", [DPPO, NFT])
def test_the_tail_is_held(kind):
    """By DPPO to the base, from which it is pushed here; by NFT to where the iteration began."""
    policy = Tailed(3)
    base = copy.deepcopy(policy)
    with torch.no_grad():
        policy.module["tail"].bias += 1
    fields = {"update_epochs": 40, "actor_lr": 3e-2, "minibatch_size": 100}
    fields |= {"max_step_kl": None} if kind == DPPO else {}
    algorithm = make(policy, base, kind=kind, **fields)
    metrics = algorithm.update(explore(policy, (40, 40)))
    distance = (policy.module["tail"].bias - base.module["tail"].bias).abs()
    if kind == DPPO:
        assert distance.max() < 0.7 and metrics["tail_moved"] > 0
    else:
        assert distance.min() > 1 - 1e-5 and metrics["tail_moved"] < 1e-10


def test_the_critic_is_warm_before_its_first_advantages(monkeypatch):
    """On the first data there is: 3 passes of 8 steps on its 6 decisions, once."""
    algorithm, steps = make(), []
    algorithm.warm = False
    step = algorithm.critic.step
    monkeypatch.setattr(algorithm.critic, "step", lambda *args: steps.append(len(args[2])) or step(*args))
    moved = [weights(algorithm.policy.module)]
    warm_up = algorithm._warm_up
    monkeypatch.setattr(
        algorithm, "_warm_up", lambda *args: (warm_up(*args), moved.append(weights(algorithm.policy.module)))
    )
    algorithm.update(explore(algorithm.policy))
    assert steps[:24] == [256] * 24 and max(steps[24:]) <= 6 and algorithm.warm
    assert len(moved) == 2 and all(torch.equal(a, b) for a, b in zip(*moved, strict=True))
    algorithm.update(explore(algorithm.policy))
    assert len(moved) == 2


def test_states_of_plain_adam_go_on_with_amsgrad():
    algorithm = make(minibatch_size=7)
    algorithm.update(explore(algorithm.policy))
    state = copy.deepcopy(algorithm.state_dict())
    state.pop("warm")
    state["actor_optimizer"]["param_groups"][0]["amsgrad"] = False
    for moments in state["actor_optimizer"]["state"].values():
        moments.pop("max_exp_avg_sq")
    again = make(copy.deepcopy(algorithm.policy), minibatch_size=7)
    again.load_state_dict(state)
    assert again.warm and again.actor_optimizer.param_groups[0]["amsgrad"]
    assert math.isfinite(again.update(explore(again.policy))["policy_loss"])


def test_a_time_limit_bootstraps_from_the_final_observation(monkeypatch):
    algorithm, calls = make(), []
    data = explore(algorithm.policy)
    monkeypatch.setattr(on_policy, "gae", lambda *args: calls.append(args) or gae(*args))
    expected = algorithm.critic.net(data.final_obs["observation.state"]).detach()
    values = algorithm.critic.net(data.obs["observation.state"]).detach()
    algorithm.update(data)
    reward, value, final_value, terminated, valid = calls[0][:5]
    torch.testing.assert_close(final_value, expected)
    torch.testing.assert_close(value[data.t, data.episode], values)
    assert terminated is data.terminated and valid is data.valid
    # scaled: all rewards are divided by the same std
    ratio = reward[valid] / data.reward[valid]
    assert ratio.std() < 1e-5 and ratio[0] != 1


@pytest.mark.parametrize("floor", [0.0, 5.0])
def test_advantages_are_normalised_before_the_denoising_discount(floor, monkeypatch):
    algorithm, seen = (
        make(update_epochs=1, gamma_denoising=0.0, normalize_advantage=True, advantage_std_floor=floor),
        [],
    )
    monkeypatch.setattr(dppo, "ppo_loss", lambda *args: seen.append(args) or ppo_loss(*args))
    std = algorithm.update(explore(algorithm.policy, lengths=(40, 40)))["advantage_std"]
    assert 0.1 < std < 4
    a = seen[0][1]
    last_step = a != 0  # with gamma_denoising 0 only these are left
    assert last_step.sum() == 80
    assert a[last_step].mean().item() == pytest.approx(0, abs=1e-5)
    expected = std / floor if floor else 1  # a floor above the std is the divisor
    assert a[last_step].std(unbiased=False).item() == pytest.approx(expected, abs=1e-4)


def test_training_moves_the_policy_and_measures_it():
    algorithm = make(minibatch_size=7)
    before = weights(algorithm.policy.module)
    metrics = algorithm.update(explore(algorithm.policy))
    assert metrics["first_ratio_error"] <= 1e-4
    assert metrics["approx_kl"] > 0 and metrics["kl_to_base"] > 0 and metrics["grad_norm"] > 0
    assert not any(same(algorithm.policy.module, before))
    assert not any(p.grad is not None for p in algorithm.base.module.parameters())
    by_step = metrics.pop("kl_by_step")
    assert len(by_step) == algorithm.finetuned and min(by_step) > 0
    assert metrics["kl_to_base"] == pytest.approx(sum(by_step) / len(by_step))
    assert all(math.isfinite(value) for value in metrics.values())


def test_metrics_are_means_over_minibatches():
    log = Means()
    log.add(loss=1.0, rare=7.0)
    log.add(loss=torch.tensor(4.0))
    assert log.result() == {"loss": 2.5, "rare": 7.0}


def test_changed_weights_are_caught():
    algorithm = make()
    data = explore(algorithm.policy)
    with torch.no_grad():
        algorithm.policy.module["network"][0].weight.mul_(1.01)
    with pytest.raises(RuntimeError, match="weights changed between collection and update"):
        algorithm.update(data)


def test_train_mode_is_caught():
    algorithm = make(Toy(dropout=0.1))
    data = explore(algorithm.policy)
    algorithm.policy.module.train()
    with pytest.raises(RuntimeError, match="train mode"):
        algorithm.update(data)


@pytest.mark.parametrize("finetuned", [1, 3])
def test_only_finetuned_steps_get_the_policy_gradient(finetuned, monkeypatch):
    fields = {"anchor_coef": 0.0, "tail_coef": 0.0, "minibatch_size": 5}
    algorithm, asked = make(Whole(), finetuned_steps=finetuned, **fields), set()

    def transition(x, k, prediction):
        if torch.is_grad_enabled():
            asked.update(k.tolist())
        return DDPMKernel.transition(algorithm.policy.kernel, x, k, prediction)

    monkeypatch.setattr(algorithm.policy.kernel, "transition", transition)
    metrics = algorithm.update(explore(algorithm.policy))
    assert asked == set(range(finetuned))
    assert "anchor_loss" not in metrics
    assert algorithm.base.predicted == 1  # the KL


def test_the_anchor_asks_the_base_at_the_other_steps_only(monkeypatch):
    algorithm, asked = make(finetuned_steps=2, minibatch_size=4, update_epochs=3), set()
    base = algorithm.base

    def predict(x, timestep, condition):
        asked.update(timestep.tolist())
        return Toy.predict(base, x, timestep, condition)

    data = explore(algorithm.policy)
    algorithm.update(data)
    # 12 pairs in minibatches of 4: their tail, and other steps; and the KL
    assert base.predicted == 2 * 3 * 3 + 1
    monkeypatch.setattr(base, "predict", predict)
    encode = lambda p, rows: p.encode({"observation.state": torch.zeros(100, 1, 2)})  # noqa: E731
    algorithm.anchor.loss(data.chain.x, encode, 100)
    assert asked == {2, 3}


def test_the_base_is_called_for_the_kl_alone_where_all_is_trained():
    algorithm = make(Whole())
    algorithm.update(explore(algorithm.policy))
    assert algorithm.base.predicted == 1


def test_the_anchor_is_zero_at_the_start():
    algorithm = make(finetuned_steps=2, update_epochs=1)
    assert algorithm.update(explore(algorithm.policy))["anchor_loss"] == 0


def early_distance(algorithm, data):
    """Mean squared difference of network outputs to the base at the two noisiest steps."""
    with torch.no_grad():
        condition = algorithm.base.encode(data.obs)
        parts = []
        for k in (2, 3):
            x, timestep = data.chain.x[:, k + 1], torch.full((len(condition),), k)
            difference = [p.predict(x, timestep, condition) for p in (algorithm.policy, algorithm.base)]
            parts.append((difference[0] - difference[1]).square().mean())
        return torch.stack(parts).mean().item()


def test_the_anchor_pulls_early_steps_to_the_base():
    policy = Toy()
    base = copy.deepcopy(policy)
    with torch.no_grad():
        for parameter in policy.module.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    lengths = (20, 20)
    distance = {}
    for coef in (0.0, 30.0):
        algorithm = make(
            copy.deepcopy(policy), base, finetuned_steps=2, anchor_coef=coef, actor_lr=1e-2, update_epochs=20
        )
        data = explore(algorithm.policy, lengths)
        before = early_distance(algorithm, data)
        algorithm.update(data)
        distance[coef] = early_distance(algorithm, data)
    assert distance[30.0] < before / 5
    assert distance[0.0] > before / 2


def test_anchor_and_kl_hold_a_trained_encoder_to_that_of_the_base():
    policy = Toy(encoder=True)
    base = copy.deepcopy(policy)
    with torch.no_grad():
        policy.encoder.bias += 1  # the denoising networks are still equal
    algorithm = make(policy, base, finetuned_steps=2, update_epochs=1, actor_lr=1e-12)
    metrics = algorithm.update(explore(policy))
    assert metrics["anchor_loss"] > 1e-3
    assert metrics["kl_to_base"] > 1e-6


def test_one_finetuned_step_trains():
    algorithm = make(finetuned_steps=1, minibatch_size=3)
    before = weights(algorithm.policy.module)
    metrics = algorithm.update(explore(algorithm.policy))
    by_step = metrics.pop("kl_by_step")
    assert len(by_step) == algorithm.finetuned and min(by_step) > 0
    assert metrics["kl_to_base"] == pytest.approx(sum(by_step) / len(by_step))
    assert all(math.isfinite(value) for value in metrics.values())
    assert not any(same(algorithm.policy.module, before))


def test_more_finetuned_steps_than_the_chain_has_are_refused():
    with pytest.raises(ValueError, match=r"algorithm\.finetuned_steps=5 is out of range, choose 1 to 4"):
        make(finetuned_steps=5)


def test_critic_warmup_leaves_the_actor_alone():
    algorithm = make(Toy(encoder=True), critic_warmup_iterations=2, critic_features="own")
    actor = weights(algorithm.policy.module)
    for _ in range(2):
        critic = weights(algorithm.critic.net)
        metrics = algorithm.update(explore(algorithm.policy))
        assert all(same(algorithm.policy.module, actor)) and metrics["kl_to_base"] == 0
        assert not any(same(algorithm.critic.net, critic))
    algorithm.update(explore(algorithm.policy))
    assert not any(same(algorithm.policy.module, actor))


def test_max_step_kl_stops_the_actor_but_not_the_critic():
    steps = {}
    for max_step_kl in (None, 1e-12):
        algorithm = make(max_step_kl=max_step_kl, minibatch_size=6, update_epochs=3, actor_lr=1e-2)
        algorithm.update(explore(algorithm.policy))
        optimizers = (algorithm.actor_optimizer, algorithm.critic.optimizer)
        steps[max_step_kl] = [o.state_dict()["state"][0]["step"].item() for o in optimizers]
    # 24 pairs: four minibatches an epoch. The first has ratio 1 and KL 0, the second is the first to exceed.
    assert steps == {None: [12, 12], 1e-12: [2, 12]}


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_unusable_reward_changes_nothing(bad):
    algorithm = make(scale_reward=False, minibatch_size=1)
    data = explore(algorithm.policy, lengths=(1, 1, 1, 1, 1))
    data.reward[0, 4] = bad
    before = (
        weights(algorithm.policy.module),
        weights(algorithm.critic.net),
        algorithm.reward_scaler.state_dict(),
    )
    with pytest.raises(FloatingPointError, match=f"a reward is {bad}"):
        algorithm.update(data)
    assert all(same(algorithm.policy.module, before[0])) and all(same(algorithm.critic.net, before[1]))
    assert algorithm.reward_scaler.state_dict() == before[2]


def test_a_bad_loss_changes_nothing():
    algorithm = make()
    with torch.no_grad():
        algorithm.critic.net.net[-1].bias.fill_(math.nan)
    before = weights(algorithm.policy.module), weights(algorithm.critic.net.net[0])
    with pytest.raises(
        FloatingPointError,
        match=r"a loss of the critic of algorithm.type=dppo is nan: lower .*critic_lr=0.001, or",
    ):
        algorithm.update(explore(algorithm.policy))
    assert all(same(algorithm.policy.module, before[0])) and all(same(algorithm.critic.net.net[0], before[1]))


def test_a_bad_gradient_changes_nothing():
    def backward(loss):
        loss.backward()
        for parameter in algorithm.policy.module.parameters():
            if parameter.grad is not None:
                parameter.grad.fill_(math.inf)

    algorithm = make(backward=backward)
    before = weights(algorithm.policy.module)
    with pytest.raises(FloatingPointError, match=r"gradient of algorithm.type=dppo is inf|nan"):
        algorithm.update(explore(algorithm.policy))
    assert all(same(algorithm.policy.module, before))


def test_the_gradient_is_clipped():
    norms = []

    def backward(loss):
        loss.backward()

    for limit in (None, 1e-3):
        algorithm = make(max_grad_norm=limit, update_epochs=1, backward=backward)
        metrics = algorithm.update(explore(algorithm.policy))
        gradient = torch.cat([p.grad.flatten() for p in algorithm.policy.module.parameters()])
        norms.append((metrics["grad_norm"], gradient.norm().item()))
    assert norms[0][0] == pytest.approx(norms[0][1], rel=1e-5)
    assert norms[1] == (pytest.approx(norms[0][0], rel=1e-5), pytest.approx(1e-3, rel=1e-2))


@pytest.mark.parametrize("fields", [{}, {"critic_features": "own", "finetuned_steps": 2}])
def test_a_resumed_run_is_bit_equal(fields):
    fields = {"minibatch_size": 5, "critic_warmup_iterations": 1} | fields
    base = Toy(encoder=True)
    whole = make(copy.deepcopy(base), base, **fields)
    for iteration in range(2):
        whole.update(explore(whole.policy, seed=iteration))
    state = copy.deepcopy(whole.state_dict())
    resumed = make(copy.deepcopy(whole.policy), base, **fields)
    resumed.load_state_dict(state)
    for algorithm in (whole, resumed):
        metrics = algorithm.update(explore(algorithm.policy, seed=9))
        metrics |= algorithm.update(explore(algorithm.policy, seed=10))
        algorithm.last = metrics
    assert all(same(resumed.policy.module, weights(whole.policy.module)))
    assert all(same(resumed.critic.net, weights(whole.critic.net)))
    assert resumed.last == whole.last
    assert resumed.iterations_done == 4


def test_shared_features_leave_the_encoder_to_the_actor():
    algorithm = make(Toy(encoder=True), critic_warmup_iterations=1)
    assert algorithm.critic.twin is None
    optimised = {id(p) for group in algorithm.critic.optimizer.param_groups for p in group["params"]}
    assert optimised == {id(p) for p in algorithm.critic.net.parameters()}
    encoder = weights(algorithm.policy.encoder)
    algorithm.update(explore(algorithm.policy))
    assert all(same(algorithm.policy.encoder, encoder))
    algorithm.update(explore(algorithm.policy))
    assert not any(same(algorithm.policy.encoder, encoder))


@pytest.mark.parametrize("train_encoder", [True, False])
def test_own_features_train_a_copy_of_the_encoder(train_encoder):
    algorithm = make(Toy(encoder=True), critic_features="own", train_encoder=train_encoder)
    encoder = weights(algorithm.policy.encoder)
    assert all(same(algorithm.critic.twin.encoder, encoder))
    algorithm.update(explore(algorithm.policy))
    assert not any(same(algorithm.critic.twin.encoder, encoder))
    assert all(same(algorithm.policy.encoder, encoder)) == (not train_encoder)


def test_own_features_are_those_of_the_copy():
    algorithm = make(Toy(encoder=True), critic_features="own", update_epochs=1, critic_lr=1e-12)
    data = explore(algorithm.policy)
    with torch.no_grad():
        algorithm.critic.twin.encoder.bias += 5
        value = algorithm.critic.net(algorithm.critic.twin.encode(data.obs))
    assert algorithm.update(data)["value_mean"] == pytest.approx(value.mean().item(), abs=1e-5)


def test_a_policy_without_encoder_has_nothing_to_copy():
    assert make(critic_features="own").critic.twin is None


def test_a_frozen_encoder_encodes_each_decision_once():
    algorithm = make(Toy(encoder=True), train_encoder=False, minibatch_size=5)
    data = explore(algorithm.policy)
    algorithm.policy.encoded = 0
    algorithm.update(data)
    assert algorithm.policy.encoded == 2  # the decisions and the final observations
    assert algorithm.base.encoded == 0
    optimised = {id(p) for group in algorithm.actor_optimizer.param_groups for p in group["params"]}
    assert optimised == {id(p) for p in algorithm.policy.module["network"].parameters()}


def test_many_decisions_are_encoded_in_parts():
    algorithm = make(Toy(encoder=True), train_encoder=False)
    algorithm.policy.encode_batch = 4
    data = explore(algorithm.policy)
    whole = algorithm.policy.encode(data.obs)
    torch.testing.assert_close(algorithm.policy.encode_all(data.obs, 6), whole)


@pytest.mark.parametrize("finetuned, reached", [(None, -0.4), (2, -2.5)])
def test_it_learns_a_bandit(finetuned, reached):
    """One decision, the executed number shall be 0.5: a wrong sign anywhere makes this worse, not better."""
    algorithm = make(
        actor_lr=1e-2, critic_lr=1e-2, clip_range=0.3, clip_range_base=0.3, minibatch_size=256,
        finetuned_steps=finetuned, anchor_coef=1.0,
    )  # fmt: skip
    history = []
    for iteration in range(12):
        data = explore(
            algorithm.policy, (1,) * 128, lambda chunk: -(chunk[:, 0, 0] - 0.5).square(), iteration
        )
        history.append(data.reward.mean().item())
        algorithm.update(data)
    assert sum(history[:2]) / 2 < -3
    assert sum(history[-3:]) / 3 > reached


def balanced(data, attempt, success):
    """The rollout with modes and outcomes of its three episodes."""
    count = len(success)
    data.attempt = torch.tensor(attempt)
    data.episodes = Episodes(np.array(success), None, np.zeros(count), np.zeros(count), np.ones(count, int))
    return data


def make_balanced(policy=None, base=None, regularizers=None, kind=DPPO, **fields):
    fields = {"balance": BalanceConfig(center=True, tau=0.5), "critic_hidden_dims": (8,)} | fields
    policy = policy or Toy()
    base = base or copy.deepcopy(policy)
    options = {DPPO: DPPOConfig, NFT: NFTConfig}[kind](**fields)
    return kind(options, policy, base, regularizers=regularizers)


MODES = ([0, 1, 0], [True, True, False])


def test_a_reference_teaches_the_critic_and_the_classifier_before_the_first_iteration(monkeypatch):
    monkeypatch.setattr(on_policy, "WARMUP_STEPS", 20)
    algorithm = make_balanced(critic_lr=1e-2)
    actor = weights(algorithm.policy.module)
    data = balanced(explore(algorithm.policy, reward=lambda chunk: 3 + 0 * chunk[:, 0, 0]), *MODES)
    algorithm.begin(data, 4)
    assert all(same(algorithm.policy.module, actor))
    balance = algorithm.regularizers["balance"]
    assert balance.target.tolist() == pytest.approx([2 / 3, 1 / 3, 0, 0])
    assert balance.success_value == pytest.approx((9 + 3) / 2)  # 3 and 1 decisions of 3 each
    obs = data.obs["observation.state"].flatten(1)
    predicted = balance.predict(obs).detach()
    modes = data.attempt[data.episode]
    assert predicted[torch.arange(6), modes].mean() > 0.8 and predicted[:, 2:].max() < 0.2
    value = algorithm.critic.net(obs).detach()
    assert (value * algorithm.reward_scale).mean().item() == pytest.approx(4, abs=2)


def test_advantages_are_balanced_in_units_of_what_a_success_earns(monkeypatch):
    algorithm = make_balanced(scale_reward=False)
    data = balanced(explore(algorithm.policy, (2, 2, 2)), *MODES)
    data.reward *= 10
    balance = algorithm.regularizers["balance"]
    balance.make(2)
    balance.target = balance.shares = torch.tensor([0.25, 0.75])
    balance.success_value = 10.0
    balance.observe(data)
    bonus = balance.bonus.clone()
    monkeypatch.setattr(
        balance, "predict", lambda features: torch.tensor([[0.5, 0.5]]).expand(len(features), 2)
    )
    advantage = torch.tensor([[1.0, 5.0, 3.0], [2.0, 7.0, -2.0]])
    out = balance.advantage(advantage, data, torch.zeros(6, 2), reward_scale=1.0)
    expected = bonus.mean()  # at every decision, so that only the last one is surprised
    force = torch.stack([0.95 * (bonus - expected), bonus - expected])  # (decision, mode)
    # mode 0 is over its share: both of its episodes are pushed down, the failure too
    assert bonus[0] < 0 < bonus[1]
    by_hand = torch.tensor([[-1.0, 0.0, 1.0], [2.0, 0.0, -2.0]]) + 10 * force[:, [0, 1, 0]]
    torch.testing.assert_close(out, by_hand)
    assert balance.log == {"bonus_max": bonus[1].item(), "bonus_min": bonus[0].item()}


def test_a_strength_multiplies_all_that_holds_diversity():
    regularizers = {"a": Regularizer(KLBaseConfig(coef=0.1)), "b": Regularizer(KLBaseConfig(coef=2.0))}
    algorithm = make_balanced(regularizers=regularizers)
    for strength in (3.0, 0.5):
        algorithm.hold(strength)
        coefs = [r.coef for r in regularizers.values()]
        assert coefs == pytest.approx([0.1 * strength, 2 * strength])
        assert algorithm.regularizers["balance"].coef == strength


def test_who_needs_a_reference():
    assert not make().needs_reference
    assert make_balanced().needs_reference
    assert make_balanced(
        balance=BalanceConfig(), regularizers={"a": Regularizer(KLBaseConfig())}
    ).needs_reference


def test_a_balance_without_modes_is_refused():
    algorithm = make_balanced()
    data = explore(algorithm.policy)
    with pytest.raises(ValueError, match=r"algorithm.balance needs modes, and neither .*--atlas.key"):
        algorithm.begin(data, None)


class Paid(Regularizer):
    """Adds to rewards and to the loss; keeps what it was shown."""

    def __init__(self, coef):
        super().__init__(KLBaseConfig(coef=coef))
        self.seen = []

    def begin(self, reference, num_modes):
        self.seen.append("begin")

    def observe(self, data):
        self.seen.append("observe")

    def reward(self, data, steps):
        self.rows = torch.cat([rows for rows, _ in steps()])
        return data.valid.float()

    def loss(self, step):
        return step.prediction.square().mean()


def test_regularizers_add_to_rewards_and_losses(monkeypatch):
    regularizer, rewards = Paid(coef=0.5), []
    algorithm = make_balanced(
        balance=BalanceConfig(), regularizers={"paid": regularizer}, scale_reward=False, update_epochs=1
    )
    data = balanced(explore(algorithm.policy), *MODES)
    monkeypatch.setattr(on_policy, "gae", lambda *args: rewards.append(args[0]) or gae(*args))
    algorithm.begin(data, None)
    metrics = algorithm.update(data)
    assert regularizer.seen == ["begin", "observe"]
    assert regularizer.rows.bincount().tolist() == [STEPS] * 6  # every step of every decision
    torch.testing.assert_close(rewards[-1], data.reward + 0.5 * success_value(data) * data.valid)
    assert metrics["paid_reward"] == pytest.approx(2)  # mean over episodes of 3, 1 and 2 decisions
    assert metrics["paid_loss"] > 0
    regularizer.coef = 0.0  # switched off by the guard: its loss is not computed
    assert "paid_loss" not in algorithm.update(balanced(explore(algorithm.policy), *MODES))


@pytest.mark.parametrize("kind", [DPPO, NFT])
def test_a_balanced_run_resumes_bit_equal(kind, monkeypatch):
    monkeypatch.setattr(on_policy, "WARMUP_STEPS", 3)
    base = Toy()

    def made(policy):
        rehearsal = RehearsalConfig(source="recent", batch_size=4).build(policy, base)
        return make_balanced(
            policy, base, {"rehearsal": rehearsal}, kind, minibatch_size=5,
            min_sampling_std=0.1,
        )  # fmt: skip

    whole = made(copy.deepcopy(base))
    whole.begin(balanced(explore(whole.policy), *MODES), 3)
    whole.update(balanced(explore(whole.policy, seed=1), *MODES))
    whole.hold(1.7)
    state = copy.deepcopy(whole.state_dict())
    resumed = made(copy.deepcopy(whole.policy))
    torch.manual_seed(3)
    resumed.load_state_dict(state)
    after = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(after, torch.rand(1)), "loading leaves the random state alone"
    balance = resumed.regularizers["balance"]
    assert balance.coef == resumed.regularizers["rehearsal"].coef == 1.7
    for algorithm in (whole, resumed):
        for seed in (8, 9):
            algorithm.last = algorithm.update(balanced(explore(algorithm.policy, seed=seed), *MODES))
    assert resumed.last == whole.last
    assert all(same(resumed.policy.module, weights(whole.policy.module)))
    assert all(same(balance.classifier, weights(whole.regularizers["balance"].classifier)))


@pytest.mark.parametrize(
    "field, value, wanted",
    [
        ("actor_lr", 0.0, "a number > 0"),
        ("critic_lr", math.nan, "a number > 0"),
        ("update_epochs", 0, "at least 1"),
        ("minibatch_size", 0, "at least 1"),
        ("gamma", 1.01, "0 to 1"),
        ("gae_lambda", -0.1, "0 to 1"),
        ("gamma_denoising", 2.0, "0 to 1"),
        ("clip_range", 0.0, r"a number in \(0, 1\)"),
        ("clip_range_base", 1.0, r"a number in \(0, 1\)"),
        ("clip_range_rate", -1.0, "a number >= 0"),
        ("finetuned_steps", 0, "1 to the policy's number of denoising steps"),
        ("anchor_coef", -1.0, "a number >= 0"),
        ("min_sampling_std", -0.1, "a number >= 0"),
        ("min_log_prob_std", -0.1, "a number >= 0"),
        ("eta", 0.0, r"a number in \(0, 1\]"),
        ("eta", 1.5, r"a number in \[0, 1\]"),
        ("noise_level", -0.1, r"0 to 1.5, for example 0.5; with more the SDE explodes"),
        ("noise_level", 1.6, r"0 to 1.5, for example 0.5; with more the SDE explodes"),
        ("noise_level", 0.0, r"a number in \(0, 1.5\]; without noise there is no log-probability"),
        ("noise_std_range", (0.2, 0.1), "two numbers > 0, the smaller first"),
        ("noise_std_range", (0.0, 0.1), "two numbers > 0, the smaller first"),
        ("max_step_kl", 0.0, "a number > 0 or null"),
        ("max_grad_norm", -1.0, "a number > 0 or null"),
        ("critic_warmup_iterations", -1, "0 or more"),
        ("advantage_std_floor", -1.0, "a number >= 0"),
        ("critic_hidden_dims", (64, 0), "sizes >= 1"),
        ("critic_features", "none", "shared, own or expert"),
    ],
)
def test_values_out_of_range_are_refused(field, value, wanted):
    with pytest.raises(ValueError, match=rf"algorithm\.{field}=.*choose {wanted}") as caught:
        (NFTConfig if field == "proximal_coef" else DPPOConfig)(**{field: value})
    assert str(value) in str(caught.value)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"hybrid": True, "finetuned_steps": 2}, "hybrid=True .*choose finetuned_steps=null with it"),
        ({"flow_noise": "ode"}, "flow_noise='ode' is unknown, choose sde or head"),
    ],
)
def test_noise_that_does_not_fit_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        DPPOConfig(**fields)


@pytest.mark.parametrize(
    "fields, wanted",
    [
        (
            {"min_sampling_std": 0.0, "finetuned_steps": 1},
            "min_sampling_std=0.0 .*a number > 0; without noise",
        ),
        ({"min_log_prob_std": 0.0}, "min_log_prob_std=0.0 .*a number > 0; this sampler has noise-free"),
    ],
)
def test_a_sampler_with_steps_without_noise_needs_a_floor(fields, wanted):
    with pytest.raises(ValueError, match=wanted):
        make(**fields)


def test_steps_without_noise_are_left_out_where_no_noise_is_added():
    algorithm = make(min_sampling_std=0.0, update_epochs=1, minibatch_size=100)
    std = algorithm.policy.kernel.std
    assert std[0] == 0 and algorithm.floor == std[1]  # the smallest of the others
    assert algorithm.minibatches(6) == (18, 1)
    data = explore(algorithm.policy)
    condition = algorithm.policy.encode(data.obs)
    data.chain = algorithm.explore(condition)
    assert data.chain.pairs(STEPS)[1].unique().tolist() == [1, 2, 3]
    last = algorithm.policy.transition(data.chain.x[:, 1], torch.zeros(6, dtype=torch.long), condition)
    torch.testing.assert_close(data.chain.x[:, 0], last.mean)
    metrics = algorithm.update(data)
    assert metrics["first_ratio_error"] < 1e-5 and math.isfinite(metrics["kl_to_base"])


@pytest.mark.parametrize("kind, sampling", [(DPPO, 0.1), (NFT, 0.0)])
def test_floors_are_chosen_for_the_sampler(kind, sampling, monkeypatch):
    silent = make_balanced(kind=kind)
    assert (silent.sampling_floor, silent.floor) == (sampling, 0.1)
    monkeypatch.setattr(Toy, "std_floor", 0.0)
    noisy = make_balanced(kind=kind)
    assert (noisy.sampling_floor, noisy.floor) == (0.0, 0.0)


@pytest.mark.parametrize(
    "fields",
    [{"max_step_kl": None, "max_grad_norm": None, "critic_hidden_dims": ()}, {"gamma": 1.0, "eta": 1.0}],
)
def test_the_ends_of_the_ranges_are_allowed(fields):
    algorithm = make(**fields)
    assert math.isfinite(algorithm.update(explore(algorithm.policy))["policy_loss"])
