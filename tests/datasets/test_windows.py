import json

import numpy as np
import pytest
import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.configs.default import DatasetConfig
from lerobot.configs.train import TrainPipelineConfig
from lerobot.datasets import EpisodeAwareSampler, LeRobotDataset, LeRobotDatasetMetadata
from lerobot.datasets.factory import make_dataset, resolve_delta_timestamps
from lerobot.policies import make_policy, make_pre_post_processors
from lerobot.policies.act.configuration_act import ACTConfig
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
from torch.utils.data import default_collate

from lerobot_rlft.datasets.loader import BatchLoader, make_loader
from lerobot_rlft.datasets.windows import ChunkDataset, DecodedDataset, start_indices

LENGTHS = (
    5,
    12,
    3,
    20,
    9,
)  # frames per episode; the third is too short for any window
REPO_ID = "local/data_test"
FEATURES = {
    "observation.state": {"dtype": "float32", "shape": (4,), "names": None},
    "observation.environment_state": {"dtype": "float64", "shape": (3,), "names": None},
    "action": {"dtype": "float32", "shape": (2,), "names": None},
    "next.reward": {"dtype": "float32", "shape": (1,), "names": None},
    "next.done": {"dtype": "bool", "shape": (1,), "names": None},
    "next.success": {"dtype": "bool", "shape": (1,), "names": None},
    "contacts": {"dtype": "float32", "shape": (2, 3), "names": None},
    "mode": {"dtype": "int32", "shape": (1,), "names": None},
}
CAMERA = {
    "observation.image": {"dtype": "image", "shape": (16, 16, 3), "names": ["height", "width", "channels"]}
}


def write_dataset(root, lengths=LENGTHS, features=FEATURES, spoil=None):
    """Write random episodes; `spoil` = (feature, episode, frame) gets one NaN."""
    rng = np.random.default_rng(0)
    dataset = LeRobotDataset.create(REPO_ID, fps=28, features=features, root=root, use_videos=False)
    for episode, length in enumerate(lengths):
        for frame in range(length):
            values = {
                key: rng.integers(0, 256, feature["shape"]).astype("uint8")
                if feature["dtype"] == "image"
                else (rng.standard_normal(feature["shape"]) * 9).astype(feature["dtype"])
                for key, feature in features.items()
            }
            if spoil and spoil[1:] == (episode, frame):
                values[spoil[0]][-1] = np.nan
            dataset.add_frame({**values, "task": f"task {episode % 2}"})
        dataset.save_episode()
    dataset.finalize()
    return root


