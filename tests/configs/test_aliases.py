"""What earlier versions wrote is read in today's words."""

import pytest
import yaml

from lerobot_rlft.algorithms.dppo import DPPOConfig
from lerobot_rlft.algorithms.nft import NFTConfig
from lerobot_rlft.configs.aliases import current
from lerobot_rlft.training.checkpoint import write_config
from lerobot_rlft.utils.run_folder import CONFIG_NAME

# What dppo saved that one of the two algorithms no longer has.
SAVED = {
    "type": "dppo", "proximal_coef": 1.0, "clip_coef": 0.1, "clip_coef_base": 0.1, "clip_coef_rate": 1.0,
    "flow_noise": "sde", "noise_std_range": [0.08, 0.16], "hybrid": False, "normalize_advantage": False,
    "target_kl": 1.0, "actor_lr": 1e-4, "min_sampling_std": 0.0, "eta": 0.5,
}  # fmt: skip
HERE = ("--env.type=avoiding", "--algorithm.type=dppo")


@pytest.fixture
def read(read_command, base_policy, tmp_path):
    return lambda *options: (
        read_command(f"--policy.path={base_policy}", f"--output_dir={tmp_path / 'run'}", *options).algorithm
    )


@pytest.mark.parametrize(
    "options, kind",
    [
        ((), DPPOConfig),
        (("--algorithm.objective=null", "--algorithm.actor_lr=null"), DPPOConfig),
        (("--algorithm.objective=chain", "--guard.enable=true"), DPPOConfig),
        (("--algorithm.objective=forward",), NFTConfig),
        (("--algorithm.objective=forward", "--algorithm.proximal_coef=1", "--algorithm.eta=null"), NFTConfig),
        (("--guard.enable=true",), NFTConfig),
        (("--guard.enable=true", "--algorithm.commands.enable=false", "--algorithm.target_kl=2"), NFTConfig),
        (("--guard.enable=true", "--algorithm.objective=null"), NFTConfig),
    ],
)
def test_the_command_line(options, kind, read, capsys):
    algorithm = read(*HERE, *options)
    assert type(algorithm) is kind and algorithm.actor_lr == kind().actor_lr
    assert algorithm.eta == kind().eta
    assert ("is read as --algorithm.type=nft" in capsys.readouterr().err) == (kind is NFTConfig)


@pytest.mark.parametrize("objective, kind", [("forward", NFTConfig), ("chain", DPPOConfig)])
@pytest.mark.parametrize("guard", [True, False])
def test_a_saved_file(objective, kind, guard, read, tmp_path):
    algorithm = SAVED | {"objective": objective}
    content = {"algorithm": algorithm, "guard": {"enable": guard}, "env": {"type": "avoiding"}}
    (tmp_path / "old.yaml").write_text(yaml.safe_dump(content))
    found = read(f"--config_path={tmp_path / 'old.yaml'}")
    assert type(found) is kind and (found.actor_lr, found.min_sampling_std, found.eta) == (1e-4, 0.0, 0.5)


def test_a_file_of_today_means_the_same_again(read, read_command, base_policy, tmp_path):
    options = f"--policy.path={base_policy}", *HERE, "--algorithm.objective=chain", "--guard.enable=true"
    config = read_command(*options, f"--output_dir={tmp_path / 'run'}")
    write_config(config, tmp_path / CONFIG_NAME)
    assert read(f"--config_path={tmp_path / CONFIG_NAME}") == config.algorithm


def test_the_command_line_decides_over_the_file(read, tmp_path):
    content = {"algorithm": {"type": "dppo", "clip_coef": 0.2}, "env": {"type": "avoiding"}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
    assert (
        type(read(f"--config_path={tmp_path / 'recipe.yaml'}", "--algorithm.objective=forward")) is NFTConfig
    )


def test_noise_that_forward_refused_is_not_dropped():
    assert current({"algorithm": SAVED | {"objective": "forward", "hybrid": True}})["algorithm"]["hybrid"]


def test_other_algorithms_stay_as_they_are():
    for config in ({"algorithm": {"type": "bc", "objective": "forward"}}, {}, {"algorithm": "bc"}):
        assert current(config) is config


def test_a_trust_region_in_means_is_left_out_and_said(read, capsys):
    found = read(*HERE, "--algorithm.clip_coef=0.05", "--algorithm.target_kl=1")
    assert (found.clip_range, found.max_step_kl) == (DPPOConfig().clip_range, DPPOConfig().max_step_kl)
    said = capsys.readouterr().err
    assert "algorithm.clip_coef bounded means" in said and "target_kl" not in said  # that was the default
