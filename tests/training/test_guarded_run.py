"""A guarded run on a tiny real configuration: resumed, exported, capped, refused."""

import json

import numpy as np
import pytest
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.policies import make_pre_post_processors
from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy
from runs import Killed, contents, metrics
from safetensors.torch import load_file

from lerobot_rlft.algorithms.dppo import DPPOConfig
from lerobot_rlft.algorithms.nft import NFTConfig
from lerobot_rlft.configs.train import DatasetConfig, EvalConfig, RolloutConfig, load_policy_config
from lerobot_rlft.diversity.atlas import AtlasConfig
from lerobot_rlft.diversity.guard import DiversityGuard, GuardConfig, retained
from lerobot_rlft.envs.avoiding.avoiding import AvoidingVectorEnv
from lerobot_rlft.metrics.intervals import wilson_interval
from lerobot_rlft.policies.loading import load_policy
from lerobot_rlft.regularizers.entropy import EntropyConfig
from lerobot_rlft.regularizers.kl_base import KLBaseConfig
from lerobot_rlft.regularizers.manifold_ensemble import ManifoldEnsembleConfig
from lerobot_rlft.regularizers.mode_balance import BalanceConfig
from lerobot_rlft.regularizers.mode_commands import CommandConfig
from lerobot_rlft.regularizers.rehearsal import RehearsalConfig
from lerobot_rlft.training.selection import Point
from lerobot_rlft.training.trainer import Trainer
from lerobot_rlft.utils.errors import UserError

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    for name in (
        "training.evaluator.draw_trajectories",
        "training.evaluator.draw_learning_curve",
        "training.monitor.draw_kl",
    ):
        monkeypatch.setattr(f"lerobot_rlft.{name}", lambda *args: None)


@pytest.fixture
def sides(monkeypatch):
    """Left and right are the modes; who is far enough up after its last step but one succeeds."""
    step = AvoidingVectorEnv.step

    def stepped(self, actions):
        ends = self._steps == self._max_episode_steps - 1
        self._mode[:] = np.where(ends, self._current[:, 0] > 0.525, -1)
        self._success[:] = ends & (self._current[:, 1] > self._finish_y)
        self._mode[~self._success] = -1
        return step(self, actions)

    monkeypatch.setattr(AvoidingVectorEnv, "_finish_y", -0.25, raising=False)
    monkeypatch.setattr(AvoidingVectorEnv, "step", stepped)


@pytest.fixture
def guarded(dppo_config):
    def make(guard=None, regularizers=None, algorithm=None, **fields):
        if regularizers is None:
            regularizers = [KLBaseConfig(coef=0.01), RehearsalConfig(source="recent", batch_size=8)]
        options = {"minibatch_size": 16, "critic_hidden_dims": (8,), "regularizers": regularizers}
        options["balance"] = BalanceConfig(center=True, tau=0.5)
        options |= algorithm or {}
        kind = DPPOConfig if "objective" in options else NFTConfig
        return dppo_config(
            guard=GuardConfig(enable=True, **({"rate": 0.5} | (guard or {}))),
            algorithm=kind(**options),
            rollout=RolloutConfig(n_envs=8, n_episodes=8, n_reference=24),
            eval=EvalConfig(n_episodes=16, n_episodes_during=16, batch_size=16, n_videos=0),
            **{"eval_freq": 1, "save_freq": 0, "probe_freq": 0} | fields,
        )

    return make


@pytest.fixture
def one_mode_collected(monkeypatch):
    """The guard reads that all successes of an iteration were in one mode."""
    update = DiversityGuard.update

    def lost(self, counts, episodes):
        return update(self, np.eye(len(counts))[0] * sum(counts), episodes)

    monkeypatch.setattr(DiversityGuard, "update", lost)


def summary(run):
    read = json.loads((run / "summary.json").read_text())
    read["policy"] = read["policy"].split("checkpoints")[1]
    del read["seconds"]
    return read


