"""What a user may write on the command line and in YAML, and what a mistake is answered with."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.envs.configs import PushtEnv
from lerobot.policies import make_pre_post_processors
from lerobot.policies.act.configuration_act import ACTConfig
from lerobot.policies.act.modeling_act import ACTPolicy
from safetensors.torch import load_file, save_file
from tiny import TINY, save_policy

from lerobot_rlft.algorithms.dppo import DPPOConfig
from lerobot_rlft.algorithms.nft import NFTConfig
from lerobot_rlft.configs.check import suggest
from lerobot_rlft.configs.train import DatasetConfig, EvalConfig, RolloutConfig, load_policy_config
from lerobot_rlft.diversity.atlas import AtlasConfig
from lerobot_rlft.diversity.guard import GuardConfig
from lerobot_rlft.envs.avoiding.configuration_avoiding import AvoidingEnvConfig
from lerobot_rlft.regularizers.kl_base import KLBaseConfig
from lerobot_rlft.regularizers.mode_balance import BalanceConfig
from lerobot_rlft.regularizers.mode_commands import CommandConfig
from lerobot_rlft.regularizers.rehearsal import RehearsalConfig
from lerobot_rlft.rollout.environments import check_features
from lerobot_rlft.rollout.runner import EpisodeRunner
from lerobot_rlft.training.checkpoint import write_config
from lerobot_rlft.training.trainer import Trainer
from lerobot_rlft.utils.errors import UserError
from lerobot_rlft.utils.recipes import folder
from lerobot_rlft.utils.run_folder import CONFIG_NAME

DPPO = ("--algorithm.type=dppo", "--env.type=avoiding")


def test_a_command_line(base_policy, read_command, tmp_path, monkeypatch):
    monkeypatch.chdir(base_policy.parent)
    config = read_command(
        *DPPO, "--policy.path=policy", "--policy.num_inference_steps=2", "--rollout.n_envs", "25",
        "--algorithm.critic_hidden_dims=[4,4]", f"--output_dir={tmp_path / 'run'}",
    )  # fmt: skip
    assert config.policy.num_inference_steps == 2 and config.policy.horizon == TINY["horizon"]
    assert config.policy.pretrained_path == Path("policy")
    assert config.rollout.n_envs == 25 and list(config.algorithm.critic_hidden_dims) == [4, 4]
    assert config.job_name == "avoiding_diffusion_dppo"


def test_the_path_of_a_link_is_that_of_its_target(base_policy, read_command, tmp_path, monkeypatch):
    """`checkpoints/last` moves on but a run's base must not; a relative path tells nothing of the machine."""
    (tmp_path / "last").symlink_to(base_policy)
    monkeypatch.chdir(base_policy.parent)
    for given, kept in (
        (tmp_path / "last", base_policy.resolve()),
        (os.path.relpath(tmp_path / "last"), Path("policy")),
    ):
        config = read_command(*DPPO, f"--policy.path={given}", f"--output_dir={tmp_path / 'run'}")
        assert config.policy.pretrained_path == kept


