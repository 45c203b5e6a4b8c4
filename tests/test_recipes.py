"""What is committed beside the code works: recipes, base policies, and the commands that the texts show."""

import json
import math
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import draccus
import pytest
import torch
import yaml
from tiny import OBSERVATIONS, save_policy

from lerobot_rlft.cli.demos import DemosConfig
from lerobot_rlft.configs.parser import parse_command_line
from lerobot_rlft.configs.train import load_policy_config
from lerobot_rlft.envs.avoiding.demonstrations import write_demonstrations
from lerobot_rlft.policies.loading import load_policy
from lerobot_rlft.training.rounds import Rounds
from lerobot_rlft.training.trainer import Trainer

ROOT = Path(__file__).parents[1]
BASES = ("avoiding_base", "avoiding_flow_base", "grasps_base", "pusht_base")
DPPO = (
    "avoiding_dppo", "avoiding_flow_dppo", "avoiding_flow_guarded", "avoiding_guarded", "grasps_guarded",
    "grasps_kl", "grasps_plain", "mode_loss",
    "pusht_dppo", "quickstart",
)  # fmt: skip
EPISODES = ("avoiding_recap",)
ELSEWHERE = ("structured_exploration",)  # tests/cli/test_explore.py
STOCK = Path(sys.executable).with_name("lerobot-train")


def commands(text: str, program: str) -> list[list[str]]:
    """The arguments of every command line of a program, comment signs and line continuations undone."""
    joined = re.sub(r"\\\n[# ]*", "", text)
    # Two spaces set a remark apart from the command.
    lines = re.findall(rf"\b{program} +(--.*?)(?=  |$)", joined, re.MULTILINE)
    return [shlex.split(re.sub(r"\$\{?\w+\}?", "binary", line.replace("$seed", "7"))) for line in lines]


def shown(program: str) -> list[tuple[str, list[str]]]:
    """Every command line of ours that a user may copy, with the file that shows it."""
    texts = {path.name: path.read_text() for path in (ROOT / "Makefile", *(ROOT / "recipes").glob("*.yaml"))}
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        name = page.relative_to(ROOT).as_posix()
        texts[name] = "".join(re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL))
    return [(name, found) for name in sorted(texts) for found in commands(texts[name], program)]


TRAIN, DEMOS = shown("lerobot-rlft-train"), shown("lerobot-rlft-demos")


@pytest.fixture(autouse=True)
def from_the_root(monkeypatch):
    """The texts and recipes are relative to the repository."""
    monkeypatch.chdir(ROOT)


@pytest.fixture
def read_recipe(read_command, tmp_path):
    def read(name: str, *arguments: str):
        return read_command(
            f"--config_path=recipes/{name}.yaml", f"--output_dir={tmp_path / 'run'}", *arguments
        )

    return read


def test_every_recipe_is_tested():
    assert {path.stem for path in Path("recipes").glob("*.yaml")} == {*BASES, *DPPO, *EPISODES, *ELSEWHERE}


