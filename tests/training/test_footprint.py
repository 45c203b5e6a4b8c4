"""What a run is said to take in memory, against what it takes."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import vlas
from families import IMAGES, diffusion, vla

from lerobot_rlft.algorithms.dppo import DPPOConfig
from lerobot_rlft.configs.train import TrainConfig
from lerobot_rlft.training.footprint import footprint, plan, without_weights
from lerobot_rlft.utils.errors import UserError

CASES = [("diffusion", 64, 256), ("diffusion", 144, 64), ("pi0", 24, 1024), ("pi0", 50, 512)]


@pytest.fixture(scope="module")
def probed() -> dict[tuple[str, int, int], tuple[int, int]]:
    """What was told and what was measured in each of `CASES` that can be run here."""
    try:
        vlas.needs("transformers", "tokenizers")
        cases = CASES
    except pytest.skip.Exception:
        cases = [case for case in CASES if case[0] == "diffusion"]
    # Freed memory goes back at once, so that the peak is that of tensors in use.
    env = os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    root = Path(__file__).parents[2]
    env["PYTHONPATH"] = os.pathsep.join([str(root), str(root / "tests")])
    command = [sys.executable, root / "tests/memory_probe.py", *(",".join(map(str, case)) for case in cases)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    numbers = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    return dict(zip(cases, numbers, strict=True))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_an_update_takes_what_was_told(case, probed):
    """Activations are most of the first, weights and optimizer of the second; pi0 keeps prefixes, too."""
    if case[0] == "pi0":
        vlas.needs("transformers", "tokenizers")
    told, measured = probed[case]
    assert told > 40 * 2**20
    assert abs(told - measured) <= 0.15 * measured


def test_numbers_that_can_be_counted_by_hand():
    """Float32: 4 bytes a weight, as many for gradients and base, three times as many for AMSGrad."""
    policy = diffusion()
    count = sum(p.numel() for p in policy.module.parameters())
    told = footprint(policy, 8, None)
    assert told.parameters == told.trainable == count
    buffers = sum(b.nbytes for b in policy.module.buffers())
    assert told.weights == 4 * count + buffers
    assert told.base == told.gradients == 4 * count and told.optimizer == 12 * count
    assert told.condition == 4 * policy.feature_dim
    twice = footprint(policy, 16, None)
    assert twice.activations == pytest.approx(2 * told.activations, rel=0.02)


def test_a_frozen_encoder_is_encoded_once_and_shared():
    policy = diffusion(IMAGES)
    encoder = sum(p.numel() for p in policy.encoder.parameters())
    frozen, trained = footprint(policy, 4, False), footprint(policy, 4, True)
    assert trained.trainable - frozen.trainable == encoder
    assert frozen.base == 4 * frozen.trainable
    assert frozen.condition > 0 == trained.condition
    assert frozen.activations < trained.activations


def test_the_meta_device_tells_the_same():
    policy = diffusion(IMAGES)
    there = without_weights(TrainConfig(DPPOConfig(), policy.module.config))
    assert {p.device.type for p in there.module.parameters()} == {"meta"}
    assert footprint(there, 4, True) == footprint(policy, 4, True)


@pytest.mark.parametrize("kind", ["pi0", "pi05"])
def test_the_meta_device_tells_the_same_of_a_language_model(kind):
    policy = vla(kind)
    there = without_weights(TrainConfig(DPPOConfig(), policy.module.config))
    assert footprint(there, 4, False) == footprint(policy, 4, False)
    told, here = footprint(there, 4, True), footprint(policy, 4, True)
    # Devices choose other kernels for the attention of the vision tower.
    assert told.activations == pytest.approx(here.activations, rel=0.15)
    assert replace(told, activations=0) == replace(here, activations=0)


def test_the_plan_compares_what_can_be_trained():
    policy = vla("pi0")
    text = plan(TrainConfig(DPPOConfig(minibatch_size=8), policy.module.config))
    assert re.search(r"full +[\d,]+", text) and re.search(r"expert only +[\d,]+", text)
    assert "LoRA" in text and "nothing was written" in text


FULL_SIZE = """
import sys
sys.argv = ["lerobot-rlft-train", "--algorithm.type=dppo", "--policy.type=pi0", "--policy.device=cpu",
            "--algorithm.minibatch_size=32", "--dry_run=true"]
from lerobot_rlft.cli.train import main
main()
import json, resource
print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
"""


@pytest.mark.slow
def test_pi0_at_its_real_size_needs_no_weights(tmp_path):
    pytest.importorskip("transformers", reason="pi0 needs the extra pi")
    env = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", FULL_SIZE], env=env, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    parameters = int(re.search(r"pi0: ([\d,]+) parameters", done.stdout)[1].replace(",", ""))
    assert 3.2e9 < parameters < 4.2e9  # gemma_2b, gemma_300m, SigLIP
    assert json.loads(done.stdout.splitlines()[-1]) < 4 * 2**20  # KiB: its weights alone are 13 GiB
    assert not list(tmp_path.iterdir())


def test_a_policy_whose_observations_are_unknown(read_command):
    config = read_command("--algorithm.type=dppo", "--policy.type=diffusion", "--dry_run=true")
    with pytest.raises(UserError, match=r"policy.type=diffusion depend on its observations: .*--env.type"):
        plan(config)


def test_the_plan_of_a_policy_for_an_environment(read_command, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    config = read_command(
        "--algorithm.type=dppo", "--policy.type=diffusion", "--env.type=avoiding", "--dry_run=true"
    )
    text = plan(config)
    assert "observation.environment_state (9,)" in text and "full" in text and "expert" not in text
    assert not list(tmp_path.iterdir()) and torch.get_default_dtype() == torch.float32
