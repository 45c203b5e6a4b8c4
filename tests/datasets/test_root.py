"""What is said of a dataset that is not whole."""

import json
import shutil

import pytest
from datasets.exceptions import DatasetGenerationError
from httpx import ConnectError
from lerobot.datasets import LeRobotDataset
from pyarrow import ArrowInvalid, parquet

from lerobot_rlft.datasets import root as module
from lerobot_rlft.datasets.root import check_root, opening

DATA = "data/chunk-000/file-000.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"


def without(file, column):
    parquet.write_table(parquet.read_table(file).drop_columns([column]), file)


def first(file, count):
    parquet.write_table(parquet.read_table(file)[:count], file)


def info(root, **entries):
    file = root / "meta/info.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda root: (root / "meta/info.json").write_text(""), r"info\.json is damaged"),
        (lambda root: (root / "meta/info.json").write_text("[]"), r"info\.json is damaged"),
        (
            lambda root: (root / "meta/info.json").write_text(json.dumps({"codebase_version": "v2.1"})),
            r"format v2\.1, .*convert_dataset_v21_to_v30",
        ),
        (lambda root: (root / "meta/info.json").unlink(), r"holds no meta/info\.json"),
        (lambda root: (root / "meta/tasks.parquet").unlink(), r"lacks meta/tasks\.parquet"),
        (lambda root: shutil.rmtree(root / "meta/episodes"), "lacks meta/episodes"),
        (lambda root: shutil.rmtree(root / "data"), "lacks its frames"),
        (lambda root: (root / DATA).write_bytes(b"PAR1"), r"file-000\.parquet is damaged \(Arrow"),
        (lambda root: without(root / DATA, "action"), r"file-000\.parquet is damaged \(it lacks action"),
        (lambda root: without(root / EPISODES, "dataset_to_index"), "it lacks dataset_to_index"),
        (lambda root: first(root / EPISODES, 0), r"file-000\.parquet is damaged \(it has no rows"),
        (lambda root: first(root / EPISODES, 1), r"it has 1 episodes, and meta/info\.json says 2"),
        (lambda root: (root / EPISODES).unlink(), "episodes is damaged"),
        (lambda root: (root / "meta/stats.json").write_text("null"), r"stats\.json is damaged"),
        (lambda root: (root / "meta/stats.json").unlink(), r"lacks meta/stats\.json"),
        (lambda root: info(root, total_tasks=-1), "total_tasks is -1"),
        (lambda root: info(root, fps=float("nan")), "fps is nan"),
        (lambda root: info(root, total_episodes="2"), "total_episodes is '2'"),
        (lambda root: info(root, features=[1]), "features: "),
    ],
)
def test_a_dataset_that_is_not_whole(damage, message, demos, tmp_path):
    root = shutil.copytree(demos, tmp_path / "demos")
    check_root(root)
    damage(root)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        check_root(root)


def broken(*args):
    try:
        raise ArrowInvalid("no footer")
    except ArrowInvalid as error:
        raise DatasetGenerationError("An error occurred") from error


def test_what_libraries_raise_at_broken_content(demos, tmp_path, monkeypatch):
    with (
        pytest.raises(
            ValueError, match=rf"the dataset in {demos} cannot be read \(ArrowInvalid: no footer\)"
        ),
        opening("local/tiny", demos),
    ):
        broken()
    monkeypatch.setattr(module, "HF_LEROBOT_HOME", tmp_path)
    answer = r"'user/name' of the Hub .*no footer.* delete that in .*hub"
    with pytest.raises(ValueError, match=answer), opening("user/name", None):
        broken()
    with pytest.raises(ConnectError), opening("user/name", None):
        raise ConnectError("no network")


def test_frames_that_a_folder_lacks_are_not_a_matter_of_the_network(demos, tmp_path, monkeypatch):
    root = shutil.copytree(demos, tmp_path / "user/name")
    first(root / DATA, 1)
    monkeypatch.setattr(module, "HF_LEROBOT_HOME", tmp_path)

    def unreachable(*args, **kwargs):
        raise ConnectError("no network")

    monkeypatch.setattr(LeRobotDataset, "__init__", unreachable)
    for place in (root, None):  # None finds it in LeRobot's own folder
        answer = rf"{root} lacks frames or videos .*in vain .*no network"
        with pytest.raises(ValueError, match=answer), opening("user/name", place):
            LeRobotDataset("user/name", place)
