"""What a run says about modes while it trains: where the environment names none, and after a resume."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from runs import Killed, contents, metrics

from lerobot_rlft.algorithms.dppo import DPPOConfig
from lerobot_rlft.algorithms.nft import NFTConfig
from lerobot_rlft.configs.train import DatasetConfig, EvalConfig, RolloutConfig
from lerobot_rlft.diversity.atlas import AtlasConfig, ModeAtlas
from lerobot_rlft.diversity.guard import GuardConfig
from lerobot_rlft.diversity.tracker import ModeTracker
from lerobot_rlft.envs.avoiding.avoiding import AvoidingVectorEnv
from lerobot_rlft.policies.rlft_commanded.commands import COMMAND
from lerobot_rlft.regularizers.kl_base import KLBaseConfig
from lerobot_rlft.regularizers.mode_commands import CommandConfig
from lerobot_rlft.rollout.episodes import Episodes
from lerobot_rlft.training.monitor import deployed_weight, successes
from lerobot_rlft.training.trackers import TRACKERS
from lerobot_rlft.training.trainer import Trainer
from lerobot_rlft.utils.errors import UserError

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    for name in ("draw_trajectories", "draw_learning_curve"):
        monkeypatch.setattr(f"lerobot_rlft.training.evaluator.{name}", lambda *args: None)


@pytest.fixture
def sides(monkeypatch):
    """Every episode goes left or right at random and succeeds; nobody names modes."""
    step, info = AvoidingVectorEnv.step, AvoidingVectorEnv._info

    def stepped(self, actions):
        self._success[:] = True
        side = np.sign(np.asarray(actions)[:, :1]) + (np.asarray(actions)[:, :1] == 0)
        moving = np.where(self._steps[:, None] > 0, np.sign(self._current[:, :1] - 0.525), side)
        return step(self, np.concatenate([0.01 * moving, np.asarray(actions)[:, 1:]], 1))

    def unnamed(self, who):
        return {key: value for key, value in info(self, who).items() if "mode" not in key}

    monkeypatch.setattr(AvoidingVectorEnv, "step", stepped)
    monkeypatch.setattr(AvoidingVectorEnv, "_info", unnamed)


@pytest.fixture
def many(dppo_config):
    """The config of a run with enough episodes for an atlas."""

    def make(**fields):
        return dppo_config(
            rollout=RolloutConfig(n_envs=8, n_episodes=8),
            eval=EvalConfig(n_episodes=40, n_episodes_during=20, batch_size=20, n_videos=0),
            **fields,
        )

    return make


def test_an_atlas_names_the_modes_that_the_environment_does_not(sides, many, capsys):
    config = many(iterations=2, probe_freq=1)
    Trainer(config).train()
    run = config.output_dir
    said = capsys.readouterr()
    assert "mode atlas: 2 modes in 40 paths of observation.state" in said.out
    assert " modes " in said.err  # the progress bar
    atlas = ModeAtlas.load(run / "diversity")
    assert atlas.num_modes == 2 and atlas.env == "avoiding"
    assert {"atlas.png", "kl.png", "modes.png"} <= {path.name for path in (run / "pictures").iterdir()}
    first = metrics(run, "eval")[0]
    assert first["num_modes"] == first["modes"] == 2 and sum(first["mode_counts"]) == 40
    for line in metrics(run, "train"):
        assert sum(line["mode_counts"]) == 8 and 1 <= line["effective_modes"] <= 2 and line["js_to_base"] >= 0
        assert len(line["kl_by_step"]) == len(line["kl_forward"]) == 3
        assert line["chunk_spread"] > 0 and line["peaks"] >= 1 and line["off_manifold"] > 0


def test_resume_with_an_atlas_continues_to_the_same_numbers(sides, many, tmp_path, monkeypatch):
    whole = many(iterations=3, save_freq=1, probe_freq=2, output_dir=tmp_path / "whole")
    Trainer(whole).train()
    config = many(iterations=3, save_freq=1, probe_freq=2)
    update, calls = ModeTracker.update, []

    def third_is_fatal(self, *args):
        calls.append(1)
        if len(calls) == 3:
            raise Killed
        return update(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(ModeTracker, "update", third_is_fatal)
        with pytest.raises(Killed):
            Trainer(config).train()
    config.resume = config.output_dir
    Trainer(config).train()
    assert metrics(config.output_dir) == metrics(whole.output_dir)
    last = "checkpoints/000003"
    assert contents(config.output_dir / last) == contents(whole.output_dir / last)


def test_demonstrations_help_to_fit_the_atlas(sides, many, demos, tmp_path, capsys):
    config = many(iterations=1, dataset=DatasetConfig(repo_id="local/tiny", root=demos))
    Trainer(config).train()
    assert "in 42 paths of observation.state" in capsys.readouterr().out
    other = tmp_path / "other"
    nowhere = DatasetConfig(repo_id="local/tiny", root=demos / "nowhere")
    with pytest.raises(UserError, match=r"dataset: .*nowhere"):
        Trainer(many(dataset=nowhere, output_dir=other))
    assert not other.exists()


class FakeTracker:
    """Keeps what is shown."""

    def __init__(self, config):
        self.alerts, self.pictures = [], []

    def alert(self, title, text):
        self.alerts.append(text)

    def picture(self, name, path, iteration):
        assert path.suffix == ".png"
        self.pictures.append((name, iteration))

    def log(self, kind, scalars, iteration):
        pass

    def checkpoint(self, folder):
        pass

    def finish(self):
        pass


def test_a_tracker_is_shown_pictures_and_alarms(sides, many, monkeypatch):
    tracker = FakeTracker(None)
    monkeypatch.setitem(TRACKERS, "wandb", lambda config: tracker)
    monkeypatch.setattr(ModeTracker, "alarm", lambda self: "modes are leaving")
    config = many(iterations=2, eval_freq=1)
    config.wandb.enable, config.wandb.mode = True, "offline"
    Trainer(config).train()
    assert tracker.alerts.count("modes are leaving") == 2
    shown = {entry for entry in tracker.pictures if entry[0] in ("modes", "kl")}
    assert shown == {("modes", 1), ("kl", 1), ("modes", 2), ("kl", 2)}


def test_an_alarm_is_written_down(many, monkeypatch):
    monkeypatch.setattr(ModeTracker, "alarm", lambda self: "modes are leaving")
    step = AvoidingVectorEnv.step

    def stepped(self, actions):
        self._success[:], self._mode[:] = True, np.arange(self.num_envs) % 3
        return step(self, actions)

    monkeypatch.setattr(AvoidingVectorEnv, "step", stepped)
    config = many(iterations=1, log_freq=2)  # not at other times
    Trainer(config).train()
    assert metrics(config.output_dir, "train")[0]["alarm"] == "modes are leaving"


def test_without_success_modes_are_not_tracked(many, capsys):
    config = many(iterations=1)
    Trainer(config).train()
    assert "modes are not tracked, the base had no success" in capsys.readouterr().out
    assert "effective_modes" not in metrics(config.output_dir, "train")[0]


def test_an_atlas_of_another_environment_is_refused(sides, many, tmp_path):
    config = many(iterations=1)
    Trainer(config).train()
    folder = config.output_dir / "diversity"
    Trainer(many(iterations=1, atlas=AtlasConfig(path=folder), output_dir=tmp_path / "again")).train()
    assert (tmp_path / "again/diversity/atlas.safetensors").read_bytes() == (
        folder / "atlas.safetensors"
    ).read_bytes()
    saved = json.loads((folder / "atlas.json").read_text())
    (folder / "atlas.json").write_text(json.dumps(saved | {"env": "pusht"}))
    with pytest.raises(UserError, match=r"of env.type=pusht, not of avoiding"):
        Trainer(many(atlas=AtlasConfig(path=folder), output_dir=tmp_path / "third"))
    assert not (tmp_path / "third").exists()


def test_a_damaged_probe_is_named(sides, many):
    config = many(iterations=2, save_freq=1, probe_freq=1)
    Trainer(config).train()
    (config.output_dir / "diversity/probe.safetensors").write_bytes(b"cut")
    config.resume, config.iterations = config.output_dir, 3
    with pytest.raises(UserError, match=r"probe states .*probe.safetensors are missing or damaged"):
        Trainer(config)


def test_a_base_that_cannot_be_probed_costs_the_probe_and_not_the_run(many, monkeypatch, capsys):
    def refuse(*args, **options):
        raise ValueError("base_chunks are the same for all noises")

    monkeypatch.setattr("lerobot_rlft.diversity.probe.spread_ratio", refuse)
    config = many(iterations=2, probe_freq=1)
    Trainer(config).train()
    assert capsys.readouterr().out.count("not compared at branching states, base_chunks are the same") == 1
    assert len(metrics(config.output_dir, "train")) == 2


def test_reference_episodes_are_named_by_the_atlas_alone(sides, dppo_config, monkeypatch):
    """The environment is not asked how many modes there are once the atlas has named some."""
    monkeypatch.delattr(AvoidingVectorEnv, "num_modes")
    algorithm = DPPOConfig(update_epochs=1, critic_hidden_dims=(8,), regularizers=[KLBaseConfig(coef=0.01)])
    config = dppo_config(
        algorithm=algorithm,
        rollout=RolloutConfig(n_envs=8, n_episodes=8, n_reference=8),
        eval=EvalConfig(n_episodes=40, n_episodes_during=20, batch_size=20, n_videos=0),
        iterations=1,
    )
    Trainer(config).train()
    (line,) = metrics(config.output_dir, "train")
    assert "kl_base_loss" in line


def test_practised_episodes_count_for_what_they_are_deployed():
    told = {COMMAND: torch.tensor([[2], [0], [2], [0], [0]])}
    episodes = SimpleNamespace(success=np.zeros(3, bool))
    data = SimpleNamespace(obs=told, episode=torch.tensor([0, 1, 0, 1, 2]), episodes=episodes)
    odds = torch.tensor([1.2, 0.0, 0.5])
    assert deployed_weight(data, odds) == pytest.approx([1.5 / 2.9, 3.6 / 2.9, 3.6 / 2.9])
    assert deployed_weight(data, None) is None
    data.obs = {}
    assert deployed_weight(data, odds) is None


@pytest.mark.parametrize("drawn", [[0, 0, 0, 0, 1], [0, 0, 0, 0, 2]])
def test_no_more_episodes_succeed_than_were_played(drawn):
    """Four of five drew the command that the deployed policy is told more often, and all succeed."""
    told = {COMMAND: torch.tensor(drawn)[:, None]}
    episodes = SimpleNamespace(success=np.ones(5, bool))
    data = SimpleNamespace(obs=told, episode=torch.arange(5), episodes=episodes)
    weight = deployed_weight(data, torch.tensor([1.5, 0.5, 0.0]))
    assert weight.sum() == pytest.approx(5)
    assert successes(episodes, weight) == 5


def test_the_reference_of_a_commanded_base_is_read_as_deployed(many):
    """Practice showed modes 0 and 1 alike, 40 and 40; deployed, they are drawn 3 to 1."""
    config = many(guard=GuardConfig(enable=True), eval_freq=1)
    trainer = Trainer(config)
    config.output_dir.mkdir()
    trainer.monitor.begin(trainer.runner.env, SimpleNamespace(mode=np.zeros(1)))
    mode = np.arange(80) % 2
    episodes = Episodes(
        success=np.ones(80, bool), mode=mode, total_reward=np.ones(80), max_reward=np.ones(80),
        length=np.ones(80, int),
    )  # fmt: skip
    told = {COMMAND: torch.from_numpy(mode)[:, None]}
    data = SimpleNamespace(obs=told, episode=torch.arange(80), episodes=episodes, attempt=None)
    trainer.monitor.begin_reference(trainer.runner.env, data, torch.tensor([1.5, 0.5]))
    # Weights 1.5 and .5: 60 and 20 successes, worth 80^2 / (40 * 1.5^2 + 40 * .5^2) = 64 episodes.
    assert trainer.monitor.guard.base_counts[:2].tolist() == [48, 16]
    assert trainer.monitor.tracker.base_counts[:2].tolist() == [48, 16]


def test_successes_are_weighted_as_modes_are():
    episodes = SimpleNamespace(success=np.array([True, False, True]))
    assert successes(episodes, None) == 2
    assert successes(episodes, np.array([2.5, 9.0, 0.3])) == 3


def test_each_round_is_read_by_itself(many, capsys):
    """8 equal modes, then the same, then two of them: the last round is alarming, from any resume."""
    trainer = Trainer(many(probe_freq=0))
    base = {"iteration": 0, "n_episodes": 120, "success": 112 / 120, "mode_counts": [14] * 8}
    same = base | {"iteration": 1}
    fewer = base | {"iteration": 2, "success": 1, "mode_counts": [60, 60, *[0] * 6]}
    failed = {"iteration": 3, "n_episodes": 120, "success": 0}

    def read(*lines):
        return trainer.monitor.after_round(
            [*lines], trainer.policy, lambda: pytest.fail("nothing to compare")
        )

    first = read(base, same)
    assert first["effective_modes"] == pytest.approx(8) and "alarm" not in first
    second = read(base, same, fewer)
    assert second["effective_modes"] == pytest.approx(2, abs=0.01)
    assert second["alarm"].startswith(
        "effective modes fell to 25 % of the base (2.0 of 8.0) while success rose"
    )
    assert second["alarm"].endswith("a larger --algorithm.base_fraction")
    assert "round 2: effective modes fell" in capsys.readouterr().out
    third = read(base, same, fewer, failed)
    assert third["mode_counts"] == [0] * 8 and third["alarm"].startswith("success fell (100 % to 0 %)")
    blind = {k: v for k, v in base.items() if k != "mode_counts"}
    assert read(blind, blind) == {}
    assert read(blind, same) == {}


def test_a_commanded_policy_is_tuned_again_by_the_modes_it_was_told(sides, many, tmp_path):
    """Its checkpoint holds the atlas, and the second run numbers modes by it."""
    commands = CommandConfig(enable=True, steps=2, batch_size=8)

    def tuned(name, **fields):
        algorithm = NFTConfig(update_epochs=1, critic_hidden_dims=(8,), commands=commands)
        config = many(iterations=1, probe_freq=0, output_dir=tmp_path / name, algorithm=algorithm, **fields)
        config.rollout.n_reference = 24
        Trainer(config).train()
        return tmp_path / name

    first = tuned("first")
    policy = first / "checkpoints/last/pretrained_model"
    again = tuned("again", policy=policy, pretrained_path=policy)
    for folder in (policy, again / "diversity", again / "checkpoints/last/pretrained_model"):
        assert ModeAtlas.load(folder).same_as(ModeAtlas.load(first / "diversity"))
