"""Tiny demonstrations, and quick runs on a tiny policy."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import lerobot_policy_rlft  # noqa: F401  registers --env.type=avoiding
import numpy as np
import pytest
from draccus.wrappers import field_wrapper
from lerobot.configs import parser
from lerobot.datasets import dataset_metadata, load_episodes
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
from tiny import OBSERVATIONS, TINY, save_policy

from lerobot_rlft.algorithms.bc import BCConfig
from lerobot_rlft.algorithms.dppo import DPPOConfig
from lerobot_rlft.cli.train import read_config
from lerobot_rlft.configs.train import (
    DatasetConfig,
    EvalConfig,
    RolloutConfig,
    TrainConfig,
    load_policy_config,
)
from lerobot_rlft.datasets.writer import write_dataset
from lerobot_rlft.envs.avoiding.configuration_avoiding import AvoidingEnvConfig
from lerobot_rlft.policies.rlft_flow.configuration_rlft_flow import RLFTFlowConfig

# Each parse reads the sources of all policies anew for the help texts.
field_wrapper.docstring.get_attribute_docstring = cache(field_wrapper.docstring.get_attribute_docstring)

_load_episodes = cache(lambda root, files: load_episodes(root))


def _load_episodes_once(root: Path):
    """A dataset's list of episodes: it takes .2 s and a run of rounds opens it dozens of times."""
    found = [(path, path.stat()) for path in sorted(Path(root).glob("meta/episodes/**/*.parquet"))]
    return _load_episodes(root, tuple((path, stat.st_ino, stat.st_mtime_ns) for path, stat in found))


dataset_metadata.load_episodes = _load_episodes_once


@pytest.fixture(scope="session")
def base_policy(tmp_path_factory) -> Path:
    """A tiny checkpoint for Avoiding: 2 observations, horizon 4, 3 actions executed, 3 denoising steps."""
    return save_policy(tmp_path_factory.mktemp("base") / "policy")


@pytest.fixture(scope="session")
def flow_policy(tmp_path_factory) -> Path:
    """The same as a flow policy."""
    return save_policy(tmp_path_factory.mktemp("flow") / "policy", kind=RLFTFlowConfig)


@pytest.fixture(scope="session")
def demos(tmp_path_factory) -> Path:
    """Folder of a LeRobotDataset for Avoiding: 2 episodes of 20 random frames."""
    root = tmp_path_factory.mktemp("demos") / "avoiding"
    features = {key: {"dtype": "float32", "shape": (n,), "names": None} for key, n in OBSERVATIONS.items()}
    features["action"] = {"dtype": "float32", "shape": (2,), "names": None}
    random = np.random.default_rng(0)
    episodes = [
        {
            key: random.uniform(-0.01, 0.01, (20, *f["shape"])).astype(np.float32)
            for key, f in features.items()
        }
        for _ in range(2)
    ]
    write_dataset(root, "local/tiny", 28, "task", features, episodes, progress=False)
    return root


@pytest.fixture
def dppo_config(base_policy, tmp_path) -> Callable[..., TrainConfig]:
    """Makes the resolved config of a DPPO run of seconds; keywords replace whole fields."""

    def make(**fields) -> TrainConfig:
        policy = load_policy_config(str(fields.pop("policy", base_policy)), [])
        policy.pretrained_path = fields.pop("pretrained_path", base_policy)
        defaults = {
            "algorithm": DPPOConfig(update_epochs=1, minibatch_size=16, critic_hidden_dims=(8,)),
            "env": AvoidingEnvConfig(episode_length=8),
            "rollout": RolloutConfig(n_envs=2, n_episodes=4),
            "eval": EvalConfig(n_episodes=3, n_episodes_during=2, batch_size=2, n_videos=0),
            "iterations": 4,
            "eval_freq": 2,
            "save_freq": 2,
            "rollback": False,
            "output_dir": tmp_path / "run",
        }
        config = TrainConfig(policy=policy, **(defaults | fields))
        config.resolve()
        return config

    return make


@pytest.fixture
def bc_config(base_policy, demos, tmp_path) -> Callable[..., TrainConfig]:
    """Makes the resolved config of a behaviour cloning run of seconds; keywords replace whole fields."""

    def make(**fields) -> TrainConfig:
        defaults = {
            "algorithm": BCConfig(batch_size=16, ema_decay=0.9),
            "policy": DiffusionConfig(**TINY),
            "dataset": DatasetConfig(repo_id="local/tiny", root=demos),
            "iterations": 4,
            "save_freq": 2,
            "output_dir": tmp_path / "run",
        }
        config = TrainConfig(**(defaults | fields))
        config.resolve()
        return config

    return make


@pytest.fixture
def read_command(monkeypatch) -> Callable[..., TrainConfig]:
    """Reads the config that `lerobot-rlft-train` makes of these arguments."""

    def read(*arguments: str) -> TrainConfig:
        # LeRobot keeps what it found in YAML files for the life of the process.
        parser._config_path_args.clear()
        parser._config_yaml_overrides.clear()
        monkeypatch.setattr("sys.argv", ["lerobot-rlft-train", *map(str, arguments)])
        return read_config()

    yield read
    parser._config_path_args.clear()
    parser._config_yaml_overrides.clear()
