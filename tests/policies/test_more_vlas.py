"""The adapters of the other vision-language-action policies against stock LeRobot."""

import copy

import pytest
import torch
import vlas
from families import ACTION, IMAGES, experience, observations, statistics, vla
from lerobot.configs import FeatureType
from lerobot.policies.factory import get_policy_class

from lerobot_rlft.algorithms.dppo import DPPO, DPPOConfig
from lerobot_rlft.algorithms.nft import NFT, NFTConfig
from lerobot_rlft.policies.base import Exploration
from lerobot_rlft.policies.conditioning import (
    LABEL,
    NEGATIVE,
    POSITIVE,
    UNKNOWN,
    AdvantageEmbedding,
    Conditioned,
)
from lerobot_rlft.policies.lora import add_adapters
from lerobot_rlft.utils.errors import UserError

KINDS = ("eo1", "xvla", "vla_jepa", "groot")
# A layer of the network that denoises, for adapters.
LORA_TARGETS = {
    "eo1": ["q_proj", "v_proj"],
    "xvla": ["qkv", "vlm_proj"],
    "vla_jepa": ["to_q", "to_v"],
    "groot": ["to_q", "to_v"],
}


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def stock_batch(policy, obs):
    """What `lerobot-eval` hands to a policy."""
    frame = {k: v[:, 0].float() / 255 if v.dtype == torch.uint8 else v[:, 0] for k, v in obs.items()}
    return policy.preprocessor(frame | {"task": [policy.task] * len(frame["observation.state"])})


def encoded(policy, batch, seed=1):
    obs = observations(policy, batch, seed)
    with torch.no_grad():
        return obs, policy.encode(obs)


def stock_actions(module, policy, obs, seed):
    """All executed actions of a decision of stock LeRobot, unnormalised, (B, n_action_steps, D)."""
    module.reset()
    torch.manual_seed(seed)
    steps = [module.select_action(stock_batch(policy, obs)) for _ in range(policy.n_action_steps)]
    return torch.stack([policy.postprocessor(action) for action in steps], 1)


def test_actions_are_those_of_stock_lerobot_to_the_last_bit(kind):
    policy = vla(kind)
    obs, condition = encoded(policy, 3)
    torch.manual_seed(4)
    mine = policy.to_action(policy.deployed_chunk(condition))
    assert torch.equal(mine, stock_actions(policy.module, policy, obs, 4))


def test_steps_leave_the_condition_as_it_is(kind):
    policy = vla(kind)
    _, condition = encoded(policy, 2)
    before, x = condition.clone(), torch.randn(2, policy.horizon, policy.action_dim)
    timestep = policy.kernel.timesteps[-1:].expand(2)
    first, again = (policy.predict(x, timestep, condition).detach() for _ in range(2))
    assert torch.equal(condition, before) and torch.equal(first, again)


def test_the_instruction_is_read(kind):
    policy = vla(kind)
    obs, condition = encoded(policy, 2)
    policy.task = "pull the block"
    with torch.no_grad():
        other = policy.features(policy.encode(obs))
    assert not torch.allclose(other, policy.features(condition))


@pytest.mark.parametrize("missing", ["observation.images.wrist", "observation.state"])
def test_missing_inputs_are_named(kind, missing):
    policy = vla(kind)
    obs = observations(policy, 2)
    del obs[missing]
    with pytest.raises(UserError, match=rf"inputs lack {missing}; there are .*observation"):
        policy.encode(obs)


@pytest.mark.parametrize("train_encoder, moves", [(None, False), (True, True)])
def test_the_language_model_is_frozen_unless_asked(kind, train_encoder, moves):
    policy = vla(kind)
    base = policy.frozen_copy()
    config = DPPOConfig(update_epochs=1, minibatch_size=16, train_encoder=train_encoder)
    DPPO(config, policy, base).update(experience(policy))
    pairs = zip(policy.encoder.parameters(), base.encoder.parameters(), strict=True)
    assert any(not torch.equal(new, old) for new, old in pairs) == moves


def test_critics_can_read_the_action_expert(kind):
    policy = vla(kind)
    _, condition = encoded(policy, 3)
    features = policy.expert_features(condition)
    assert features.shape == (3, policy.expert_dim) and features.std(0).max() > 0


def test_adapters_train_alone_and_merge_into_an_ordinary_checkpoint(kind, tmp_path):
    pytest.importorskip("peft", reason="peft is not installed, it comes with the extra peft")
    policy = vla(kind)
    options = {
        "method_type": "LORA", "full_training_modules": None, "r": 2, "target_modules": LORA_TARGETS[kind],
    }  # fmt: skip
    add_adapters(policy, options)
    base = policy.frozen_copy()
    DPPO(DPPOConfig(update_epochs=1, minibatch_size=16, actor_lr=1e-2), policy, base).update(
        experience(policy)
    )
    pairs = zip(policy.module.named_parameters(), base.module.parameters(), strict=True)
    moved = {name for name, new, old in ((n, p, q) for (n, p), q in pairs) if not torch.equal(new, old)}
    assert moved and all("lora_" in name for name in moved)
    obs, condition = encoded(policy, 2)
    torch.manual_seed(4)
    mine = policy.to_action(policy.deployed_chunk(condition))
    policy.save_pretrained(tmp_path)
    stock = get_policy_class(kind).from_pretrained(tmp_path, strict=True)
    assert torch.allclose(stock_actions(stock, policy, obs, 4), mine, atol=1e-4)
    fresh = copy.deepcopy(base)
    torch.manual_seed(4)
    assert not torch.allclose(fresh.to_action(fresh.deployed_chunk(encoded(fresh, 2)[1])), mine, atol=1e-4)


