"""One of each, defined here and nowhere else: algorithm, regularizer, policy family, environment, metric.

Every one runs through the commands. `docs/extending.md` shows the same five.
"""

import importlib.util
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces
from lerobot.configs import FeatureType, PolicyFeature, PreTrainedConfig, parser
from lerobot.envs.configs import EnvConfig
from runs import metrics
from tiny import save_policy

from lerobot_rlft.algorithms.base import Algorithm, AlgorithmConfig
from lerobot_rlft.chains.chain import step_log_prob
from lerobot_rlft.cli import eval as evaluate
from lerobot_rlft.cli import push, train
from lerobot_rlft.envs.vector import ArrayVectorEnv
from lerobot_rlft.metrics.keys import KEYS
from lerobot_rlft.metrics.registry import METRICS, metric
from lerobot_rlft.policies.base import register
from lerobot_rlft.policies.rlft_flow.adapter import RLFTFlowAdapter
from lerobot_rlft.policies.rlft_flow.configuration_rlft_flow import RLFTFlowConfig
from lerobot_rlft.policies.rlft_flow.modeling_rlft_flow import RLFTFlowPolicy
from lerobot_rlft.policies.rlft_flow.processor_rlft_flow import make_rlft_flow_pre_post_processors
from lerobot_rlft.regularizers.base import Regularizer, RegularizerConfig

ROOT = Path(__file__).parents[1]
BASE = ROOT / "recipes/grasps_base"


# An algorithm: successes are made more likely.


@AlgorithmConfig.register_subclass("toy_imitation_of_successes")
@dataclass
class ToyConfig(AlgorithmConfig):
    """Maximise the likelihood of the last denoising step of what succeeded."""

    consumes = "rollouts"
    lr: float = 1e-3

    def build(self, parts):
        return Toy(self, parts)