def test_yaml_with_a_policy_path_and_overrides(base_policy, read_command, tmp_path):
    recipe = {
        "algorithm": {"type": "dppo", "gamma": 0.9},
        "policy": {"path": str(base_policy), "num_inference_steps": 2},
        "env": {"type": "avoiding"},
        "output_dir": str(tmp_path / "run"),
        "iterations": 7,
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    config = read_command(f"--config_path={tmp_path / 'recipe.yaml'}", "--iterations=8")
    assert config.policy.num_inference_steps == 2 and config.policy.pretrained_path == base_policy.resolve()
    assert (config.algorithm.gamma, config.iterations) == (0.9, 8)


@pytest.mark.parametrize(
    "name, given",
    [("recipe.yaml", ["--policy.n_action_steps=2"]), ("recipe.json", ["--policy.n_action_steps", "2"])],
)
def test_an_override_of_a_policy_whose_path_is_in_a_file(name, given, base_policy, read_command, tmp_path):
    recipe = {
        "algorithm": {"type": "dppo"},
        "policy": {"path": str(base_policy), "n_action_steps": 4, "num_inference_steps": 3},
        "env": {"type": "avoiding"},
    }
    file = tmp_path / name
    file.write_text(json.dumps(recipe))  # is YAML, too
    policy = read_command(f"--config_path={file}", *given, f"--output_dir={tmp_path / 'run'}").policy
    assert (policy.pretrained_path, policy.n_action_steps, policy.num_inference_steps) == (base_policy, 2, 3)


def test_a_plugin_is_loaded_before_types_are_looked_up(base_policy, read_command, tmp_path, monkeypatch):
    (tmp_path / "some_plugin").mkdir()
    (tmp_path / "some_plugin/__init__.py").write_text(
        "from dataclasses import dataclass\n"
        "from lerobot.envs import EnvConfig\n"
        "from lerobot_rlft.envs.avoiding.configuration_avoiding import AvoidingEnvConfig\n"
        "@EnvConfig.register_subclass('plugged')\n"
        "@dataclass\n"
        "class Plugged(AvoidingEnvConfig): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = read_command(
        "--env.discover_packages_path=some_plugin", "--env.type=plugged", "--algorithm.type=dppo",
        f"--policy.path={base_policy}", f"--output_dir={tmp_path / 'run'}",
    )  # fmt: skip
    assert config.env.type == "plugged"
    with pytest.raises(UserError, match="'no_such_plugin'"):
        read_command("--env.discover_packages_path=no_such_plugin", *DPPO)


@pytest.mark.parametrize(
    "env", [AvoidingEnvConfig(lag=0.1), PushtEnv(obs_type="environment_state_agent_pos")]
)
def test_a_written_config_is_read_back_equal(env, dppo_config, read_command, tmp_path):
    config = dppo_config(env=env)
    config.dry_run, config.resume = True, Path("somewhere")
    write_config(config, tmp_path / CONFIG_NAME)
    # A new run gets a folder of its own.
    read = read_command(f"--config_path={tmp_path / CONFIG_NAME}", f"--output_dir={config.output_dir}")
    config.dry_run, config.resume = False, None
    assert read.to_dict() == config.to_dict()


@pytest.mark.parametrize(
    "mistake, answer",
    [
        (["--algorithm.gama=0.9"], r"--algorithm.gama is unknown, did you mean --algorithm.gamma\?"),
        (["--polcy.path=x"], r"--polcy.path is unknown, did you mean --policy.path\?"),
        (["--env.discover_package_path=x"],
         r"--env.discover_package_path is unknown, did you mean --env.discover_packages_path\?"),
        (["--rollout=4"], r"--rollout=4 is a group of options: write --rollout.NAME=VALUE"),
        (["--seed"], r"--seed has no value: write --seed=VALUE"),
        (["--atlas.dims={a"], r"--atlas.dims=\{a is no YAML"),
        (["--n_envs=4"], r"--n_envs is unknown, did you mean --rollout.n_envs\?"),
        (["--rollout.qqqqqqqqqqqqqqqqq=4"],
         r"qqq is unknown, known: --rollout.n_envs, --rollout.n_episodes, "),
        (["--policy.horison=4"], r"--policy.horison is unknown, did you mean --policy.horizon\?"),
        (["--policy.mode=3"], r"--policy.mode is unknown, did you mean --policy.\w+|--help lists"),
        (["--policy.horizon=x"], r"`policy.horizon`: Couldn't parse 'x' into an int"),
        (["iterations=4"], r"'iterations=4' is no option: write --name=value"),
        # It exists, for another algorithm.
        (["--algorithm.batch_size=4"], r"algorithm.batch_size is unknown to DPPOConfig, "),
        (["--algorithm.type=dpo"], r"--algorithm.type=dpo is unknown, did you mean dppo\?"),
        (["--env.type=pushed"], r"--env.type=pushed is unknown, did you mean pusht\?; .*discover_packages"),
        (["--policy.type=act"], r"Cannot specify both --policy.path and --policy.type"),
        (["--iterations=many"], r"`iterations`: Couldn't parse 'many' into an int"),
        (["--iterations=0"], "iterations=0 must be at least 1"),
        (["--rollout.n_envs=8"], "n_episodes=100 must be a multiple of rollout.n_envs=8, for example 96"),
        (["--algorithm.eta=0"], r"algorithm.eta=0.* out of range, choose a number in \(0, 1\]"),
        (["--env.reward=money"], "env.reward='money' is unknown, choose one of binary"),
        (["--wandb.mode=ofline"], r"wandb.mode=ofline is unknown, did you mean offline\?"),
        (["--config_path=nowhere.yaml"], r"nowhere.yaml"),
        (["--guard.enabled=true"], r"--guard.enabled is unknown, did you mean --guard.enable\?"),
        (["--guard.floor=0"], r"guard.floor=0.0 is out of range, choose a ratio in \(0, 1\]"),
        (["--guard.metric=modes"], "guard.metric='modes' is unknown, choose entropy, effective_modes, smal"),
        (["--guard.enable=true", "--eval_freq=0"], "guard.enable=true .*needs evaluations.*--eval_freq=1"),
        (["--algorithm.balance.tau=-1"], "algorithm.balance.tau=-1.0 must not be negative"),
        (["--algorithm.balance.target=all"], "algorithm.balance.target='all' is unknown, choose attempted, "),
        (["--algorithm.objective=nft"], "algorithm.objective='nft' is unknown, choose chain or forward"),
        (["--algorithm.min_sampling_std=-1"],
         "algorithm.min_sampling_std=-1.0 is out of range, choose a number >= 0"),
        (["--algorithm.noise_level=2"],
         "algorithm.noise_level=2.0 is out of range, choose 0 to 1.5, for example 0.5; with more the SDE"),
        (["--algorithm.commands.enable=true", "--peft.r=4"],
         r"algorithm.commands.enable=true trains an embedding .* leave --peft out"),
        (["--algorithm.objective=chain", "--guard.enable=true", "--algorithm.eta=0"],
         r"algorithm.eta=0.0 is out of range, choose a number in \(0, 1\]; without noise"),
        (["--algorithm.regularizers=[{type: kl_bas}]"],
         r"algorithm.regularizers.0.type=kl_bas is unknown, did you mean kl_base\?"),
        (["--algorithm.regularizers=[{type: kl_base}, {type: xxx}]"],
         r"algorithm.regularizers.1.type=xxx is unknown, known: entropy, kl_base, manifold_ensemble, "),
        (["--algorithm.regularizers=[{type: kl_base, plase: loss}]"],
         r"algorithm.regularizers.0.plase is unknown to KLBaseConfig, did you mean place\?"),
        (["--algorithm.regularizers=[{type: kl_base, coef: x}]"],
         r"`algorithm.regularizers.0.coef`: Couldn't parse 'x' into a float"),
        (["--algorithm.regularizers=[{type: rehearsal, source: old}]"],
         "source='old' of regularizer rehearsal is unusable, choose base, recent or demonstrations"),
        (["--algorithm.regularizers=[{coef: 1}]"],
         r"algorithm.regularizers: \{'coef': 1\} lacks its type, known: entropy, kl_base, "),
        (["--algorithm.regularizers=[kl_base]"], r"'kl_base' has no options of its own: write \{type: "),
        (["--algorithm.regularizers={type: kl_base}"],
         r"algorithm.regularizers=\{'type': 'kl_base'\} is no list: write \[...\]"),
    ],
)  # fmt: skip
def test_a_mistake_on_the_command_line(mistake, answer, base_policy, read_command, tmp_path):
    arguments = (*DPPO, f"--policy.path={base_policy}", f"--output_dir={tmp_path / 'run'}", *mistake)
    if mistake[0].startswith("--algorithm.type"):
        arguments = arguments[1:]
    if mistake[0].startswith("--env.type"):
        arguments = (arguments[0], *arguments[2:])
    with pytest.raises(UserError, match=answer):
        read_command(*arguments)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "make, fields, answer",
    [
        (RolloutConfig, {"n_envs": 0}, "rollout.n_envs=0 must be at least 1"),
        (RolloutConfig, {"n_envs": 10, "n_episodes": 25}, "must be a multiple .* for example 20"),
        (RolloutConfig, {"n_envs": 10, "n_episodes": 5}, "must be a multiple .* for example 10"),
        (RolloutConfig, {"reward": "sum"}, "rollout.reward='sum' is unknown, choose env, success or best"),
        (RolloutConfig, {"time_limit": "end"}, "rollout.time_limit='end' is unknown, choose bootstrap or"),
        (RolloutConfig, {"success_bonus": -1}, "rollout.success_bonus=-1 must not be negative"),
        (AtlasConfig, {"dims": [-1]}, r"atlas.dims=\[-1\] must hold numbers from 0 up"),
        (AtlasConfig, {"min_cluster_size": 1}, "atlas.min_cluster_size=1 must be at least 2"),
        (AtlasConfig, {"key": "action"}, "atlas.key='action' is no path"),
        (EvalConfig, {"n_episodes": 0}, "eval.n_episodes=0 must be at least 1"),
        (EvalConfig, {"n_episodes_during": 0}, "eval.n_episodes_during=0 must be at least 1"),
        (EvalConfig, {"batch_size": 0}, "eval.batch_size=0 must be at least 1"),
        (EvalConfig, {"n_videos": -1}, "eval.n_videos=-1 must not be negative"),
        (DPPOConfig, {"eta": 1.5}, "algorithm.eta=1.5 is out of range, choose a number"),
        (DPPOConfig, {"actor_lr": 0}, "algorithm.actor_lr=0 is out of range, choose a number > 0"),
        (DPPOConfig, {"clip_range": 1}, "algorithm.clip_range=1 is out of range, choose a number in"),
        (DPPOConfig, {"gamma": 1.1}, "algorithm.gamma=1.1 is out of range, choose 0 to 1"),
        (DPPOConfig, {"finetuned_steps": 0}, "algorithm.finetuned_steps=0 is out of range, choose 1 to"),
        (
            DPPOConfig,
            {"critic_features": "mine"},
            "critic_features='mine' is unknown, choose shared, own or",
        ),
    ],
)
def test_a_value_out_of_range(make, fields, answer):
    with pytest.raises(ValueError, match=answer):
        make(**fields)