def diffusion_config(**kwargs):
    return DiffusionConfig(
        n_obs_steps=2,
        horizon=8,
        n_action_steps=4,
        drop_n_last_frames=3,
        down_dims=(8, 16),
        diffusion_step_embed_dim=8,
        n_groups=4,
        num_train_timesteps=5,
        device="cpu",
        push_to_hub=False,
        **kwargs,
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data") / "states")


@pytest.fixture(scope="module")
def image_root(tmp_path_factory):
    features = {key: FEATURES[key] for key in ("observation.state", "action")} | CAMERA
    return write_dataset(tmp_path_factory.mktemp("data") / "images", lengths=(6, 9), features=features)


def open_stock(root, episodes=None):
    deltas = resolve_delta_timestamps(diffusion_config(), LeRobotDatasetMetadata(REPO_ID, root))
    return LeRobotDataset(REPO_ID, root, episodes=episodes, delta_timestamps=deltas)


@pytest.fixture(scope="module")
def stock(root):
    return open_stock(root)


@pytest.fixture(scope="module")
def image_stock(image_root):
    return open_stock(image_root)


@pytest.fixture(scope="module")
def chunks(stock):
    return ChunkDataset(stock, stock.delta_timestamps)


def stock_sampler(dataset, seed=0):
    return EpisodeAwareSampler(
        dataset.meta.episodes["dataset_from_index"],
        dataset.meta.episodes["dataset_to_index"],
        episode_indices_to_use=dataset.episodes,
        drop_n_last_frames=3,
        shuffle=True,
        seed=seed,
        absolute_to_relative_idx=dataset.absolute_to_relative_idx,
    )


def assert_same(ours, stock):
    assert ours.keys() == stock.keys()
    for key, expected in stock.items():
        if isinstance(expected, torch.Tensor):
            assert ours[key].dtype == expected.dtype, key
            assert ours[key].shape == expected.shape, key
            assert torch.equal(ours[key], expected), key
        else:
            assert ours[key] == expected, key


@pytest.mark.parametrize("episodes", [None, [3, 0]])
def test_every_window_equals_stock(root, episodes):
    dataset = open_stock(root, episodes)
    chunks = ChunkDataset(dataset, dataset.delta_timestamps)
    assert len(chunks) == len(dataset) == sum(LENGTHS[e] for e in episodes or range(len(LENGTHS)))
    everything = torch.arange(len(dataset))
    assert_same(chunks.batch(everything), default_collate([dataset[i] for i in everything.tolist()]))


def test_window_hand_computed(chunks):
    """Frame 1 of episode 2 (3 frames, rows 17..19): actions at -1..6 are rows 17 to 19, then padding."""
    batch = chunks.batch(torch.tensor([18]))
    assert torch.equal(batch["action"][0], chunks.columns["action"][[17, 18, 19, 19, 19, 19, 19, 19]])
    assert batch["action_is_pad"].tolist() == [[False] * 3 + [True] * 5]
    assert batch["observation.state"].shape == (1, 2, 4)
    assert batch["task"] == ["task 0"]


def test_other_windows_equal_stock(root):
    """Offline RL asks for other windows than a policy: scalars, tables, one offset, far offsets."""
    deltas = {
        "next.reward": [0, 1 / 28],
        "next.done": [0.0],
        "contacts": [-1 / 28, 0],
        "mode": [25 / 28],
        "index": [0],
    }
    dataset = LeRobotDataset(REPO_ID, root, delta_timestamps=deltas)
    everything = torch.arange(len(dataset))
    stock = default_collate([dataset[i] for i in everything.tolist()])
    assert_same(ChunkDataset(dataset, deltas).batch(everything), stock)
    assert stock["mode"].shape == (len(dataset), 1)  # a single offset keeps its dimension


def test_make_loader_draws_in_stock_order_over_epochs(root):
    loader = make_loader(REPO_ID, diffusion_config(), root=root, episodes=[1, 2, 4], batch_size=7, seed=11)
    sampler = stock_sampler(open_stock(root, [1, 2, 4]), seed=11)
    for _ in range(2):
        for rows in torch.tensor(list(sampler)).split(7):
            assert_same(next(loader), loader.dataset.batch(rows))
    assert loader.state_dict() == {"seed": 11, "epoch": 2, "position": 0, "num_starts": 15}


def test_epoch_covers_every_start_once(stock, chunks):
    loader = BatchLoader(chunks, start_indices(stock, diffusion_config()), batch_size=4)
    admissible = [(episode, frame) for episode, length in enumerate(LENGTHS) for frame in range(length - 3)]
    for _ in range(3):
        batches = [next(loader) for _ in range(-(-len(admissible) // 4))]
        seen = [
            pair
            for batch in batches
            for pair in zip(batch["episode_index"].tolist(), batch["frame_index"].tolist(), strict=True)
        ]
        assert sorted(seen) == admissible
        assert seen != admissible
        assert [len(batch["index"]) for batch in batches] == [4] * 8 + [2]


def test_policy_without_drop_n_last_frames_draws_every_frame(stock):
    assert start_indices(stock, ACTConfig(device="cpu")).tolist() == list(range(sum(LENGTHS)))


def test_loss_equals_stock(stock, chunks):
    config = diffusion_config()
    torch.manual_seed(0)
    policy = make_policy(config, ds_meta=chunks.meta)
    preprocess, _ = make_pre_post_processors(config, dataset_stats=chunks.meta.stats)
    rows = list(stock_sampler(stock))[:16]
    losses = []
    for batch in (default_collate([stock[i] for i in rows]), chunks.batch(torch.tensor(rows))):
        torch.manual_seed(1)
        losses.append(policy(preprocess(batch))[0].item())
    assert losses[0] == losses[1]


def test_images_go_through_stock(image_root, image_stock):
    loader = make_loader(REPO_ID, diffusion_config(), root=image_root, batch_size=5, seed=3)
    assert isinstance(loader.dataset, DecodedDataset)
    for rows in torch.tensor(list(stock_sampler(image_stock, seed=3))).split(5):
        batch = next(loader)
        assert_same(batch, default_collate([image_stock[i] for i in rows.tolist()]))
        assert_same(batch, loader.dataset.batch(rows))
    assert batch["observation.image"].shape[1:] == (2, 3, 16, 16)


def test_camera_stats_are_those_of_stock(image_root):
    config = diffusion_config()
    ours = make_loader(REPO_ID, config, root=image_root, batch_size=5).dataset.meta.stats
    stock_config = TrainPipelineConfig(DatasetConfig(REPO_ID, root=str(image_root)), policy=config)
    stock = make_dataset(stock_config).meta.stats
    for feature in ("observation.image", "observation.state"):
        assert ours[feature].keys() == stock[feature].keys()
        for name, value in stock[feature].items():
            np.testing.assert_array_equal(ours[feature][name], value)


@pytest.mark.parametrize("kind", [ChunkDataset, DecodedDataset])
def test_resume_is_exact(kind, stock, image_stock):
    dataset = ChunkDataset(stock, stock.delta_timestamps) if kind is ChunkDataset else kind(image_stock)
    starts = torch.arange(11)
    loader = BatchLoader(dataset, starts, batch_size=4, seed=5)
    for _ in range(5):  # into the second epoch
        next(loader)
    state = json.loads(json.dumps(loader.state_dict()))
    assert state == {"seed": 5, "epoch": 1, "position": 8, "num_starts": 11}
    expected = [next(loader) for _ in range(4)]
    for resumed in (BatchLoader(dataset, starts, batch_size=4), loader):
        resumed.load_state_dict(state)
        for batch in expected:
            assert_same(next(resumed), batch)


def test_loading_leaves_the_global_generator_alone(image_stock):
    before = torch.get_rng_state()
    next(BatchLoader(DecodedDataset(image_stock), torch.arange(4), batch_size=2))
    assert torch.equal(torch.get_rng_state(), before)


def test_state_of_other_data_is_refused(chunks):
    state = BatchLoader(chunks, torch.arange(34), batch_size=4).state_dict()
    with pytest.raises(ValueError, match="num_starts is 34 in the state and 9 in this loader"):
        BatchLoader(chunks, torch.arange(9), batch_size=4).load_state_dict(state)


def test_missing_root_names_the_neighbours(root):
    with pytest.raises(FileNotFoundError, match=r"stat'.*meta/info.json.*next to it: \['.*states'"):
        make_loader(REPO_ID, diffusion_config(), root=root.parent / "stat", batch_size=4)
    assert not (root.parent / "stat").exists()


def test_batch_size_is_at_least_one(chunks):
    with pytest.raises(ValueError, match="batch_size=0 must be at least 1"):
        BatchLoader(chunks, torch.arange(4), batch_size=0)


@pytest.mark.parametrize("episodes", [[], [0, 5]])
def test_unknown_episodes(root, episodes):
    with pytest.raises(ValueError, match=r"episodes=\[.*choose from 0..4"):
        make_loader(REPO_ID, diffusion_config(), root=root, episodes=episodes, batch_size=4)


def test_no_admissible_window(root, chunks):
    with pytest.raises(ValueError, match=r"drop_n_last_frames=3, the longest selected episode has 3 frames"):
        start_indices(open_stock(root, [2]), diffusion_config())
    with pytest.raises(ValueError, match="starts is empty"):
        BatchLoader(chunks, torch.arange(0), batch_size=4)


def test_missing_feature_lists_what_there_is(root):
    config = diffusion_config(input_features={"observation.gripper": PolicyFeature(FeatureType.STATE, (1,))})
    with pytest.raises(ValueError, match=r"needs \['observation.gripper'\].*it has .*observation.state"):
        make_loader(REPO_ID, config, root=root, batch_size=4)


def test_cameras_may_be_fewer_than_declared_but_not_none(root, image_root):
    cameras = {f"observation.image{n}": PolicyFeature(FeatureType.VISUAL, (3, 16, 16)) for n in ("", "2")}
    config = diffusion_config(input_features=cameras)
    make_loader(REPO_ID, config, root=image_root, batch_size=4)
    with pytest.raises(ValueError, match=r"needs \['observation.image', 'observation.image2'\]"):
        make_loader(REPO_ID, config, root=root, batch_size=4)


@pytest.mark.parametrize("kind", [lambda dataset: ChunkDataset(dataset, None), DecodedDataset])
def test_nan_names_feature_and_first_frame(tmp_path, kind):
    features = {key: FEATURES[key] for key in ("observation.state", "action")}
    features |= CAMERA if kind is DecodedDataset else {}
    write_dataset(tmp_path / "nan", (6, 7), features, spoil=("observation.state", 1, 2))
    with pytest.raises(ValueError, match=r"'observation.state'.*NaN or inf, first in episode 1 at frame 2"):
        kind(LeRobotDataset(REPO_ID, tmp_path / "nan"))
    kind(LeRobotDataset(REPO_ID, tmp_path / "nan", episodes=[0]))


def test_chunk_dataset_refuses_what_it_cannot_hold(stock, image_stock):
    with pytest.raises(ValueError, match=r"use DecodedDataset.*'observation.image': 'image'"):
        ChunkDataset(image_stock, None)
    with pytest.raises(ValueError, match=r"unknown \['rewards'\], choose from .*'next.reward'"):
        ChunkDataset(stock, {"rewards": [0.0]})
