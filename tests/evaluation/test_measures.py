"""What goes into diversity.json."""

import math

import numpy as np
import pytest
import torch
from families import diffusion, observations

from lerobot_rlft.diversity.probe import Probe, ProbeSize
from lerobot_rlft.evaluation.measures import (
    Metrics,
    measure_blocked,
    measure_chains,
    measure_modes,
    measure_paths,
    measure_probe,
)
from lerobot_rlft.metrics.keys import KEYS
from lerobot_rlft.rollout.episodes import Episodes

KEY = "observation.state"


def episodes_on(paths: np.ndarray, success=None) -> Episodes:
    column = np.ones(len(paths))
    return Episodes(
        column.astype(bool) if success is None else success, None, column, column, column, {KEY: paths}
    )


def lines(angle: float, count: int, seed: int) -> np.ndarray:
    """(count, 12, 2) noisy straight paths."""
    t = np.linspace(0, 1, 12)[:, None]
    path = t * np.array([math.cos(angle), math.sin(angle)])
    return path + 0.05 * np.random.default_rng(seed).standard_normal((count, 12, 2)) * t


def test_counts_of_modes():
    m = Metrics()
    measure_modes(m, np.array([240, 0, 240]), np.array([160, 160, 160]))
    assert m["entropy_ratio"] == pytest.approx((math.log(2) + 1 / 960) / (math.log(3) + 2 / 960))
    low, high = m["entropy_ratio_ci"]
    assert low < m["entropy_ratio"] < high and m["entropy_ratio_samples"] == 480
    assert m["effective_modes"] == pytest.approx(2 * math.exp(1 / 960))
    assert m["effective_modes_ci"][0] < m["effective_modes"] < m["effective_modes_ci"][1]
    assert m["entropy_plugin"] == pytest.approx(math.log(2) / math.log(3))
    assert m["modes_covered"] == 2 and m["base_modes_covered"] == 3
    assert m["min_retention"] == 0 and m["min_retention_mode"] == 1 and m["min_retention_ci"][1] > 0
    assert m["claim_refusal"] is None and m["notes"] == {}


@pytest.mark.parametrize(
    "tuned, base, reason",
    [
        (np.array([0, 0]), np.array([50, 50]), "tuned policy has 0 successes"),
        (np.array([30, 3]), np.array([30, 10]), "tuned policy has 33 successes, 40 are needed"),
        (np.array([50, 50]), np.array([100, 0]), "Nothing to retain: the base has 1.00 effective modes"),
        (None, None, "no modes are known"),
    ],
)
def test_no_claim_without_the_episodes_for_it(tuned, base, reason):
    m = Metrics()
    measure_modes(m, tuned, base)
    assert reason in m["claim_refusal"]
    if tuned is None or not tuned.any():
        assert m["entropy_ratio"] is None and m["notes"]["entropy_ratio"]


def test_paths_of_successes_with_their_control():
    m = Metrics()
    base = episodes_on(np.concatenate([lines(0.3, 60, 0), lines(1.2, 60, 1)]))
    failures = np.r_[np.ones(120, bool), np.zeros(40, bool)]
    tuned = episodes_on(np.concatenate([lines(0.3, 120, 2), lines(-1, 40, 3)]), failures)
    measure_paths(m, tuned, base, KEY)
    assert m["notes"] == {}
    # Half of the base is not reached any more; another half of the base reaches nearly all.
    assert m["recall"] == pytest.approx(0.5, abs=0.12) and m["recall_control"] > 0.9
    assert m["coverage"] == pytest.approx(0.5, abs=0.12) and m["coverage_samples"] == 60
    assert m["energy_distance"] > 5 * abs(m["energy_distance_control"]) and m["mmd"] > 5 * abs(
        m["mmd_control"]
    )
    assert m["vendi"] < m["base_vendi"] and m["path_entropy"] < m["base_path_entropy"]
    assert m["classifier_accuracy"] > 0.65 > m["classifier_accuracy_control"]


