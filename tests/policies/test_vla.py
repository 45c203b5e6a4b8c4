"""The adapters of pi0, pi05 and smolvla against stock LeRobot."""

import copy

import pytest
import torch
from camera import CameraEnvConfig
from families import IMAGES, experience, observations, vla
from lerobot.configs import FeatureType, PreTrainedConfig
from lerobot.policies.factory import get_policy_class
from lerobot.policies.rtc.configuration_rtc import RTCConfig
from safetensors.torch import load_file, save_file

from lerobot_rlft.algorithms.dppo import DPPO, DPPOConfig
from lerobot_rlft.policies.base import Exploration
from lerobot_rlft.policies.loading import load_pretrained
from lerobot_rlft.policies.prefix import Prefix
from lerobot_rlft.rollout.environments import make_runner
from lerobot_rlft.utils.errors import UserError

KINDS = ("pi0", "pi05", "smolvla")


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def stock_batch(policy, obs):
    """What `lerobot-eval` hands to a policy."""
    frame = {k: v[:, 0].float() / 255 if v.dtype == torch.uint8 else v[:, 0] for k, v in obs.items()}
    return policy.preprocessor(frame | {"task": [policy.task] * len(frame["observation.state"])})


def explore(policy, batch, seed=0):
    obs = observations(policy, batch)
    torch.manual_seed(seed)
    with torch.no_grad():
        condition = policy.encode(obs)
        return obs, condition, policy.sample(condition, 0.0, 0.1)


def test_without_noise_a_chunk_is_that_of_stock_lerobot_to_the_last_bit(kind):
    policy = vla(kind)
    obs, _, chain = explore(policy, 3)
    stock = policy.module.predict_action_chunk(stock_batch(policy, obs), noise=chain.x[:, -1])
    assert torch.equal(chain.x[:, 0, :, :2], stock)


def test_actions_are_those_of_stock_lerobot(kind):
    policy = vla(kind)
    obs, condition, _ = explore(policy, 2)
    torch.manual_seed(4)
    mine = policy.to_action(policy.deployed_chunk(condition))
    torch.manual_seed(4)
    policy.module.reset()
    stock = policy.postprocessor(policy.module.select_action(stock_batch(policy, obs)))
    assert torch.equal(mine[:, 0], stock)


def test_the_prefix_is_read_once_for_a_decision(kind):
    policy, calls = vla(kind), []
    _, decoder = policy._language_model()
    decoder.layers[0].input_layernorm.register_forward_hook(lambda *_: calls.append(1))
    explore(policy, 2)
    assert len(calls) == 1


def test_steps_leave_the_condition_as_it_is(kind):
    policy = vla(kind)
    _, condition, chain = explore(policy, 2)
    before = condition.clone()
    first, again = (policy.predict(chain.x[:, -1], torch.ones(2), condition).detach() for _ in range(2))
    assert torch.equal(condition, before) and torch.equal(first, again)


def test_the_instruction_is_read(kind):
    policy = vla(kind)
    _, condition, _ = explore(policy, 2)
    policy.task = "pull the block"
    with torch.no_grad():
        # Conditions may differ in size, like their instructions; the mean token does not.
        other = policy.features(policy.encode(observations(policy, 2)))
        assert not torch.allclose(other, policy.features(condition))


def test_critics_read_the_mean_token_and_the_state_of_pi0():
    policy = vla("pi0")
    obs, condition, _ = explore(policy, 3)
    features = policy.features(condition)
    assert features.shape == (3, policy.shape.width + 6)
    state = stock_batch(policy, obs)["observation.state"]
    assert torch.equal(features[:, -6:-2], state) and not features[:, -2:].any()
    prefix = Prefix.unflatten(condition, policy.shape)
    assert torch.equal(features[:, :-6], prefix.summary)


def test_critics_can_read_the_action_expert(kind):
    policy = vla(kind)
    _, condition, _ = explore(policy, 3)
    features = policy.expert_features(condition)
    assert features.shape == (3, policy.expert_dim) and features.std(0).max() > 0
    algorithm = DPPO(
        DPPOConfig(critic_features="expert", update_epochs=1, minibatch_size=16),
        policy,
        copy.deepcopy(policy),
    )
    metrics = algorithm.update(experience(policy))
    assert (
        metrics["first_ratio_error"] <= 1e-4 and algorithm.critic.net.net[0].in_features == policy.expert_dim
    )


@pytest.mark.parametrize("train_encoder, moves", [(None, False), (True, True)])
def test_the_language_model_is_frozen_unless_asked(kind, train_encoder, moves):
    policy = vla(kind)
    base = policy.frozen_copy()
    config = DPPOConfig(update_epochs=1, minibatch_size=16, train_encoder=train_encoder)
    DPPO(config, policy, base).update(experience(policy))
    pairs = zip(policy.encoder.parameters(), base.encoder.parameters(), strict=True)
    assert any(not torch.equal(new, old) for new, old in pairs) == moves


def test_the_base_shares_what_stays_frozen(kind):
    policy = vla(kind)
    policy.freeze(None)
    base = policy.frozen_copy()
    own, theirs = ({p.data_ptr() for p in x.module.parameters()} for x in (policy, base))
    frozen = {p.data_ptr() for p in policy.module.parameters() if not p.requires_grad}
    assert own & theirs == frozen and frozen
    assert not any(p.requires_grad for p in base.module.parameters())


