"""What is said of a dataset that is not whole."""

import json
import shutil

import pytest

from lerobot_rlft.datasets.root import check_root


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
    ],
)
def test_a_dataset_that_is_not_whole(damage, message, demos, tmp_path):
    root = shutil.copytree(demos, tmp_path / "demos")
    check_root(root)
    damage(root)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        check_root(root)