def test_without_successes_or_paths_the_reason_is_written_down():
    paths = lines(0, 5, 0)
    m = Metrics()
    measure_paths(m, episodes_on(paths, np.zeros(5, bool)), episodes_on(paths), KEY)
    assert m["recall"] is None and "0 and 5 successes (tuned and base)" in m["notes"]["recall"]
    m = Metrics()
    measure_paths(m, episodes_on(paths), episodes_on(paths), "observation.environment_state")
    assert m["mmd"] is None and "gives no observation.environment_state" in m["notes"]["mmd"]


def test_chains_of_a_policy_and_itself_do_not_differ():
    from families import experience

    base, tuned = diffusion(), diffusion()
    with torch.no_grad():
        tuned.module.diffusion.unet.final_conv[-1].bias.add_(0.1)
    m = Metrics()
    same = measure_chains(m, base, base, {"reverse": experience(base), "forward": experience(base)}, 0.1)
    assert m["kl_reverse"] == m["kl_forward"] == 0 and same["reverse"].shape == (2, 10)
    maps = measure_chains(m, tuned, base, {"reverse": experience(tuned), "forward": experience(base)}, 0.1)
    assert m["kl_forward"] == pytest.approx(sum(m["kl_forward_by_step"])) and m["kl_forward"] > 0
    assert maps["forward"].mean(0).tolist() == pytest.approx(m["kl_forward_by_step"], rel=1e-4)
    probe = Probe(base, observations(base, 2), 0.1, ProbeSize(chunks=24))
    measure_probe(m, probe, tuned)
    assert m["off_manifold"] != 1 and 1 <= m["manifold_dimension"] <= 15 and m["base_peaks"] >= 1


def test_a_base_that_cannot_be_probed_leaves_the_reason():
    m = Metrics()
    measure_probe(m, None, diffusion(), "the base always acts the same")
    assert m["off_manifold"] is None and m["notes"]["manifold_dimension"] == "the base always acts the same"


def test_success_with_a_way_blocked():
    m = Metrics()
    measure_blocked(m, {"a": 64, "b": 0}, {"a": 32, "b": 32}, 64)
    assert m["success_at"] == {"1": 0.5, "4": 0.5, "16": 0.5}
    assert m["base_success_at"]["1"] == 0.5 and m["base_success_at"]["16"] > 0.99
    low, high = m["success_at_ci"]["16"]
    assert low <= 0.5 < high < 0.9
    assert m["success_at_16_blocked_mean"] == 0.5 and m["success_at_16_blocked_mean_ci"] == [low, high]
    assert m["success_at_16_blocked_worst"] == 0 and m["success_at_16_blocked_worst_way"] == "b"
    # No success of 64: the rate may be up to 1 - .025 ** (1 / 64), Clopper and Pearson.
    assert m["success_at_16_blocked_worst_ci"] == [0, pytest.approx(1 - 0.025 ** (16 / 64), abs=0.05)]
    assert m["base_success_at_16_blocked_worst"] == pytest.approx(m["base_success_at_16_blocked_mean"])
    measure_blocked(m, {}, {}, 64)
    assert m["success_at_16_blocked_mean"] is None and m["base_success_at_16_blocked_worst"] is None
    assert m["success_at"] is None and "cannot block" in m["notes"]["success_at"]


def test_every_key_is_documented():
    m = Metrics()
    measure_modes(m, np.array([240, 0, 240]), np.array([160, 160, 160]))
    measure_paths(m, episodes_on(lines(0, 30, 0)), episodes_on(lines(0, 30, 1)), KEY)
    measure_blocked(m, {"a": 64}, {"a": 32}, 64)
    for key in m:
        name = key.removeprefix("base_")
        for suffix in ("_ci", "_samples", "_control"):
            name = name.removesuffix(suffix)
        assert name in KEYS, key
