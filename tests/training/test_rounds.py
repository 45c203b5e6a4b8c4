"""The chain of stages: what it leaves, how it goes on, and what it says about bad input."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from recorded_data import BOOL, ENVIRONMENT, STATE, record
from runs import Killed, metrics
from safetensors.torch import load_file
from tiny import save_policy

from lerobot_rlft.algorithms.awr import AWRConfig
from lerobot_rlft.algorithms.filtered_bc import FilteredBCConfig
from lerobot_rlft.algorithms.recap import RecapConfig
from lerobot_rlft.configs.train import (
    DatasetConfig,
    EvalConfig,
    RolloutConfig,
    TrainConfig,
    load_policy_config,
)
from lerobot_rlft.critics.configuration import ValueConfig
from lerobot_rlft.datasets.configuration import EpisodeData
from lerobot_rlft.datasets.writer import write_dataset
from lerobot_rlft.diversity.atlas import AtlasConfig
from lerobot_rlft.envs.avoiding.avoiding import AvoidingVectorEnv
from lerobot_rlft.envs.avoiding.configuration_avoiding import AvoidingEnvConfig
from lerobot_rlft.policies.loading import load_policy
from lerobot_rlft.training import checkpoint as checkpoint_module
from lerobot_rlft.training import refit as refit_module
from lerobot_rlft.training.checkpoint import last_checkpoint
from lerobot_rlft.training.evaluator import Outcome
from lerobot_rlft.training.rounds import Rounds
from lerobot_rlft.utils.errors import EnvironmentFailure, UserError
from lerobot_rlft.utils.signals import Interrupted

pytestmark = pytest.mark.slow

STEPS = 6


@pytest.fixture(autouse=True, scope="module")
def no_pictures():
    with pytest.MonkeyPatch.context() as patch:
        for name in (
            "training.evaluator.draw_trajectories",
            "training.evaluator.draw_learning_curve",
            "critics.return_value.draw_calibration",
        ):
            patch.setattr(f"lerobot_rlft.{name}", lambda *args: None)
        yield


@pytest.fixture(scope="module")
def configured(base_policy, demos):
    """Makes the resolved config of a run of seconds; keywords replace whole fields."""

    def config(output_dir, algorithm=None, **fields) -> TrainConfig:
        algorithm = algorithm or RecapConfig(
            label="quantile", batch_size=8, value=ValueConfig(steps=3), ema_decay=0.9
        )
        base = fields.pop("base", base_policy)
        policy = load_policy_config(str(base), ["--scheduler_warmup_steps=0", "--optimizer_lr=0.01"])
        policy.pretrained_path = base
        defaults = {
            "env": AvoidingEnvConfig(episode_length=8),
            "dataset": DatasetConfig(repo_id="local/tiny", root=demos),
            "rollout": RolloutConfig(n_envs=2, n_episodes=4),
            "eval": EvalConfig(n_episodes=3, n_episodes_during=2, batch_size=2, n_videos=0),
            "iterations": STEPS,
            "save_freq": 4,
            "output_dir": output_dir,
        }
        made = TrainConfig(algorithm=algorithm, policy=policy, **(defaults | fields))
        made.resolve()
        return made

    return config


@pytest.fixture
def make(configured, tmp_path):
    return lambda algorithm=None, **fields: configured(
        **({"output_dir": tmp_path / "run"} | fields), algorithm=algorithm
    )


@pytest.fixture(scope="module")
def whole(configured, tmp_path_factory):
    """A finished run of two rounds."""
    config = configured(tmp_path_factory.mktemp("whole") / "run")
    Rounds(config).train()
    return config


def weights(config, number):
    folder = config.output_dir / f"checkpoints/{number:06}/pretrained_model"
    return load_file(folder / "model.safetensors")


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def with_stage(config, stage):
    return replace(config, algorithm=replace(config.algorithm, stage=stage))


def test_two_rounds_leave_what_they_promise(whole, base_policy):
    config = whole
    run = config.output_dir
    for number in (1, 2):
        folder = run / f"rounds/{number:03}"
        assert {path.name for path in folder.iterdir()} == {
            "advantages", "guided", "rollouts", "seconds.json", "value"
        }  # fmt: skip
        names = sorted(path.stem for path in (folder / "advantages").iterdir())
        assert names == ["demonstrations", *(f"round_{i:03}" for i in range(1, number + 1))]
        assert set(json.loads((folder / "seconds.json").read_text())) == {
            "collect",
            "value",
            "advantages",
            "refit",
        }
    table = pd.read_parquet(run / "rounds/001/advantages/round_001.parquet")
    assert len(table) == 32 and table["advantage"].notna().all()
    assert (table["label"] == "positive").mean() == pytest.approx(0.4, abs=0.05)
    assert (
        pd.read_parquet(run / "rounds/001/advantages/demonstrations.parquet")["label"] == "positive"
    ).all()
    # An ordinary checkpoint: the base's keys, other weights.
    base = load_file(base_policy / "model.safetensors")
    assert weights(config, 1).keys() == base.keys() and not equal(weights(config, 1), base)
    assert (run / "checkpoints/last").readlink().name == "000002"

    lines = metrics(run)
    assert [(line["iteration"], line.get("reloaded")) for line in lines if line["kind"] == "eval"] == [
        (0, None), (1, None), (2, True)
    ]  # fmt: skip
    train = [line for line in lines if line["kind"] == "train"]
    steps = [(line["iteration"], line["step"]) for line in train if "step" in line]
    assert steps == [(number, step) for number in (1, 2) for step in range(1, STEPS + 1)]
    watched = [line for line in train if "step" not in line]
    assert [line["iteration"] for line in watched] == [1, 2]
    assert all(line["chunk_spread"] > 0 and max(line["kl_forward"]) > 0 for line in watched)
    assert (run / "diversity/probe.safetensors").is_file()
    assert [line["env_steps"] for line in lines if line["kind"] == "eval"] == [0, 32, 64]
    summary = json.loads((run / "summary.json").read_text())
    assert summary["env_steps"] == 64 and [r["round"] for r in summary["rounds"]] == [0, 1, 2]

    # Everything is there: again, nothing is made.
    before = {path: path.stat().st_mtime_ns for path in (run / "rounds").rglob("*.parquet")}
    again = replace(config, resume=run)
    Rounds(again).train()
    assert metrics(run) == lines
    assert {path: path.stat().st_mtime_ns for path in (run / "rounds").rglob("*.parquet")} == before


def test_one_stage_at_a_time_makes_the_same(whole, make, capsys):
    config = make()
    for stage in ("refit", "advantages"):
        with pytest.raises(
            UserError, match=r"there (is no value|are no advantages) in .*: run --algorithm.stage="
        ):
            Rounds(with_stage(config, stage)).train()
    for number in (1, 2):
        for stage in ("collect", "value", "advantages", "refit"):
            Rounds(with_stage(config, stage)).train()
            assert (config.output_dir / f"rounds/{number:03}").is_dir()
    assert equal(weights(whole, 2), weights(config, 2))
    assert metrics(config.output_dir, "eval") == metrics(whole.output_dir, "eval")
    capsys.readouterr()
    Rounds(with_stage(config, "value")).train()
    assert "all 2 rounds are finished: raise --algorithm.n_rounds, or delete" in capsys.readouterr().out
    labels = config.output_dir / "rounds/001/advantages"
    was = {file.name: file.read_bytes() for file in labels.iterdir()}
    shutil.rmtree(labels)
    Rounds(with_stage(config, "advantages")).train()
    assert {file.name: file.read_bytes() for file in labels.iterdir()} == was


def test_a_refit_starts_from_the_pretrained_policy_and_sees_all_rounds(make, monkeypatch):
    seen = []
    original = refit_module.Refit.train

    def recorded(self, loader, *args):
        seen.append(([p.detach().clone() for p in self.policy.module.parameters()], len(loader.loaders)))
        return original(self, loader, *args)

    monkeypatch.setattr(refit_module.Refit, "train", recorded)
    Rounds(make()).train()
    (first, one), (second, two) = seen
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True)) and (one, two) == (2, 3)


@pytest.mark.parametrize("when", ["value", "refit"])
def test_an_interrupted_stage_goes_on_or_starts_again(whole, make, monkeypatch, when):
    config = make()
    if when == "refit":
        update, count = refit_module.BC.update, []

        def killed(self, data):
            count.append(1)
            if len(count) == STEPS + 5:  # the fifth step of the second refit, which was saved after four
                raise KeyboardInterrupt
            return update(self, data)

        monkeypatch.setattr(refit_module.BC, "update", killed)
        with pytest.raises(Interrupted, match=rf"(?s)finished stages are kept.*--resume={config.output_dir}"):
            Rounds(config).train()
        assert (config.output_dir / "rounds/002/refit").is_dir()
    else:

        def dead(*args):
            raise Killed

        with monkeypatch.context() as patch:
            patch.setattr("lerobot_rlft.training.stages.save_value", dead)
            with pytest.raises(Killed):
                Rounds(config).train()
        assert not (config.output_dir / "rounds/001/value").exists()
    Rounds(replace(config, resume=config.output_dir)).train()
    assert equal(weights(whole, 2), weights(config, 2))
    assert metrics(config.output_dir) == metrics(whole.output_dir)
    assert not list(config.output_dir.rglob(".partial*")) and not list(
        config.output_dir.glob("rounds/*/refit")
    )


def test_a_checkpoint_that_was_not_yet_linked_is_the_last(whole, make, monkeypatch):
    """A kill between the checkpoint and its link: the round is finished, and not the one before it."""
    config, link, count = make(), checkpoint_module.link_last, []

    def killed(checkpoint):
        count.append(1)
        if len(count) == 2:
            raise Killed
        link(checkpoint)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_module, "link_last", killed)
        with pytest.raises(Killed):
            Rounds(config).train()
    assert last_checkpoint(config.output_dir).name == "000001"
    Rounds(replace(config, resume=config.output_dir)).train()
    assert last_checkpoint(config.output_dir).name == "000002"
    assert metrics(config.output_dir) == metrics(whole.output_dir)
    assert not list(config.output_dir.glob("rounds/*/refit"))


def test_an_evaluation_that_was_interrupted_is_made_up_for(whole, make, monkeypatch):
    config = make()

    def stop(*args):
        raise KeyboardInterrupt

    for stage in ("collect", "value", "advantages"):
        Rounds(with_stage(config, stage)).train()
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Outcome, "during", stop)
        Rounds(with_stage(config, "refit")).train()
    for stage in ("collect", "value", "advantages", "refit"):
        Rounds(with_stage(config, stage)).train()
    assert metrics(config.output_dir) == metrics(whole.output_dir)


def test_a_refit_made_again_is_evaluated_again(make, monkeypatch):
    config = make(RecapConfig(label="episode_success", batch_size=8))
    Rounds(config).train()
    before = metrics(config.output_dir)
    shutil.rmtree(config.output_dir / "checkpoints/000001")
    played, during = [], Outcome.during

    def counted(self, number, env_steps):
        played.append(number)
        return during(self, number, env_steps)

    monkeypatch.setattr(Outcome, "during", counted)
    Rounds(replace(config, resume=config.output_dir)).train()
    assert played == [1]
    key = str
    assert sorted(metrics(config.output_dir), key=key) == sorted(before, key=key)  # its data are the same


def test_all_policies_are_told_the_task(whole):
    rounds = Rounds(replace(whole, resume=whole.output_dir))
    rounds.base.task = "push the block"
    assert rounds.stages.newest(2).task == "push the block"
    rounds.close()


def test_a_corrected_label_changes_the_refit(make, tmp_path):
    config = make(RecapConfig(label="episode_success", batch_size=8, n_rounds=1))
    for stage in ("collect", "advantages"):
        Rounds(with_stage(config, stage)).train()
    copy = replace(config, output_dir=tmp_path / "corrected")
    shutil.copytree(config.output_dir, copy.output_dir)
    file = copy.output_dir / "rounds/001/advantages/round_001.parquet"
    table = pd.read_parquet(file)
    assert (table["label"] == "negative").all() and table["value"].isna().all()
    table["label"] = "positive"
    table.to_parquet(file)
    for one in (config, copy):
        Rounds(with_stage(one, "refit")).train()
    assert not equal(weights(config, 1), weights(copy, 1))


@pytest.mark.parametrize("kind", [FilteredBCConfig, AWRConfig])
def test_the_siblings(kind, make, tmp_path):
    data = record(tmp_path / "r", (6, 7, 8), next_success=[True, False, True], next_reward=[1.0, 0.0, 1.0])
    algorithm = kind(batch_size=8, n_rounds=1, collect=False, data=[data], value=ValueConfig(steps=3))
    config = make(algorithm)
    Rounds(config).train()
    table = pd.read_parquet(config.output_dir / "rounds/001/advantages/local__recorded.parquet")
    if kind is FilteredBCConfig:
        assert table.groupby("episode_index")["weight"].first().tolist() == [1, 0, 1]
        assert not (config.output_dir / "rounds/001/value").exists()
    else:
        assert np.allclose(table["weight"], np.minimum(np.exp(table["advantage"] / 0.1), 20))
    assert not (config.output_dir / "rounds/001/guided").exists()
    assert not (config.output_dir / "rounds/001/rollouts").exists(), "the environment is for evaluation only"


def test_offline_without_an_environment(make, tmp_path, capsys):
    data = record(tmp_path / "r", (6, 7, 8), next_success=[True, False, True], mode=[0, 1, 1])
    algorithm = RecapConfig(
        label="per_mode_quantile",
        batch_size=8,
        n_rounds=1,
        data=[data],
        value=ValueConfig(steps=3),
        guidance_weight=2,
    )
    config = make(algorithm, env=None, dataset=DatasetConfig())
    Rounds(config).train()
    folder = config.output_dir / "checkpoints/000001/pretrained_model"
    assert f"Checkpoint: {folder}" in capsys.readouterr().out
    saved = json.loads((folder / "config.json").read_text())
    assert saved["type"] == "rlft_guided" and saved["guidance_weight"] == 2
    assert not (config.output_dir / "summary.json").exists()


def test_the_graded_reward_instead_of_time(make, tmp_path):
    data = record(
        tmp_path / "r", (3, 3), next_success=[True, True], next_reward=[[0.0, 0.0, 1.0], [0.0, 0.0, 2.0]]
    )
    value = ValueConfig(steps=3)  # only the returns are looked at
    algorithm = RecapConfig(label="quantile", returns="reward", data=[data], n_rounds=1, value=value)
    config = make(algorithm, env=None)
    for stage in ("value", "advantages"):
        Rounds(with_stage(config, stage)).train()
    table = pd.read_parquet(config.output_dir / "rounds/001/advantages/local__recorded.parquet")
    assert table["return"].tolist() == pytest.approx([-0.5] * 3 + [0.0] * 3)


# What it refuses


def test_bad_input_before_anything_is_written(make, tmp_path):
    bare = record(tmp_path / "bare", (5, 4))
    other = record(tmp_path / "fast", (5, 4), fps=30, repo_id="local/fast", next_success=[True, False])
    ended = record(tmp_path / "b", (5, 4), repo_id="local/b", next_success=[True, False])
    run = tmp_path / "run"

    def refused(match, **fields):
        algorithm = fields.pop("algorithm")
        with pytest.raises(UserError, match=match):
            Rounds(make(algorithm, **fields))
        assert not run.exists()

    refused("nothing says which episodes succeeded", algorithm=RecapConfig(data=[bare], collect=False))
    refused("differ in fps", algorithm=RecapConfig(data=[other]))
    refused("is given twice: give different names", algorithm=RecapConfig(data=[ended, ended]))
    missing = EpisodeData(repo_id="local/none", root=tmp_path / "none")
    refused("algorithm.data: .*holds no meta/info.json", algorithm=RecapConfig(data=[missing]))
    refused(
        "form=text needs a policy that reads language, policy.type=diffusion",
        algorithm=RecapConfig(form="text"),
    )
    refused("holds no whole mode atlas", algorithm=RecapConfig(), atlas=AtlasConfig(path=tmp_path))
    nothing = {"env": None, "dataset": DatasetConfig()}
    refused("recap learns from recorded episodes: give --algorithm.data=", algorithm=RecapConfig(), **nothing)
    for asked in ({"collect": True}, {"stage": "collect"}):
        refused("need an environment: give --env.type", algorithm=RecapConfig(**asked), env=None)


def test_modes_that_nobody_names(make, tmp_path):
    data = record(tmp_path / "r", (5, 4), next_success=[False, False])
    algorithm = RecapConfig(label="per_mode_quantile", data=[data], n_rounds=1, value=ValueConfig(steps=1))
    config = make(algorithm, env=None)
    with pytest.raises(UserError, match=r"per_mode_quantile needs modes, .*or label=quantile"):
        Rounds(config).train()


@pytest.mark.parametrize("key, told", [(STATE, 2), ("observation.unknown", 0)])
def test_the_value_is_not_told_how_an_episode_ends(key, told, make, tmp_path, capsys):
    """Without paths failures have no mode, and who is told modes would know a failure by that."""
    data = record(tmp_path / "r", (5, 4, 6), next_success=[True, False, True], mode=[0, -1, 1])
    algorithm = RecapConfig(label="per_mode_quantile", data=[data], n_rounds=1, value=ValueConfig(steps=1))
    config = make(algorithm, env=None, dataset=DatasetConfig(repo_id=None))
    config.atlas.key = key
    Rounds(with_stage(config, "value")).train()
    assert ("is not told modes" in capsys.readouterr().out) == (not told)
    how = json.loads((config.output_dir / "rounds/001/value/value.json").read_text())
    assert how["num_modes"] == told


def test_a_value_and_advantages_of_other_data(make, tmp_path):
    data = record(tmp_path / "r", (5, 4), next_success=[True, False])
    config = make(
        RecapConfig(label="quantile", data=[data], n_rounds=1, value=ValueConfig(steps=1)), env=None
    )
    for stage in ("value", "advantages"):
        Rounds(with_stage(config, stage)).train()
    shutil.rmtree(tmp_path / "r")
    record(tmp_path / "r", (5, 4), seed=1, next_success=[True, False])
    with pytest.raises(UserError, match="belong to another dataset"):
        Rounds(with_stage(config, "refit")).train()
    shutil.rmtree(config.output_dir / "rounds/001/advantages")
    with pytest.raises(UserError, match=r"was fitted for .*delete .*stage=value again"):
        Rounds(with_stage(config, "advantages")).train()


def test_no_success_and_no_demonstrations_for_filtered_cloning(make, tmp_path):
    data = record(tmp_path / "r", (5, 4), next_success=[False, False])
    config = make(FilteredBCConfig(data=[data], n_rounds=1), env=None, dataset=DatasetConfig())
    with pytest.raises(UserError, match="no frame is left to learn from"):
        Rounds(config).train()


def test_a_failing_environment(make, monkeypatch):
    config, rounds = make(), None
    rounds = Rounds(config)
    step = AvoidingVectorEnv.step

    def failing(env, actions):
        if env is not rounds.evaluator.tester.env:
            raise RuntimeError("the simulator crashed")
        return step(env, actions)

    monkeypatch.setattr(AvoidingVectorEnv, "step", failing)
    with pytest.raises(EnvironmentFailure, match=rf"(?s)the simulator crashed.*--resume={config.output_dir}"):
        rounds.train()
    assert not (config.output_dir / "rounds/001/rollouts").exists()


@pytest.mark.parametrize(
    "fields, answer",
    [
        ({"positive_fraction": 1.0}, "positive_fraction=1.0 is out of range, choose a number in"),
        ({"positive_fraction": 0.0}, "positive_fraction=0.0 is out of range"),
        ({"label_dropout": 1.0}, "label_dropout=1.0 is out of range, .*with 1 the policy is never told"),
        ({"guidance_weight": -1.0}, "guidance_weight=-1.0 is out of range"),
        ({"guidance_weight": 2.0, "form": "text"}, "guidance_weight=2.0 needs algorithm.form=embedding"),
        ({"label": "good"}, "label='good' is unknown, choose quantile, per_mode_quantile, episode_success"),
        ({"form": "song"}, "form='song' is unknown, choose embedding or text"),
        ({"stage": "fit"}, "stage='fit' is unknown, choose all, collect, value, advantages, refit"),
        ({"returns": "sum"}, "returns='sum' is unknown, choose steps or reward"),
        ({"base_fraction": 1.0}, r"base_fraction=1.0 is out of range, choose a number in \[0, 1\)"),
        ({"embedding_lr_scale": 0.0}, "embedding_lr_scale=0.0 is out of range"),
        ({"n_rounds": 0}, "n_rounds=0 is out of range"),
        ({"n_step": 0}, "n_step=0 is out of range"),
        ({"fail_cost": -1.0}, "fail_cost=-1.0 is out of range"),
    ],
)
def test_a_value_out_of_range(fields, answer):
    with pytest.raises(ValueError, match=answer):
        RecapConfig(**fields)


@pytest.mark.parametrize(
    "make_config, answer",
    [
        (
            lambda: ValueConfig(input="sound"),
            "value.input='sound' is unknown, choose features, state, images",
        ),
        (lambda: ValueConfig(held_out=1.0), "value.held_out=1.0 is out of range"),
        (lambda: ValueConfig(steps=0), "value.steps=0 is out of range"),
        (lambda: ValueConfig(lr=0.0), "value.lr=0.0 is out of range"),
        (lambda: EpisodeData(), "repo_id is missing: give"),
        (lambda: AWRConfig(eta=0.0), "eta=0.0 is out of range"),
        (lambda: AWRConfig(max_weight=0.0), "max_weight=0.0 is out of range"),
    ],
)
def test_another_value_out_of_range(make_config, answer):
    with pytest.raises(ValueError, match=answer):
        make_config()


# The command line


def test_the_command_line_continues_a_run(make, read_command, base_policy, demos, tmp_path):
    run = tmp_path / "cli"
    config = read_command(
        "--algorithm.type=recap", f"--policy.path={base_policy}", "--dataset.repo_id=local/tiny",
        f"--dataset.root={demos}", "--algorithm.data=[{repo_id: local/x, root: x, successes: [0, 2]}]",
        "--algorithm.value.steps=3", "--algorithm.stage=value", f"--output_dir={run}",
    )  # fmt: skip
    assert config.algorithm.data[0].successes == [0, 2] and config.algorithm.value.steps == 3
    data = record(tmp_path / "x", (5, 4), repo_id="local/x", next_success=[True, False])
    config.algorithm.data = [data]
    Rounds(config).train()
    with pytest.raises(UserError, match=f"or continue that run with --resume={run}"):
        read_command(
            "--algorithm.type=recap", f"--policy.path={base_policy}", "--dataset.repo_id=local/tiny",
            f"--output_dir={run}",
        )  # fmt: skip
    again = read_command(f"--resume={run}", "--algorithm.stage=advantages")
    assert (
        again.algorithm.stage == "advantages" and again.algorithm.data == [data] and again.output_dir == run
    )
    Rounds(again).train()
    assert (run / "rounds/001/advantages/local__x.parquet").is_file()
    assert read_command(f"--resume={run}").algorithm.stage == "all"


def test_a_dry_run_writes_nothing(make, capsys):
    config = make(dry_run=True)
    Rounds(config).dry_run()
    said = capsys.readouterr().out
    assert (
        "demonstrations: 2 episodes, 2 of them successes, 40 frames" in said and "nothing was written" in said
    )
    assert f"would write {config.output_dir / 'rounds/001/value'}" in said
    assert not config.output_dir.exists()


def test_corrections_raise_the_share_of_corrected_behaviour(make, tmp_path):
    """A robot goes left; in a fifth of the frames a human took over and went right. Nothing else is known."""
    features = {
        key: {"dtype": "float32", "shape": (size,), "names": None}
        for key, size in ((STATE, 4), (ENVIRONMENT, 9), ("action", 2))
    } | {"intervention": BOOL}
    corrected = [i % 5 == 0 for i in range(10)]
    episodes = [
        {
            STATE: np.zeros((20, 4), np.float32),
            ENVIRONMENT: np.zeros((20, 9), np.float32),
            "action": np.full((20, 2), 0.008 if right else -0.008, np.float32),
            "intervention": np.full((20, 1), right),
        }
        for right in corrected
    ]
    write_dataset(tmp_path / "r", "local/r", 28, "task", features, episodes, progress=False)
    algorithm = RecapConfig(
        batch_size=64, n_rounds=1, data=[EpisodeData("local/r", tmp_path / "r")], label_dropout=0.5
    )
    # In fewer groups than channels, or every channel would lose its mean, and with it left and right.
    base = save_policy(tmp_path / "base", down_dims=(16,), n_groups=2)
    config = make(
        algorithm, env=None, dataset=DatasetConfig(), base=base, iterations=300, log_freq=0, save_freq=0
    )
    Rounds(config).train()
    conditioned = str(config.output_dir / "rounds/001/guided")

    def share_right(weight):
        policy = load_policy(
            load_policy_config(conditioned, [f"--guidance_weight={weight}", "--device=cpu"]), conditioned
        )
        obs = {STATE: torch.zeros(200, 2, 4), ENVIRONMENT: torch.zeros(200, 2, 9)}
        torch.manual_seed(0)
        return (
            (policy.to_action(policy.deployed_chunk(policy.encode(obs)))[:, 0, 0] > 0).float().mean().item()
        )

    untold, told = share_right(0.0), share_right(1.0)
    print("SHARES", untold, told)
    assert 0.05 < untold < 0.4, "as in the data"
    assert told > 2 * untold, (untold, told)
