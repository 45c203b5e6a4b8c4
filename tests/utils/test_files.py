"""What is left where the system does not let a file be written."""

import resource
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import save_file

from lerobot_rlft.utils.errors import StorageFailure
from lerobot_rlft.utils.files import append, replacing


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