@pytest.mark.parametrize("missing", ["observation.images.wrist", "observation.state"])
def test_missing_inputs_are_named(kind, missing):
    policy = vla(kind)
    obs = observations(policy, 2)
    del obs[missing]
    if kind == "pi05" and missing == "observation.state":
        with pytest.raises(ValueError, match="State is required"):  # its prompt needs it
            policy.encode(obs)
    else:
        with pytest.raises(UserError, match=rf"inputs lack {missing}; there are .*observation"):
            policy.encode(obs)


def test_an_empty_camera_may_be_missing():
    blank = {"observation.images.empty_camera_0": (FeatureType.VISUAL, (3, 48, 48))}
    policy = vla("pi0", inputs=IMAGES | blank)
    obs = observations(policy, 2)
    del obs["observation.images.empty_camera_0"]
    assert policy.encode(obs).isfinite().all()


def test_the_runner_tells_the_task(kind):
    policy = vla(kind)
    policy.task = ""
    make_runner(CameraEnvConfig(task="stack it"), policy, 2).env.close()
    assert policy.task == "stack it"


@pytest.mark.parametrize(
    "env, answer",
    [
        (CameraEnvConfig(task=None), "reads an instruction and env.type=toy_camera gives none"),
        (CameraEnvConfig(tasks=["left", "right"]), "several instructions .left; right.*single task"),
    ],
)
def test_environments_that_do_not_name_one_task(env, answer):
    with pytest.raises(UserError, match=answer):
        make_runner(env, vla("pi0"), 2)


def test_a_bfloat16_policy_keeps_log_probabilities_in_float32():
    policy = vla("pi0", dtype="bfloat16", noise_level=0.5)
    obs, condition, chain = explore(policy, 4)
    assert condition.dtype == torch.bfloat16
    assert chain.x.dtype == chain.log_prob.dtype == torch.float32
    state = stock_batch(policy, obs)["observation.state"]
    assert torch.equal(policy.features(condition)[:, -6:-2], state)  # to the last bit
    base = policy.frozen_copy()
    metrics = DPPO(DPPOConfig(update_epochs=1, minibatch_size=16), policy, base).update(experience(policy))
    assert metrics["first_ratio_error"] <= policy.ratio_tolerance == 0.05


@pytest.mark.parametrize(
    "kind, field",
    [("pi0", "use_relative_actions"), ("pi05", "use_relative_actions"), ("smolvla", "adapt_to_pi_aloha")],
)
def test_options_that_do_not_fit_are_refused(kind, field):
    with pytest.raises(UserError, match=rf"policy.{field}=true is not supported: .*Choose"):
        vla(kind, **{field: True})


@pytest.mark.parametrize("kind", ["pi0", "pi05"])
def test_weights_that_lerobot_fails_to_load_are_noticed(kind, tmp_path):
    """It prints so and goes on with random ones."""
    vla(kind).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    config = PreTrainedConfig.from_pretrained(tmp_path)
    name = next(name for name in tensors if name.endswith("embed_tokens.weight") or "lm_head" in name)
    save_file({key: tensor for key, tensor in tensors.items() if key != name}, file)
    with pytest.raises(UserError, match=rf"not a whole checkpoint.*its weights lack .*{name}"):
        load_pretrained(config, tmp_path, Exploration())
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"not a whole checkpoint.*SafetensorError"):
        load_pretrained(config, tmp_path, Exploration())


# Real-time chunking


def test_a_tuned_policy_runs_under_real_time_chunking(kind, tmp_path):
    policy = vla(kind, noise_level=0.5)
    base = policy.frozen_copy()
    DPPO(DPPOConfig(update_epochs=1, minibatch_size=16), policy, base).update(experience(policy))
    policy.save_pretrained(tmp_path)
    stock = get_policy_class(kind).from_pretrained(tmp_path)
    stock.config.rtc_config = RTCConfig(execution_horizon=4)
    stock.init_rtc_processor()
    batch = stock_batch(policy, observations(policy, 2))
    noise = torch.randn(2, 6, 5)
    options = {"inference_delay": 2, "execution_horizon": 4}
    free = stock.predict_action_chunk(dict(batch), noise=noise.clone(), prev_chunk_left_over=None, **options)
    wanted = free + 0.5
    led = stock.predict_action_chunk(dict(batch), noise=noise.clone(), prev_chunk_left_over=wanted, **options)
    before, after = ((x - wanted)[:, :2].abs().mean() for x in (free, led))
    assert led.isfinite().all() and after < before


def test_collecting_under_real_time_chunking_is_refused(kind):
    policy = vla(kind, rtc_config=RTCConfig())
    assert policy.deployed_chunk(explore(policy, 2)[1]).isfinite().all()  # it can still be evaluated
    with pytest.raises(
        ValueError, match=r"rtc_config is enabled.*another distribution.*--policy.rtc_config=null.*mask"
    ):
        DPPO(DPPOConfig(), policy, policy)
    assert not vla(kind, rtc_config=RTCConfig(enabled=False)).guided