def test_resumed_equals_uninterrupted_and_the_best_is_exported(
    sides, guarded, read_command, tmp_path, monkeypatch, capsys
):
    whole, run = tmp_path / "whole", tmp_path / "killed"
    Trainer(guarded(output_dir=whole)).train()
    said = capsys.readouterr()
    assert "guard: modes are held by kl_base, rehearsal, balance" in said.out
    trainer = Trainer(guarded(output_dir=run))
    update, calls = trainer.algorithm.update, []

    def third_is_fatal(data):
        calls.append(1)
        out = update(data)
        if len(calls) == 3:
            raise Killed
        return out

    monkeypatch.setattr(trainer.algorithm, "update", third_is_fatal)
    with pytest.raises(Killed):
        trainer.train()
    torch.manual_seed(5)  # a new process has another random state
    Trainer(read_command(f"--resume={run}")).train()

    assert metrics(run) == metrics(whole)
    assert summary(run) == summary(whole)
    names = ("000001", "000002", "000003", "000004")
    for name in names:
        expected, found = (contents(r / "checkpoints" / name) for r in (whole, run))
        assert expected.keys() == found.keys()
        assert [n for n in expected if expected[n] != found[n]] == []

    lines = metrics(whole, "train")
    for line in lines:
        assert line["kl_base_loss"] >= 0 and line["rehearsal_loss"] > 0 and line["mode_loss"] > 0
        assert 0 <= line["guard_strength"] <= 4 and line["bonus_min"] <= line["bonus_max"]
    assert len({line["guard_strength"] for line in lines}) == 4
    assert 0 < sum(line["success"] for line in lines) < 4  # failures were held to the modes they attempted
    # Every iteration was evaluated, the last one too; what is exported is the best of them by its own rule.
    verdict, base = summary(whole)["guard"], np.array(summary(whole)["base"]["mode_counts"])
    evaluated = {
        line["iteration"]: (line["success"], retained("entropy", np.array(line["mode_counts"]), base))
        for line in metrics(whole, "eval")
        if line["iteration"] and not line.get("reloaded")
    }
    assert list(evaluated) == [1, 2, 3, 4]
    allowed = {i: point for i, point in evaluated.items() if point[1] >= 0.95}
    assert allowed
    least, _ = wilson_interval(round(16 * max(success for success, _ in allowed.values())), 16)
    assert verdict["iteration"] == max(i for i, (success, _) in allowed.items() if success >= least)
    (reported,) = (line for line in metrics(whole, "eval") if line.get("reloaded"))  # plays other episodes
    assert reported["iteration"] == verdict["iteration"]
    assert reported["success"] == summary(whole)["tuned"]["success"]
    assert f"Exported is the checkpoint of iteration {verdict['iteration']}; " in said.out
    assert " guard " in said.err  # the progress bar
    assert (whole / "pictures/front.png").stat().st_size > 0

    best = whole / "checkpoints/best"
    assert best.resolve().name == f"{verdict['iteration']:06d}"
    assert summary(whole)["policy"] == "/best/pretrained_model"
    assert verdict["iteration"] in [point["iteration"] for point in verdict["front"]]
    for point in verdict["front"]:
        folder = whole / f"checkpoints/{point['iteration']:06d}/pretrained_model"
        stock = DiffusionPolicy.from_pretrained(folder)
        make_pre_post_processors(stock.config, str(folder))
        assert (point["success"], point["ratio"]) == evaluated[point["iteration"]]
    exported = DiffusionPolicy.from_pretrained(best / "pretrained_model").state_dict()
    written = load_file(whole / f"checkpoints/{verdict['iteration']:06d}/pretrained_model/model.safetensors")
    assert written.keys() <= exported.keys()
    assert all(torch.equal(written[key], exported[key]) for key in written)