def test_a_guard_of_a_cloned_policy(bc_config):
    with pytest.raises(UserError, match=r"guard.enable=true .*algorithm.type=bc is not: choose .*type=dppo"):
        bc_config(guard=GuardConfig(enable=True))


def test_a_guard_fills_in_the_recommended_combination(dppo_config):
    def made(guard, kind, **fields):
        a = dppo_config(guard=GuardConfig(enable=guard), algorithm=kind(**fields)).algorithm
        return a.balance, a.commands.enable

    recommended, off = BalanceConfig(center=True, tau=0.5), CommandConfig(enable=False)
    assert made(False, DPPOConfig) == made(False, NFTConfig) == (BalanceConfig(), False)
    assert made(True, NFTConfig) == (BalanceConfig(), True)
    assert made(True, DPPOConfig) == (recommended, False)  # commands and the chain do not go together
    # What was chosen stays.
    assert made(True, NFTConfig, commands=off) == (recommended, False)
    assert made(True, NFTConfig, balance=BalanceConfig(tau=0.1)) == (BalanceConfig(tau=0.1), False)


def test_regularizers_are_written_and_read_back(dppo_config, read_command, tmp_path):
    regularizers = [KLBaseConfig(coef=0.1, place="return"), RehearsalConfig(source="recent")]
    config = dppo_config(algorithm=DPPOConfig(regularizers=regularizers), guard=GuardConfig(enable=True))
    write_config(config, tmp_path / CONFIG_NAME)
    read = read_command(f"--config_path={tmp_path / CONFIG_NAME}", f"--output_dir={config.output_dir}")
    assert read.algorithm == config.algorithm and read.algorithm.regularizers == regularizers
    assert read.guard == config.guard


