import draccus
import pytest
import torch
from constant import Constant, make_step, rollout

from lerobot_rlft.regularizers.base import RegularizerConfig
from lerobot_rlft.regularizers.entropy import EntropyConfig
from lerobot_rlft.regularizers.kl_base import KLBaseConfig
from lerobot_rlft.regularizers.manifold_ensemble import ManifoldEnsembleConfig
from lerobot_rlft.regularizers.rehearsal import RehearsalConfig


def test_all_are_registered_under_their_names():
    names = {"kl_base", "rehearsal", "entropy", "manifold_ensemble"}
    assert names <= set(RegularizerConfig.get_known_choices())
    config = draccus.decode(RegularizerConfig, {"type": "kl_base", "coef": 0.1, "weighting": "early"})
    assert config == KLBaseConfig(coef=0.1, weighting="early") and config.type == "kl_base"


def test_a_negative_weight_is_refused():
    for coef in (-0.5, float("nan")):
        with pytest.raises(ValueError, match=rf"coef={coef} of regularizer kl_base .*choose a number >= 0"):
            KLBaseConfig(coef=coef)


def test_the_weight_starts_at_the_configured_one():
    assert KLBaseConfig(coef=0.25).build(Constant(), Constant()).coef == 0.25


def test_the_base_is_evaluated_once_for_a_minibatch_whatever_is_combined():
    policy, base, reference = Constant(1.0), Constant(), Constant()
    configs = [
        KLBaseConfig(),
        KLBaseConfig(weighting="early"),
        RehearsalConfig(),
        ManifoldEnsembleConfig(references=["a"]),
        EntropyConfig(),
    ]
    regularizers = [config.build(policy, base, lambda name: reference) for config in configs]
    for regularizer in regularizers:
        regularizer.begin(rollout([2, 1], [True, False], [0, 1]), None)
    step = make_step(policy, base)
    losses = [regularizer.loss(step) for regularizer in regularizers]
    assert [loss is None for loss in losses] == [False, False, False, False, True]
    assert (base.predicted, reference.predicted) == (1, 1)
    assert policy.predicted == 2  # the step itself, and rehearsal


def test_the_base_has_features_and_a_kernel_of_its_own():
    policy, base = Constant(encoder=True), Constant(encoder=True)
    with torch.no_grad():
        base.module["unit"].mul_(3)
    step = make_step(policy, base, state=2.0)
    assert step.prediction[0, 0, 0].item() == 2 and step.base_prediction[0, 0, 0].item() == 6
    assert not step.base_prediction.requires_grad
