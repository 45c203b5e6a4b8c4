"""What is left where the system does not let a file be written."""

import os
import resource
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import save_file

from lerobot_rlft.utils.errors import StorageFailure
from lerobot_rlft.utils.files import append, make_folder, replacing, write_text


@contextmanager
def largest_file(size: int):
    """No file may grow beyond `size` bytes."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_bytes(bytes(10_000)),
        lambda path: save_file({"weights": torch.zeros(10_000)}, path),
    ],
)
def test_a_file_that_does_not_fit_leaves_the_old_one(write, tmp_path):
    file = tmp_path / "weights"
    file.write_text("old")
    refused = pytest.raises(StorageFailure, match=r"weights cannot be written .*File too large")
    with largest_file(1000), refused, replacing(file) as partial:
        write(partial)
    assert list(tmp_path.iterdir()) == [file] and file.read_text() == "old"


def test_a_line_that_does_not_fit_leaves_no_half_of_it(tmp_path):
    file = tmp_path / "metrics.jsonl"
    append(file, "first")
    with largest_file(10), pytest.raises(StorageFailure, match=r"metrics\.jsonl cannot be written"):
        append(file, "a longer line")
    append(file, "last")
    assert file.read_text() == "first\nlast\n"


def test_a_folder_takes_the_place_of_another(tmp_path):
    folder = tmp_path / "checkpoint"
    for content in ("old", "new"):
        with replacing(folder) as partial:
            partial.mkdir()
            (partial / content).touch()
    assert list(tmp_path.rglob("*")) == [folder, folder / "new"]


def test_a_folder_that_is_gone(tmp_path):
    missing = pytest.raises(StorageFailure, match="No such file or directory")
    with missing, replacing(tmp_path / "gone" / "file") as partial:
        partial.touch()
    with pytest.raises(StorageFailure, match="No such file or directory"):
        append(tmp_path / "gone" / "file", "line")


def test_an_error_of_the_block_is_its_own(tmp_path):
    with pytest.raises(KeyError), replacing(tmp_path / "file") as partial:
        partial.touch()
        raise KeyError
    assert not list(tmp_path.iterdir())


def test_what_another_program_made_meanwhile_is_left_alone(tmp_path):
    folder = tmp_path / "report"
    with pytest.raises(StorageFailure, match="made it meanwhile"), replacing(folder, exist_ok=False) as first:
        first.mkdir()
        with replacing(folder, exist_ok=True) as second:
            second.mkdir()
            (second / "of another").touch()
        assert first.is_dir()  # both have a place of their own
    assert list(tmp_path.rglob("*")) == [folder, folder / "of another"]


def test_a_link_to_a_folder_is_never_away(tmp_path, monkeypatch):
    """Between two renames a kill would leave none."""
    for name in ("1", "2"):
        (tmp_path / name).mkdir()
    (tmp_path / "last").symlink_to("1")
    monkeypatch.setattr("pathlib.Path.rename", lambda *_: pytest.fail("moved away"))
    with replacing(tmp_path / "last") as partial:
        partial.symlink_to("2")
    assert (tmp_path / "last").readlink().name == "2"


@pytest.mark.parametrize(
    "write", [lambda path: append(path, "line"), lambda path: write_text(path, "line\n")]
)
def test_content_and_name_of_a_new_file_reach_the_disk(write, tmp_path, monkeypatch):
    synced, sync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: (synced.append(os.fstat(number).st_ino), sync(number)))
    write(tmp_path / "file")
    inodes = [path.stat().st_ino for path in (tmp_path / "file", tmp_path)]
    assert synced == inodes and (tmp_path / "file").read_text() == "line\n"


def test_a_folder_that_is_made_with_its_parents_stays_after_a_power_cut(tmp_path, monkeypatch):
    synced, sync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: (synced.append(os.fstat(number).st_ino), sync(number)))
    for _ in range(2):
        make_folder(tmp_path / "a" / "b")
    assert sorted(synced) == sorted(path.stat().st_ino for path in (tmp_path, tmp_path / "a"))
    with pytest.raises(StorageFailure, match="exists"):
        make_folder(tmp_path / "a", exist_ok=False)