def test_a_commanded_run_resumes_bit_equal_and_acts_as_asked(sides, guarded, read_command, tmp_path):
    commands = CommandConfig(enable=True, steps=4, batch_size=8)
    made = {"algorithm": {"balance": BalanceConfig(), "commands": commands}, "regularizers": []}
    whole, run = tmp_path / "whole", tmp_path / "stopped"
    Trainer(guarded(output_dir=whole, iterations=2, **made)).train()
    Trainer(guarded(output_dir=run, iterations=1, **made)).train()
    Trainer(read_command(f"--resume={run}", "--iterations=2")).train()
    assert metrics(run, "train") == metrics(whole, "train")
    expected, found = (contents(r / "checkpoints" / "000002") for r in (whole, run))
    assert [name for name in expected if expected[name] != found[name]] == []
    assert all(0 <= line["obeyed"] <= 1 for line in metrics(whole, "train"))

    folder = whole / "checkpoints/best/pretrained_model"
    config = json.loads((folder / "config.json").read_text())
    assert config["type"] == "rlft_commanded" and config["inner"]["type"] == "diffusion"
    known = [mode for mode, share in enumerate(config["shares"]) if share]
    policy = load_policy(load_policy_config(str(folder), [f"--mode={known[0]}"]), folder)
    assert policy.draw(3).tolist() == [known[0]] * 3


@pytest.mark.parametrize(
    "algorithm",
    [
        {"objective": "chain", "flow_noise": "head"},
        {"objective": "chain", "hybrid": True},
        {},
    ],
)
def test_a_flow_policy_under_the_guard_resumes_bit_equal(
    algorithm, sides, guarded, flow_policy, read_command, tmp_path
):
    whole, run = tmp_path / "whole", tmp_path / "stopped"
    regularizers = [
        KLBaseConfig(coef=0.01),
        KLBaseConfig(coef=0.01, place="return"),
        RehearsalConfig(source="recent", batch_size=8),
        EntropyConfig(coef=0.1, on="noise_head" if "flow_noise" in algorithm else "novelty"),
        ManifoldEnsembleConfig(coef=0.01, references=[str(flow_policy)]),
    ]
    made = {"regularizers": regularizers, "policy": flow_policy, "pretrained_path": flow_policy}
    made |= {"algorithm": algorithm, "probe_freq": 1}
    Trainer(guarded(**made, output_dir=whole)).train()
    Trainer(guarded(**made, output_dir=run, iterations=2)).train()
    torch.manual_seed(5)  # a new process has another random state
    resumed = Trainer(read_command(f"--resume={run}", "--iterations=4"))
    resumed.train()

    assert metrics(run, "train") == metrics(whole, "train")
    for name in ("000003", "000004"):
        expected, found = (contents(r / "checkpoints" / name) for r in (whole, run))
        assert expected.keys() == found.keys()
        assert [n for n in expected if expected[n] != found[n]] == []
    for line in metrics(whole, "train"):
        assert line.get("first_ratio_error", 0.0) <= 1e-4
        assert line["kl_base_loss"] >= 0 and line["rehearsal_loss"] > 0 and line["kl_to_base"] > 0
        assert len(line["kl_forward"]) == 3 and line["chunk_spread"] > 0
    head = resumed.policy.noise_head
    assert (head is not None) == ("flow_noise" in algorithm)
    exported = load_file(whole / "checkpoints/last/pretrained_model/model.safetensors")
    assert exported.keys() == load_file(flow_policy / "model.safetensors").keys()
    if head is not None:
        assert all(p.abs().max() > 0 for p in head.net[-1].parameters()), "the noise was trained"
        state = json.loads((whole / "checkpoints/last/training_state/state.json").read_text())
        assert "net.2.weight" in state["algorithm"]["noise_head"]


