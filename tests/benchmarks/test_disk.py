"""The failing disk of `make chaos`: each fault leaves what it says."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.disk import Disk, Lasting
from lerobot_rlft.utils.files import append, replacing, write_text

ROOT = Path(__file__).parents[2]
WRITE = """
import sys
from pathlib import Path
from benchmarks.disk import Disk
root, fault, at = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
Disk(root, fault, at, root.with_name("report")).install()
(root / "folder").mkdir()             # 1
with open(root / "file", "w") as f:   # 2
    f.write("12345678")               # 3, at the end of the block
(root / "file").rename(root / "new")  # 4
"""


def strike(root: Path, fault: str, at: int) -> subprocess.CompletedProcess:
    root.mkdir()
    (root / "old").write_text("old")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    command = [sys.executable, "-c", WRITE, str(root), fault, str(at)]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault, at, status, error, files",
    [
        ("", 0, 0, "", {"old": "old", "new": "12345678"}),
        ("kill", 3, -9, "", {"old": "old", "file": "1234"}),
        ("kill", 4, -9, "", {"old": "old", "file": "12345678"}),
        ("full", 3, 1, "No space left on device", {"old": "old", "file": "1234"}),
        ("power", 4, -9, "", {"old": "old"}),
        ("signal", 3, -signal.SIGINT, "KeyboardInterrupt", {"old": "old", "file": "12345678"}),
    ],
)
def test_a_fault_leaves(fault, at, status, error, files, tmp_path):
    done = strike(tmp_path / "disk", fault, at)
    assert (done.returncode, error in done.stderr) == (status, True)
    left = {path.name: path.read_text() for path in (tmp_path / "disk").iterdir() if path.is_file()}
    assert left == files
    if not fault:
        assert (tmp_path / "report").read_bytes() == b"...."


@pytest.fixture
def lasting(tmp_path, monkeypatch):
    """What lasts of a folder whose syncs are followed."""
    root = tmp_path / "disk"
    root.mkdir()
    (root / "old").write_text("old")
    made, sync = Lasting(root), os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (sync(descriptor), made.sync(descriptor)))
    return made


def texts(root: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in root.rglob("*") if path.is_file()}


def test_what_was_not_synced_is_lost(lasting):
    root = lasting.root
    (root / "unsynced").write_text("text")
    (root / "old").unlink()
    lasting.restore()
    assert texts(root) == {"old": "old"}


def test_a_name_without_content_is_an_empty_file(lasting):
    root = lasting.root
    (root / "new").write_text("text")
    (root / "old").rename(root / "renamed")
    folder = os.open(root, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)
    lasting.restore()
    assert texts(root) == {"new": "", "renamed": "old"}


def test_what_the_package_writes_lasts(lasting):
    root = lasting.root
    write_text(root / "old", "new")
    for line in "ab":
        append(root / "lines", line)
    with replacing(root / "folder") as partial:
        partial.mkdir()
        (partial / "inside").write_text("inside")
    with replacing(root / "last") as link:
        link.symlink_to("folder")
    lasting.restore()
    assert texts(root) == {"old": "new", "lines": "a\nb\n", "inside": "inside"}
    assert (root / "last").readlink().name == "folder"


def test_operations_elsewhere_do_not_count(tmp_path):
    disk = Disk(tmp_path, "full", 1, tmp_path.with_name("report"))
    disk.operation(tmp_path.with_name("elsewhere"), growing=True)
    assert disk.count == 0
    with pytest.raises(OSError, match="No space left"):
        disk.operation(tmp_path / "here", growing=True)