@pytest.mark.parametrize("name", DPPO)
def test_a_recipe_fine_tunes_a_committed_base(name, read_recipe, capsys, tmp_path):
    config = read_recipe(name, "--dry_run=true")
    written = yaml.safe_load(Path(f"recipes/{name}.yaml").read_text())["policy"]
    assert written["path"] in [f"recipes/{base}" for base in BASES]
    assert config.policy.pretrained_path == Path(written["path"])
    trainer = Trainer(config)
    of_base = json.loads(Path(written["path"], "config.json").read_text())
    steps = written.get("num_inference_steps", of_base["num_inference_steps"])
    assert trainer.policy.kernel.num_steps == steps
    decisions = config.rollout.n_episodes * -(-trainer.runner.max_steps // trainer.policy.n_action_steps)
    assert decisions * steps > config.algorithm.minibatch_size
    trainer.dry_run()
    assert "nothing was written" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", EPISODES)
def test_a_recipe_refits_a_committed_base(name, read_recipe, capsys, tmp_path):
    write_demonstrations(tmp_path / "data", "local/avoiding", episodes_per_mode=1, progress=False)
    config = read_recipe(name, "--dry_run=true", f"--dataset.root={tmp_path / 'data'}")
    assert str(config.policy.pretrained_path) in [f"recipes/{base}" for base in BASES]
    Rounds(config).dry_run()
    said = capsys.readouterr().out
    assert "demonstrations: 24 episodes, 24 of them successes" in said and "nothing was written" in said
    assert not (tmp_path / "run").exists()


@pytest.fixture
def read_demos(monkeypatch):
    def read(arguments):
        monkeypatch.setattr("sys.argv", ["lerobot-rlft-demos", *arguments])
        config = parse_command_line(DemosConfig)
        config.resolve()
        return config

    return read


def test_the_quickstart_is_the_measured_recipe_shortened(read_recipe):
    short, measured = read_recipe("quickstart").to_dict(), read_recipe("avoiding_guarded").to_dict()
    for part, field in (("algorithm.commands", "steps"), ("rollout", "n_reference")):
        of_short, of_measured = short, measured
        for name in part.split("."):
            of_short, of_measured = of_short[name], of_measured[name]
        assert of_short[field] < of_measured[field]
        of_short[field] = of_measured[field]
    for part in ("algorithm", "policy", "env", "guard", "rollout", "seed"):
        assert short[part] == measured[part]
    assert short["iterations"] < measured["iterations"]


@pytest.mark.parametrize("name", BASES)
def test_a_committed_base_is_what_its_recipe_makes(name, read_recipe, read_demos):
    config = read_recipe(name)
    recipe, committed = (
        draccus.encode(config.policy), json.loads(Path(f"recipes/{name}/config.json").read_text())
    )  # fmt: skip
    from_the_dataset = ("input_features", "output_features")
    if config.policy.type == "diffusion":  # its sampler takes all steps, and the checkpoint says how many
        assert committed.pop("num_inference_steps") == recipe.pop("num_train_timesteps")
        assert recipe.pop("num_inference_steps") is None
        del committed["num_train_timesteps"]
    for field in from_the_dataset:
        assert committed.pop(field) and not recipe.pop(field)
    assert {k: committed.get(k) for k in recipe} == recipe
    # Its header shows how to write the dataset that it reads.
    ((_, arguments),) = [found for found in DEMOS if found[0] == f"{name}.yaml"]
    args = read_demos(arguments)
    assert (args.env.type, args.root) == (config.env.type, config.dataset.root)
    assert config.dataset.repo_id == f"local/{args.env.type}"


@pytest.mark.parametrize("name", BASES)
def test_a_committed_base_is_small_and_tells_nothing_of_a_machine(name):
    files = list(Path("recipes", name).rglob("*"))
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    assert sum(path.stat().st_size for path in files) <= 3_000_000
    for path in files:
        text = path.read_bytes()
        if path.suffix == ".safetensors":  # 8 bytes give the size of the JSON header
            text = text[8 : 8 + int.from_bytes(text[:8], "little")]
        assert not re.search(rb"(?<![\w.])[/~]\w|\w:\\", text), path


def test_the_texts_show_commands():
    assert {"Makefile", "README.md", "avoiding_base.yaml", "avoiding_dppo.yaml"} <= {
        name for name, _ in TRAIN
    }
    assert {"README.md", *(f"{name}.yaml" for name in BASES)} <= {name for name, _ in DEMOS}


@pytest.mark.parametrize("file, arguments", TRAIN)
def test_a_training_command_of_the_texts(file, arguments, read_command, tmp_path):
    base = save_policy(tmp_path / "base")
    given = [re.sub(r"=user/\w+$", f"={base}", word) for word in arguments]
    # The folder that it names may be there from an earlier run.
    config = read_command(*given, "--dry_run=true")
    for word in arguments:
        if word.startswith("--output_dir="):
            assert config.output_dir == Path(word.partition("=")[2])


@pytest.mark.parametrize("file, arguments", DEMOS)
def test_a_demonstrations_command_of_the_texts(file, arguments, read_demos):
    args = read_demos(arguments)
    assert f"--root={args.root}" in arguments and args.source.is_file()


@pytest.mark.slow
@pytest.mark.parametrize("name, most", [("avoiding_base", 0.01), ("avoiding_flow_base", math.inf)])
def test_stock_lerobot_makes_a_base(name, most, dppo_config, capsys, tmp_path):
    """The command that the page on base policies shows, for two steps."""
    write_demonstrations(tmp_path / "data", "local/avoiding", episodes_per_mode=1, progress=False)
    section = Path("docs/results/bases.md").read_text().partition(f"## `recipes/{name}.yaml`")[2]
    (arguments,) = commands(section.partition("\n## ")[0], "lerobot-train")
    changed = {
        "--dataset.root": tmp_path / "data",
        "--output_dir": tmp_path / "stock",
        "--steps": 2,
        "--batch_size": 8,
    }
    names = [word.partition("=")[0] for word in arguments]
    assert set(changed) <= set(names)
    arguments = [f"{n}={changed[n]}" if n in changed else w for n, w in zip(names, arguments, strict=True)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HOME": str(tmp_path)}
    stock = subprocess.run(
        [STOCK, *arguments], capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=300
    )
    assert stock.returncode == 0, stock.stderr

    base = tmp_path / "stock/checkpoints/last/pretrained_model"
    policy = load_policy(load_policy_config(str(base), []), base)
    assert policy.kernel.num_steps == 10
    obs = {key: torch.zeros(3, policy.n_obs_steps, size) for key, size in OBSERVATIONS.items()}
    actions = policy.to_action(policy.deployed_chunk(policy.encode(obs)))
    # The sampler of diffusion clips to the range of the demonstrations' actions, at most .01 m a step.
    assert actions.shape == (3, 8, 2) and 0 < actions.abs().max() <= most + 1e-6
    Trainer(dppo_config(policy=base, pretrained_path=base, dry_run=True)).dry_run()
    assert "nothing was written" in capsys.readouterr().out