def test_a_strength_that_diverges_is_capped_and_the_run_goes_on(
    sides, one_mode_collected, guarded, read_command, capsys
):
    config = guarded(guard={"rate": 2.5, "floor": 1.0, "most": 3.0}, iterations=3)
    trainer = Trainer(config)
    trainer.train()
    lines = metrics(config.output_dir, "train")
    assert [line["guard_ratio"] for line in lines] == [0, 0, 0]
    assert [line["guard_strength"] for line in lines] == [3, 3, 3]
    assert "strength is at its cap 3.0 and entropy still is 0.00" in lines[0]["alarm"]
    assert "the run goes on" in lines[0]["alarm"] and not any("alarm" in line for line in lines[1:])
    assert "iteration 1: guard: strength is at its cap" in capsys.readouterr().out
    coefs = {name: r.coef for name, r in trainer.algorithm.regularizers.items()}
    assert coefs == {"kl_base": pytest.approx(0.03), "rehearsal": 3, "balance": 3}
    assert summary(config.output_dir)["guard"]["floor"] == 1

    resume = f"--resume={config.output_dir}"
    again = Trainer(
        read_command(resume, "--algorithm.regularizers=[{type: kl_base, coef: 0.5}]", "--guard.enable=false")
    )
    # the coefficients of this configuration: nothing would move a strength now
    assert {n: r.coef for n, r in again.algorithm.regularizers.items()} == {"kl_base": 0.5, "balance": 1}
    assert again.monitor.guard is None
    attempts = config.output_dir / "diversity/attempts.safetensors"
    attempts.write_bytes(b"cut")
    with pytest.raises(UserError, match=r"attempts.safetensors, are missing or damaged"):
        Trainer(read_command(resume))
    attempts.unlink()
    with pytest.raises(UserError, match=r"attempts.safetensors, are missing or damaged"):
        Trainer(read_command(resume))


def test_where_no_checkpoint_respects_the_floor_the_most_diverse_is_exported(
    sides, guarded, monkeypatch, capsys
):
    ratios = {0: 1.0, 1: 0.4, 2: 0.7}
    monkeypatch.setattr(
        "lerobot_rlft.training.evaluator.points",
        lambda lines, metric, run: [
            Point(i, 1.0 - 0.1 * i, ratios[i], run / f"checkpoints/00000{i}", 0.9 - 0.1 * i) for i in (1, 2)
        ],
    )
    config = guarded(iterations=2, regularizers=[])
    Trainer(config).train()
    said = capsys.readouterr().out
    assert "no checkpoint keeps 0.95 of the base's entropy, exported is the most diverse (0.70)" in said
    assert (config.output_dir / "checkpoints/best").resolve().name == "000002"
    assert metrics(config.output_dir)[-1]["reloaded"] and metrics(config.output_dir)[-1]["iteration"] == 2


def test_a_base_without_diversity_in_its_evaluation_exports_the_last(sides, guarded, monkeypatch, capsys):
    """Its reference episodes show two modes, the few of its evaluation only one."""
    config = guarded(iterations=1, regularizers=[])
    config.eval.n_episodes = config.eval.n_episodes_during = config.eval.batch_size = 1
    Trainer(config).train()
    assert "checkpoints cannot be compared; exported is the last one" in capsys.readouterr().out
    assert not (config.output_dir / "checkpoints/best").exists()
    assert summary(config.output_dir)["policy"] == "/000001/pretrained_model"
    assert "guard" not in summary(config.output_dir)


def constant(monkeypatch, mode):
    step = AvoidingVectorEnv.step

    def stepped(self, actions):
        self._mode[:], self._success[:] = max(mode, 0), mode >= 0
        return step(self, actions)

    monkeypatch.setattr(AvoidingVectorEnv, "step", stepped)


@pytest.mark.parametrize("mode, words", [(5, "1 mode"), (-1, "0 modes")])
def test_a_base_of_one_mode_has_nothing_to_guard(mode, words, guarded, monkeypatch):
    constant(monkeypatch, mode)
    config = guarded()
    with pytest.raises(UserError, match=f"base's successes use {words}: there is nothing to hold"):
        Trainer(config).train()