class Toy(Algorithm):
    floor = 0.1

    def __init__(self, config, parts):
        self.policy, self.backward = parts.policy, parts.backward
        self.optimizer = torch.optim.Adam(self.policy.trainable_parameters(), config.lr)

    def explore(self, condition):
        return self.policy.sample(condition, self.floor, self.floor)

    def update(self, data):
        policy, k = self.policy, torch.zeros(len(data.t), dtype=torch.long)
        condition = policy.encode_all(data.obs, len(data.t))
        normal = policy.transition(data.chain.x[:, 1], k, condition)
        log_prob = step_log_prob(normal, data.chain.x[:, 0], policy.executed, self.floor)  # (D,)
        loss = -(data.success[data.episode].float() * log_prob).mean()
        self.optimizer.zero_grad()
        self.backward(loss)
        self.optimizer.step()
        return {"toy_loss": loss.item()}

    def progress(self, metrics):
        return f"loss {metrics['toy_loss']:.2f}"

    def state_dict(self):
        return {"optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state):
        self.optimizer.load_state_dict(state["optimizer"])


# A regularizer: network outputs stay small.


@RegularizerConfig.register_subclass("toy_small_outputs")
@dataclass
class ToySmallConfig(RegularizerConfig):
    """Weight decay of what the network says."""

    def build(self, policy, base, load=None):
        return ToySmall(self)


class ToySmall(Regularizer):
    def loss(self, step):
        return step.prediction.square().mean()


# A policy family, in LeRobot's dialect: configuration, model, processors; and the adapter.


@PreTrainedConfig.register_subclass("toy_family")
@dataclass
class ToyFamilyConfig(RLFTFlowConfig):
    pass


class ToyFamilyPolicy(RLFTFlowPolicy):
    name = "toy_family"
    config_class = ToyFamilyConfig


make_toy_family_pre_post_processors = make_rlft_flow_pre_post_processors


@register("toy_family")
class ToyFamilyAdapter(RLFTFlowAdapter):
    pass


# An environment: go far enough to either side.


class ToySides(ArrayVectorEnv):
    num_modes = 2

    def __init__(self, num_envs, far):
        plane = spaces.Box(-1, 1, (2,), np.float32)
        observation = spaces.Dict({"agent_pos": plane, "environment_state": plane})
        super().__init__(num_envs, observation, plane, 1, 64, "go to a side")
        self.far, self.x = far, np.zeros((num_envs, 2), np.float32)

    def _clear(self, who):
        self.x[who], self._mode[who], self._success[who] = 0, -1, False

    def _observe(self):
        return {"agent_pos": self.x.copy(), "environment_state": np.zeros_like(self.x)}

    def step(self, actions):
        self.x[:] = self._checked(actions)
        self._success[:] = abs(self.x[:, 0]) > self.far
        self._mode[:] = np.where(self._success, self.x[:, 0] > 0, -1)
        over = np.ones(self.num_envs, bool)
        return self._end_step(self._success.astype(float), over, ~over)


@EnvConfig.register_subclass("toy_sides")
@dataclass
class ToySidesConfig(EnvConfig):
    task: str | None = "go to a side"
    fps: int = 1
    far: float = 0.1
    features: dict = field(
        default_factory=lambda: {
            "action": PolicyFeature(FeatureType.ACTION, (2,)),
            "agent_pos": PolicyFeature(FeatureType.STATE, (2,)),
            "environment_state": PolicyFeature(FeatureType.ENV, (2,)),
        }
    )
    features_map: dict = field(
        default_factory=lambda: {
            "action": "action",
            "agent_pos": "observation.state",
            "environment_state": "observation.environment_state",
        }
    )

    @property
    def gym_kwargs(self):
        return {}

    def create_envs(self, n_envs, use_async_envs=False):
        return {self.type: {0: ToySides(n_envs, self.far)}}


QUICK = (
    "--rollout.n_envs=8", "--rollout.n_episodes=16", "--eval.n_episodes=8", "--eval.n_episodes_during=8",
    "--eval.batch_size=8", "--eval.n_videos=0", "--iterations=2", "--save_freq=1", "--probe_freq=1",
)  # fmt: skip
DPPO = ("--algorithm.type=dppo", "--algorithm.critic_hidden_dims=[8]", "--algorithm.update_epochs=1")


@pytest.fixture
def run(read_command, tmp_path):
    """Runs lerobot-rlft-train, and again from its first checkpoint; returns the folder."""

    def run(*arguments):
        folder = tmp_path / "run"
        train.run(read_command(*QUICK, *arguments, f"--output_dir={folder}"))
        whole = metrics(folder)
        (folder / "checkpoints/last").unlink()
        (folder / "checkpoints/last").symlink_to("000001")
        train.run(read_command(f"--resume={folder}"))
        assert metrics(folder) == whole, "a resume gives the same numbers"
        return folder

    return run


@pytest.fixture
def command(monkeypatch):
    """Runs another command in this process."""

    def run(main, *arguments):
        parser._config_path_args.clear()
        parser._config_yaml_overrides.clear()
        monkeypatch.setattr("logging.root.handlers", [])
        monkeypatch.setattr("lerobot_rlft.cli.quiet", lambda: None)
        monkeypatch.setattr("sys.argv", ["lerobot-rlft", *map(str, arguments)])
        main()

    yield run
    parser._config_path_args.clear()
    parser._config_yaml_overrides.clear()


def test_an_algorithm(run):
    folder = run("--algorithm.type=toy_imitation_of_successes", f"--policy.path={BASE}", "--env.type=grasps")
    lines = metrics(folder, "train")
    assert len(lines) == 2 and all(np.isfinite(line["toy_loss"]) for line in lines)


def test_a_regularizer(run):
    folder = run(
        *DPPO, f"--policy.path={BASE}", "--env.type=grasps",
        "--algorithm.regularizers=[{type: toy_small_outputs, coef: 0.1}]",
    )  # fmt: skip
    assert all(line["toy_small_outputs_loss"] > 0 for line in metrics(folder, "train"))


def test_a_policy_family(run, tmp_path):
    sizes = {"observation.state": 2, "observation.environment_state": 2}
    base = save_policy(tmp_path / "base", sizes, reach=1.0, kind=ToyFamilyConfig)
    folder = run(*DPPO, f"--policy.path={base}", "--env.type=toy_sides")
    saved = json.loads((folder / "checkpoints/last/pretrained_model/config.json").read_text())
    assert saved["type"] == "toy_family"
    assert all(line["first_ratio_error"] <= 1e-4 for line in metrics(folder, "train"))


def test_an_environment(run):
    folder = run(*DPPO, f"--policy.path={BASE}", "--env.type=toy_sides", "--env.far=0.3")
    line = metrics(folder, "eval")[-1]
    assert line["num_modes"] == 2 and 0 < line["success"] <= 1


@pytest.fixture
def toy_metric():
    """How many more of the policy's successes lie in the rarer half of the base's modes."""

    @metric(
        "rare_half",
        "share of successes in the base's rarer modes, tuned minus base",
        "mode_counts",
        "rare half",
    )
    def rare_half(counts, base_counts):
        rare = np.argsort(base_counts)[: len(base_counts) // 2]
        return float(counts[rare].sum() / counts.sum() - base_counts[rare].sum() / base_counts.sum())

    yield
    del METRICS["rare_half"], KEYS["rare_half"]


def test_a_metric(run, command, toy_metric, tmp_path):
    folder = run(*DPPO, f"--policy.path={BASE}", "--env.type=grasps", "--eval.n_episodes=96")
    report = tmp_path / "report"
    command(
        evaluate.main, f"--policy.path={folder / 'checkpoints/last/pretrained_model'}", f"--base.path={BASE}",
        "--env.type=grasps", "--n_episodes=96", "--batch_size=96", "--n_attempts=0", f"--output_dir={report}",
    )  # fmt: skip
    assert -1 <= json.loads((report / "diversity.json").read_text())["rare_half"] <= 1
    page = (report / "report.html").read_text()
    assert "rare half" in page and "rarer modes, tuned minus base" in page
    command(
        push.main, f"--run_dir={folder}", f"--eval_dir={report}", "--repo_id=user/tuned", "--license=mit",
        "--dry_run=true", f"--output_dir={tmp_path / 'bundle'}",
    )  # fmt: skip
    assert "rare half" in (tmp_path / "bundle/README.md").read_text()
    own = tmp_path / "own"  # from the run's own evaluation
    command(
        push.main, f"--run_dir={folder}", "--repo_id=user/tuned", "--license=mit", "--dry_run=true",
        f"--output_dir={own}",
    )  # fmt: skip
    numbers = json.loads((own / "diversity.json").read_text())
    assert -1 <= numbers["rare_half"] <= 1 and 0 <= numbers["js_divergence"] <= 1
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    assert "`rare_half`" in generate.metrics_page()


def test_a_metric_of_a_taken_name_or_of_unknown_data_is_refused():
    with pytest.raises(ValueError, match="metric 'success' exists already"):
        metric("success", "", "episodes")
    with pytest.raises(ValueError, match="reads='everything' is unknown, choose mode_counts or episodes"):
        metric("new", "", "everything")