def test_frequencies_are_not_negative(dppo_config):
    for name in ("eval_freq", "save_freq", "log_freq", "seed"):
        with pytest.raises(UserError, match=f"{name}=-1 must not be negative"):
            dppo_config(**{name: -1})


@pytest.mark.parametrize(
    "mistake, answer",
    [
        ({"iteration": 4}, r"iteration is unknown to TrainConfig, did you mean iterations\?"),
        ({"rollout": {"n_env": 4}}, r"rollout.n_env is unknown to RolloutConfig, did you mean n_envs\?"),
        ({"algorithm": {"type": "dppo", "gama": 1}}, r"algorithm.gama is unknown .*did you mean gamma\?"),
        ({"algorithm": {"type": "dpo"}}, r"algorithm.type=dpo is unknown, did you mean dppo\?"),
        ({"policy": {"path": "", "horison": 4}},
         r"--policy.horison is unknown, did you mean --policy.horizon\?"),
        ({"rollout": {"n_envs": 0}}, "rollout.n_envs=0 must be at least 1"),
        ({"algorithm": {"type": "dppo", "regularizers": [{"type": "kl_bas"}]}},
         r"algorithm.regularizers.0.type=kl_bas is unknown, did you mean kl_base\?"),
        ({"algorithm": {"type": "dppo", "regularizers": [{"type": "entropy", "onn": "chunks"}]}},
         r"algorithm.regularizers.0.onn is unknown to EntropyConfig, did you mean on\?"),
        ({"algorithm": {"type": "dppo", "balance": {"centre": True}}},
         r"algorithm.balance.centre is unknown to BalanceConfig, did you mean center\?"),
        ({"resume": "runs/x"}, "belongs on the command line: --resume=runs/x"),
    ],
)  # fmt: skip
def test_a_mistake_in_yaml(mistake, answer, base_policy, read_command, tmp_path):
    recipe = {
        "algorithm": {"type": "dppo"},
        "policy": {"path": ""},
        "env": {"type": "avoiding"},
        "output_dir": str(tmp_path / "run"),
    } | mistake
    recipe["policy"]["path"] = str(base_policy)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    with pytest.raises(UserError, match=answer):
        read_command(f"--config_path={tmp_path / 'recipe.yaml'}")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "content, answer",
    [
        (b"algorithm: {type: dppo", "is no yaml: .*expected"),
        (b"", "is empty: give options, one `name: value` a line"),
        (b"- algorithm", "holds a list: give options"),
        (b"seed: 1 # \xff", "is no text in UTF-8"),
        (None, "is a folder: give a YAML file, or a recipe, known: .*quickstart"),
    ],
)
def test_a_file_of_options_that_is_none(content, answer, read_command, tmp_path):
    file = tmp_path / "recipe.yaml"
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    with pytest.raises(UserError, match=rf"^--config_path={file} {answer}"):
        read_command(f"--config_path={file}")