def test_a_balance_without_guard_refuses_a_base_of_one_mode(dppo_config, monkeypatch):
    constant(monkeypatch, 5)
    balance = DPPOConfig(balance=BalanceConfig(center=True), critic_hidden_dims=(8,))
    config = dppo_config(algorithm=balance, rollout=RolloutConfig(n_envs=2, n_episodes=2, n_reference=2))
    with pytest.raises(UserError, match="the base uses 1 mode, there is no diversity to hold"):
        Trainer(config).train()


@pytest.mark.parametrize("guard", [True, False])
def test_without_modes_there_is_nothing_to_hold(guard, guarded, monkeypatch):
    info = AvoidingVectorEnv._info

    def unnamed(self, who):
        return {key: value for key, value in info(self, who).items() if "mode" not in key}

    monkeypatch.setattr(AvoidingVectorEnv, "_info", unnamed)
    config = guarded(atlas=AtlasConfig(dims=[9]))
    config.guard.enable = guard  # the balance stays
    what = "guard.enable=true needs modes" if guard else "algorithm.balance needs modes"
    with pytest.raises(UserError, match=rf"{what}, and neither .* names any: .*--atlas.key, --atlas.dims"):
        Trainer(config).train()


def test_a_resume_cannot_switch_the_guard_on(dppo_config, read_command):
    config = dppo_config(iterations=1, probe_freq=0)
    Trainer(config).train()
    # chain, as the run began; and its balance of modes, which the guard recommends, has no shares to restore
    with pytest.raises(UserError, match=r"does not fit the configuration .*needs the base's episodes"):
        Trainer(read_command(f"--resume={config.output_dir}", "--guard.enable=true"))


def test_demonstrations_are_rehearsed_as_the_policy_sees_them(dppo_config, demos):
    """All 40 windows of the tiny dataset: observations as they come, actions normalised to +-1."""
    regularizers = [RehearsalConfig(source="demonstrations", capacity=capacity) for capacity in (4096, 7)]
    config = dppo_config(
        algorithm=DPPOConfig(regularizers=regularizers),
        dataset=DatasetConfig(repo_id="local/tiny", root=demos),
    )
    built = Trainer(config).algorithm.regularizers
    assert list(built) == ["rehearsal", "rehearsal#2"]
    rehearsal = built["rehearsal"]
    assert len(rehearsal.x0) == 40 and len(built["rehearsal#2"].x0) == 7
    dataset = LeRobotDataset("local/tiny", root=demos)
    state = torch.stack([row["observation.state"] for row in dataset])
    action = torch.stack([row["action"] for row in dataset])
    for obs, chunk in zip(rehearsal.obs["observation.state"], rehearsal.x0, strict=True):
        i = int((state == obs[1]).all(1).nonzero())  # the newest of two observations
        first = i if i % 20 == 0 else i - 1
        assert torch.equal(obs[0], state[first])
        # a horizon of 4 begins at the older observation and ends with the episode
        rows = torch.arange(i - 1, i + 3).clamp(i // 20 * 20, i // 20 * 20 + 19)
        torch.testing.assert_close(chunk, action[rows] / 0.01)


def test_demonstrations_that_are_not_there(dppo_config, demos, tmp_path):
    algorithm = DPPOConfig(regularizers=[RehearsalConfig(source="demonstrations")])
    with pytest.raises(UserError, match=r"source=demonstrations of regularizer rehearsal needs a dataset"):
        Trainer(dppo_config(algorithm=algorithm))
    algorithm = DPPOConfig(regularizers=[ManifoldEnsembleConfig(references=[str(tmp_path / "nowhere")])])
    with pytest.raises(UserError, match=r"references.path=.*nowhere"):
        Trainer(dppo_config(algorithm=algorithm))
    algorithm = DPPOConfig(regularizers=[EntropyConfig(on="noise_head")])
    with pytest.raises(UserError, match=r"^algorithm.regularizers: on='noise_head' of regularizer entropy"):
        Trainer(dppo_config(algorithm=algorithm))
    assert not (tmp_path / "run").exists()