BFLOAT16 = {"eo1": {"dtype": "bfloat16"}, "xvla": {"dtype": "bfloat16"}, "groot": {"use_bf16": True}}


@pytest.mark.parametrize("kind", BFLOAT16)
def test_a_bfloat16_policy_keeps_chains_in_float32(kind):
    policy = vlas.build(kind, IMAGES, ACTION, statistics(), Exploration(noise_level=0.5), **BFLOAT16[kind])
    obs, condition = encoded(policy, 3)
    chain = experience(policy).chain
    assert chain.x.dtype == chain.log_prob.dtype == torch.float32
    assert policy.features(condition).dtype == torch.float32
    torch.manual_seed(4)
    mine = policy.to_action(policy.deployed_chunk(condition))
    stock = stock_actions(policy.module, policy, obs, 4).float()
    torch.testing.assert_close(mine, stock, rtol=0, atol=0.1)
    metrics = DPPO(DPPOConfig(update_epochs=1, minibatch_size=16), policy, policy.frozen_copy()).update(
        experience(policy)
    )
    assert metrics["first_ratio_error"] <= policy.ratio_tolerance == 0.05


def test_it_is_tuned_by_nft(kind):
    policy = vlas.build(kind, IMAGES, ACTION, statistics(), Exploration(eta=0.0, noise_level=0.0))
    base = policy.frozen_copy()
    metrics = NFT(NFTConfig(minibatch_size=16), policy, base).update(experience(policy))
    assert metrics["kl_to_base"] > 0


def test_recap_tells_it_the_advantage_in_the_loss_of_lerobot(kind):
    policy = vla(kind)
    policy.module.requires_grad_(False)
    embedding = AdvantageEmbedding(policy.condition_layer)
    raw = {k: v[:, 0].float() / 255 if v.ndim == 5 else v[:, 0] for k, v in observations(policy, 2).items()}
    raw |= {"action": torch.randn(2, policy.horizon, 2), "task": [policy.task] * 2}
    batch = policy.preprocessor(raw)
    batch[LABEL] = torch.tensor([NEGATIVE, POSITIVE])
    loss, _ = Conditioned(policy.module, embedding, dropout=0.0)(batch)
    loss.backward()
    told = embedding.weight.grad.abs().amax(1) > 0
    assert told[NEGATIVE] and told[POSITIVE] and not told[UNKNOWN]


@torch.no_grad()
def test_the_stock_sampler_of_xvla_is_a_draw_of_its_transitions_with_the_noise_of_the_start():
    policy = vla("xvla")
    obs, condition = encoded(policy, 3)
    torch.manual_seed(4)
    noise = torch.randn(3, policy.horizon, policy.action_dim)
    x = noise
    for k in reversed(range(policy.kernel.num_steps)):
        normal = policy.transition(x, torch.full((3,), k), condition)
        x = normal.mean + normal.stddev * noise
    torch.testing.assert_close(policy.to_action(x), stock_actions(policy.module, policy, obs, 4))


def test_the_noise_of_xvla_follows_eta():
    half = vlas.build("xvla", IMAGES, ACTION, statistics(), Exploration(eta=0.5))
    torch.testing.assert_close(half.kernel.std, vla("xvla").kernel.std / 2)


@torch.no_grad()
def test_grippers_of_xvla_leave_the_network_before_their_sigmoid():
    policy = vlas.build(
        "xvla", IMAGES, {"action": (FeatureType.ACTION, (14,))}, {}, action_mode="joint", max_state_dim=14
    )
    obs, condition = encoded(policy, 2)
    torch.manual_seed(4)
    chunk = policy.deployed_chunk(condition)
    actions = policy.to_action(chunk)
    assert torch.equal(actions, stock_actions(policy.module, policy, obs, 4))
    assert torch.equal(actions[..., 6], chunk[:, :4, 6].sigmoid())


def test_an_instruction_of_another_length_is_refused():
    policy = vla("xvla")
    policy.module.config.tokenizer_max_length = 8
    with pytest.raises(UserError, match=r"has 16 tokens.*choose policy.pad_language_to=max_length"):
        policy.encode(observations(policy, 2))


def test_relative_actions_of_groot_are_refused():
    with pytest.raises(UserError, match=r"relative actions of groot are not supported.*Choose"):
        policy = vla("groot")
        policy.module.config.use_relative_actions = True
        type(policy)(policy.module, policy.preprocessor, policy.postprocessor, Exploration())