@pytest.mark.parametrize("name", ["quickstart", "quickstart.yaml", "recipes/quickstart.yaml"])
def test_a_recipe_and_its_base_are_found_from_anywhere(name, read_command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = read_command(f"--config_path={name}", "--output_dir=run")
    assert config.policy.pretrained_path == folder() / "avoiding_base" and config.iterations == 16
    # What lies here has precedence.
    here = tmp_path / "recipes/avoiding_base"
    shutil.copytree(folder() / "avoiding_base", here)
    (tmp_path / "quickstart.yaml").write_text((folder() / "quickstart.yaml").read_text())
    config = read_command("--config_path=quickstart.yaml", "--output_dir=run")
    assert config.policy.pretrained_path == Path("recipes/avoiding_base")


def test_a_recipe_that_is_not_there(read_command):
    with pytest.raises(UserError, match=r"no recipe of this package: .* did you mean quickstart\?"):
        read_command("--config_path=quikstart")


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_no_library_takes(seed, dppo_config):
    with pytest.raises(UserError, match=rf"^seed={seed} .*: choose 0 to 4294967295"):
        dppo_config(seed=seed)
    with pytest.raises(UserError, match=rf"^eval.seed={seed} "):
        EvalConfig(seed=seed)


@pytest.mark.parametrize(
    "arguments, answer",
    [
        (DPPO, "no policy: give --policy.path=HUB_ID_OR_FOLDER"),
        ((*DPPO, "--policy.horizon=8"), r"--policy.type is missing, known: diffusion, .*multi_task_dit, "),
        ((DPPO[0], "--env.lag=0.1"), r"--env.type is missing, known: aloha, avoiding, "),
        (
            (*DPPO, "--policy.type=diffusion", "--policy.device=cpu"),
            r"dppo improves a pretrained policy: give --policy.path",
        ),
        (
            (DPPO[0], "--policy.path=BASE"),
            r"dppo needs an environment: give --env.type=..., one of .*avoiding",
        ),
        (
            ("--algorithm.type=bc", "--policy.type=diffusion", "--policy.device=cpu"),
            "bc learns from a dataset: give --dataset.repo_id",
        ),
        (DPPO[1:], r"--algorithm.type is missing, known: awr, bc, dppo, filtered_bc, nft, recap"),
    ],
)
def test_what_is_missing(arguments, answer, base_policy, read_command):
    with pytest.raises(UserError, match=answer):
        read_command(*(word.replace("BASE", str(base_policy)) for word in arguments))


def test_an_output_folder_that_exists(dppo_config, tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(UserError, match="choose another folder, or delete it: it holds no checkpoint"):
        dppo_config()
    (tmp_path / "run/checkpoints").mkdir()
    with pytest.raises(UserError, match=f"choose another folder, or continue .* --resume={tmp_path / 'run'}"):
        dppo_config()
    assert dppo_config(dry_run=True).output_dir == tmp_path / "run"


def test_suggest():
    assert suggest("gama", ["gamma", "eta"]) == "did you mean gamma?"
    assert suggest("x", ["gamma", "eta"]) == "known: eta, gamma"
    assert suggest("x", [f"name{i}" for i in range(99)]) == "--help lists what is known"


@pytest.fixture
def copy_of_base(base_policy, tmp_path) -> Path:
    return shutil.copytree(base_policy, tmp_path / "copy")


def without_key(file: Path) -> None:
    tensors = load_file(file)
    tensors.pop(sorted(tensors)[0])
    save_file(tensors, file)


def rewrite(file: Path, **changes) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    "damage, answer",
    [
        (lambda f: shutil.rmtree(f), r"cannot be read|lacks config.json, model.safetensors"),
        (lambda f: (f / "config.json").unlink(), "lacks config.json: give the folder of one"),
        (lambda f: (f / "model.safetensors").unlink(), "lacks model.safetensors"),
        (lambda f: (f / "policy_postprocessor.json").unlink(), "lacks policy_postprocessor.json"),
        (lambda f: (f / "config.json").write_text('{"type": '),
         "corrupt config.json .*download or save it again"),
        (lambda f: (f / "config.json").write_text("{}"), "corrupt config.json"),
        (lambda f: rewrite(f / "config.json", type="difusion"), "type 'difusion', did you mean diffusion"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\0" * 9),
         "not a whole checkpoint .*SafetensorError"),
        (lambda f: without_key(f / "model.safetensors"), "not a whole checkpoint .*its weights lack "),
        (lambda f: rewrite(f / "config.json", down_dims=[16]),
         r"not a whole checkpoint that fits its config.json .*, by its config \("),
        (lambda f: (f / "policy_preprocessor.json").write_text("{}"), "processor|not a whole checkpoint"),
        (lambda f: next(f.glob("*normalizer*.safetensors")).unlink(), "not a whole checkpoint"),
        (lambda f: rewrite(f / "config.json", n_action_steps=4),
         r"n_action_steps=4 does not fit policy.horizon=4 with policy.n_obs_steps=2: choose 1 to 3"),
    ],
)  # fmt: skip
def test_a_base_that_is_no_whole_checkpoint(damage, answer, copy_of_base, dppo_config, tmp_path):
    damage(copy_of_base)
    with pytest.raises(UserError, match=answer):
        Trainer(dppo_config(policy=copy_of_base, pretrained_path=copy_of_base))
    assert not (tmp_path / "run").exists()


def test_a_policy_without_a_denoising_chain(tmp_path, base_policy, dppo_config):
    shape = load_policy_config(str(base_policy), [])
    config = ACTConfig(
        input_features=shape.input_features, output_features=shape.output_features, device="cpu",
        dim_model=8, n_heads=1, dim_feedforward=8, n_encoder_layers=1, use_vae=False,
        chunk_size=4, n_action_steps=4,
    )  # fmt: skip
    for part in (ACTPolicy(config), *make_pre_post_processors(config)):
        part.save_pretrained(tmp_path / "act")
    with pytest.raises(UserError, match=r"'act' has no denoising chain .*Known: diffusion"):
        Trainer(dppo_config(policy=tmp_path / "act", pretrained_path=tmp_path / "act"))


@pytest.mark.parametrize(
    "sizes, env, answer",
    [
        ({"observation.state": 2, "observation.environment_state": 9}, AvoidingEnvConfig(),
         r"observation.state is \(4,\) instead of \(2,\).*offers .*observation.environment_state \(9,\)"),
        ({"observation.state": 2, "observation.environment_state": 16}, PushtEnv(),
         r"observation.environment_state is missing instead of \(16,\).*observation.image \(3, 96, 96\)"),
        ({"observation.state": 2, "observation.environment_state": 16}, PushtEnv(obs_type="pixels"),
         "bare arrays"),
        ({"observation.state": 2, "observation.environment_state": 16}, PushtEnv(task="Nothing-v0"),
         "cannot be built"),
    ],
)  # fmt: skip
def test_a_policy_of_another_environment(sizes, env, answer, dppo_config, tmp_path):
    base = save_policy(tmp_path / "base", sizes)
    with pytest.raises(UserError, match=answer):
        Trainer(dppo_config(policy=base, pretrained_path=base, env=env))
    assert not (tmp_path / "run").exists()


def test_more_finetuned_steps_than_the_chain_has(dppo_config, tmp_path):
    config = dppo_config()
    config.algorithm.finetuned_steps = 4
    with pytest.raises(UserError, match=r"algorithm.finetuned_steps=4 is out of range, choose 1 to 3"):
        Trainer(config)
    assert not (tmp_path / "run").exists()


def test_features_are_compared_with_the_environment_itself(dppo_config):
    """LeRobot's config of pusht declares images of 384 pixels, the environment gives 96."""
    config = dppo_config(env=PushtEnv())
    vector = config.env.create_envs(1)["pusht"][0]
    policy = SimpleNamespace(
        module=SimpleNamespace(config=config.policy),
        optional_inputs=(),
        preprocessor=SimpleNamespace(steps=()),
    )
    runner = EpisodeRunner(vector, policy, *config.env.get_env_processors())
    config.policy.input_features = {"observation.image": PolicyFeature(FeatureType.VISUAL, (3, 96, 96))}
    check_features(config.env, runner)
    config.policy.output_features = {"action": PolicyFeature(FeatureType.ACTION, (3,))}
    with pytest.raises(UserError, match=r"action is \(2,\) instead of \(3,\)"):
        check_features(config.env, runner)
    vector.close()


@pytest.mark.parametrize(
    "dataset, answer",
    [
        (lambda root: DatasetConfig("local/x", root.parent / "none"), "dataset: .*holds no meta/info.json"),
        (lambda root: DatasetConfig("local/x", root, episodes=[7]), r"dataset: episodes=\[7\] does not fit"),
    ],
)
def test_a_dataset_that_is_not_there(dataset, answer, demos, bc_config, tmp_path):
    with pytest.raises(UserError, match=answer):
        Trainer(bc_config(dataset=dataset(demos)))
    assert not (tmp_path / "run").exists()


def test_wandb_without_login_neither_asks_nor_hangs(dppo_config, tmp_path, monkeypatch):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    config = dppo_config()
    config.wandb.enable = True
    with pytest.raises(
        UserError, match=r"nobody is logged in: run `wandb login`, or use --wandb.mode=offline"
    ):
        Trainer(config)
    assert not (tmp_path / "run").exists()
