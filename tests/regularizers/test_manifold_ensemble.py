import math
from types import SimpleNamespace

import pytest
import torch
from constant import EXECUTED, FLOOR, Constant, make_step
from families import ENVIRONMENT_STATE, IMAGES, diffusion

from lerobot_rlft.regularizers.manifold_ensemble import ManifoldEnsembleConfig


def build(policy, references, **fields):
    config = ManifoldEnsembleConfig(references=list(references), **fields)
    return config.build(policy, Constant(), references.__getitem__)


def kl(difference):
    """Of the last step, whose mean is the clean chunk."""
    return EXECUTED * difference**2 / (2 * FLOOR**2)


@pytest.mark.parametrize("weights, w", [(None, (0.5, 0.5)), ([1.0, 3.0], (0.25, 0.75)), ([0.0, 2.0], (0, 1))])
def test_soft_min_by_hand(weights, w):
    policy = Constant(0.5)
    regularizer = build(policy, {"a": Constant(0.0), "b": Constant(0.75)}, weights=weights)
    loss = regularizer.loss(make_step(policy, Constant(), [0]))
    parts = [w[0] * math.exp(-kl(0.5)), w[1] * math.exp(-kl(0.25))]
    assert loss.item() == pytest.approx(-math.log(sum(parts)), rel=1e-5)
    loss.backward()
    slopes = [EXECUTED * 0.5 / FLOOR**2, -EXECUTED * 0.25 / FLOOR**2]
    expected = sum(p * s for p, s in zip(parts, slopes, strict=True)) / sum(parts)
    assert policy.module["value"].grad.item() == pytest.approx(expected, rel=1e-5)


def test_the_soft_min_is_taken_of_each_pair():
    policy = Constant(0.5)
    regularizer = build(policy, {"a": Constant(0.0), "b": Constant(0.75)})
    each = [regularizer.loss(make_step(policy, Constant(), [k])).item() for k in range(3)]
    assert regularizer.loss(make_step(policy, Constant())).item() == pytest.approx(sum(each) / 3)
    assert len(set(each)) == 3


def test_far_references_do_not_underflow():
    policy = Constant(100.0)
    loss = build(policy, {"a": Constant(), "b": Constant()}).loss(make_step(policy, Constant(), [0]))
    assert loss.item() == pytest.approx(kl(100.0))


def test_a_reference_uses_its_own_features_and_stays_as_it_is():
    policy, reference = Constant(encoder=True), Constant(encoder=True)
    with torch.no_grad():
        reference.module["unit"].mul_(1.5)
    regularizer = build(policy, {"a": reference})
    loss = regularizer.loss(make_step(policy, Constant(), [0], state=1.0))
    assert loss.item() == pytest.approx(kl(0.5))
    loss.backward()
    assert not any(p.requires_grad or p.grad is not None for p in reference.module.parameters())
    assert policy.module["unit"].grad.abs().min() > 0


def with_inputs(policy, *names):
    policy.module.config = SimpleNamespace(input_features=dict.fromkeys(names, "state"))
    return policy


def other_timesteps():
    reference = Constant()
    reference.kernel.timesteps = torch.tensor([0, 1, 5])
    return reference


def changed(**fields):
    reference = Constant()
    vars(reference).update(fields)
    return reference


@pytest.mark.parametrize(
    "reference, message",
    [
        (changed(action_dim=7), "action_dim=7 and .* has 2"),
        (changed(horizon=8), "horizon=8 and .* has 3"),
        (changed(n_action_steps=1), "n_action_steps=1 and .* has 2"),
        (changed(n_obs_steps=2), "n_obs_steps=2 and .* has 1"),
        (other_timesteps(), r"denoising timesteps=\[0, 1, 5\] and .* has \[0, 1, 2\]"),
        (with_inputs(Constant(), "a"), r"input_features=\{'a': 'state'\} and .* has \{'b': 'state'\}"),
        (changed(scale=2.0), r"action normalisation=\[\[0.0, 0.0\], \[2.0, 2.0\]\] and .*\[1.0, 1.0\]"),
    ],
)
def test_references_with_other_features_are_refused(reference, message):
    policy = with_inputs(Constant(), "b")
    fitting = with_inputs(Constant(), "b")
    if not hasattr(reference.module, "config"):
        with_inputs(reference, "b")
    with pytest.raises(
        ValueError, match=f"reference 'folder/x' of regularizer manifold_ensemble has {message}"
    ):
        build(policy, {"fits": fitting, "folder/x": reference})


def test_policies_of_lerobot_are_compared_too():
    build(diffusion(seed=0), {"other weights": diffusion(seed=1)})
    with pytest.raises(
        ValueError, match=r"'cameras' .* has input_features=.*wrist.* has .*environment_state"
    ):
        build(diffusion(ENVIRONMENT_STATE), {"cameras": diffusion(IMAGES, crop_shape=(40, 40))})
    with pytest.raises(ValueError, match=r"'fewer steps' .* has denoising timesteps="):
        build(diffusion(), {"fewer steps": diffusion(num_inference_steps=4)})


def test_references_need_a_loader():
    with pytest.raises(ValueError, match=r"references=\['a'\] of regularizer manifold_ensemble: give `load`"):
        ManifoldEnsembleConfig(references=["a"]).build(Constant(), Constant())


@pytest.mark.parametrize(
    "fields, message",
    [
        ({}, r"references=\[\] of regularizer manifold_ensemble .*choose one or more Hub ids or folders"),
        (
            {"references": ["a"], "weights": [1.0, 2.0]},
            r"weights=\[1.0, 2.0\] .*for each of the 1 references",
        ),
        ({"references": ["a"], "weights": []}, r"weights=\[\] .*for each of the 1 references"),
        ({"references": ["a", "b"], "weights": [2.0, -1.0]}, r"weights=\[2.0, -1.0\] .*a number >= 0"),
        ({"references": ["a", "b"], "weights": [0.0, 0.0]}, r"weights=\[0.0, 0.0\] .*one of them > 0"),
        ({"references": ["a", "b"], "weights": [1.0, math.nan]}, r"weights=\[1.0, nan\] .*a number >= 0"),
        ({"references": ["a", "b"], "weights": [1.0, math.inf]}, r"weights=\[1.0, inf\] .*a number >= 0"),
    ],
)
def test_unusable_options_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        ManifoldEnsembleConfig(**fields)
