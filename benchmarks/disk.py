"""A disk that fails: what Python writes below a folder is counted, and one operation meets a fault.

It stands between a command and the file system of its own process, as long as that lives:
`Disk(...).install()` in a forked child. Operations: opening a file to write, each write to it, safetensors
files, and making, renaming, linking, deleting, truncating and syncing. What C++ writes (the data of parquet
files) is not counted.
"""

import builtins
import errno
import io
import os
import shutil
import signal
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors
import safetensors.numpy
import safetensors.torch

FAULTS = ("kill", "full", "power", "signal")
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
NAMES = ("mkdir", "rename", "replace", "symlink", "link", "unlink", "remove", "rmdir", "truncate")
GROWING = ("mkdir", "symlink", "link")  # what a full disk refuses, beside opening and writing


class Disk:
    """Counts operations below `root`, and strikes at one of them.

    Args:
        root: a folder.
        fault: one of FAULTS, or "" to count only. kill: SIGKILL, a write is half done. full: that write and
            all after it have no space left. power: what was not synced is lost, then SIGKILL. signal: one of
            STOPS.
        at: number of the operation, 1 is the first.
        report: file outside `root` whose size in bytes is the count of operations.
    """

    def __init__(self, root: Path, fault: str, at: int, report: Path) -> None:
        self.root, self.fault, self.at = str(root.resolve()), fault, at
        self.count, self.full, self.open = 0, False, io.open
        self.report = os.open(report, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self.lasting = Lasting(root) if fault == "power" else None

    def install(self) -> None:
        disk, opened = self, self.open

        class File(io.FileIO):
            def write(self, data: Any) -> int:
                half = memoryview(data)[: len(data) // 2]
                disk.operation(self.name, growing=True, half=lambda: io.FileIO.write(self, half))
                return super().write(data)

        def open_(file: Any, mode: str = "r", buffering: int = -1, *args: Any, **kwargs: Any) -> Any:
            if isinstance(file, int) or not set(mode) & set("wax+") or not disk.covers(file):
                return opened(file, mode, buffering, *args, **kwargs)
            disk.operation(file, growing=True)
            raw: Any = File(file, mode.replace("b", "").replace("t", ""))
            if buffering == 0:
                return raw
            raw = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            if "b" in mode:
                return raw
            text = dict(zip(("encoding", "errors", "newline"), args, strict=False)) | kwargs
            return io.TextIOWrapper(raw, **text)

        io.open = builtins.open = open_
        for name in NAMES:
            setattr(
                os, name, self._counted(getattr(os, name), name in GROWING, from_second=name == "symlink")
            )
        sync = os.fsync

        def fsync(descriptor: int) -> None:
            self.operation(f"/proc/self/fd/{descriptor}", growing=False)
            sync(descriptor)
            if self.lasting is not None:
                self.lasting.sync(descriptor)

        os.fsync = fsync
        for module in (safetensors.torch, safetensors.numpy):
            module.serialize_file = self._safetensors(module.serialize_file)

    def covers(self, path: Any) -> bool:
        path = os.path.realpath(path) if str(path).startswith("/proc/self/fd/") else os.path.abspath(path)
        return os.fsdecode(path).startswith(self.root)

    def operation(self, path: Any, growing: bool, half: Callable[[], Any] | None = None) -> None:
        """Count one, and raise or stop where it meets the fault.

        Args:
            growing: whether it needs space.
            half: does half of the write.
        """
        if not self.covers(path):
            return
        self.count += 1
        os.write(self.report, b".")
        if self.full and growing:
            raise self._no_space(path)
        if self.count < self.at or not self.fault:
            return
        if self.fault == "full":
            if growing and not self.full:
                self.full = True
                if half is not None:
                    half()
                raise self._no_space(path)
        elif self.count == self.at:
            if self.fault == "signal":
                os.kill(os.getpid(), STOPS[self.at % len(STOPS)])
                return
            if half is not None:
                half()
            if self.lasting is not None:
                self.lasting.restore()
            os.kill(os.getpid(), signal.SIGKILL)

    def _no_space(self, path: Any) -> OSError:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fsdecode(path))

    def _counted(self, function: Callable, growing: bool, from_second: bool) -> Callable:
        def counted(*args: Any, dir_fd: int | None = None, **kwargs: Any) -> Any:
            path = os.fsdecode(args[1] if from_second else args[0])
            if dir_fd is not None:
                kwargs["dir_fd"] = dir_fd
                path = os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), path)
            self.operation(path, growing)
            return function(*args, **kwargs)

        return counted

    def _safetensors(self, serialize_file: Callable) -> Callable:
        def counted(tensors: Any, filename: Any, metadata: Any = None) -> None:
            def half() -> None:
                data = safetensors.serialize(tensors, metadata)
                with self.open(filename, "wb") as file:
                    file.write(data[: len(data) // 2])

            try:
                self.operation(filename, growing=True, half=half)
            except OSError as error:
                said = f"I/O error: {error.strerror} (os error {error.errno})"
                raise safetensors.SafetensorError(f"Error while serializing: {said}") from None
            serialize_file(tensors, filename, metadata)

        return counted


class Lasting:
    """What a power cut leaves below a folder: content and names as they were last synced; all that is there
    at first.

    A file whose name was synced and not its content is there, and empty. Every inode is kept open, so that no
    new file takes its number.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.content: dict[int, bytes] = {}
        self.names: dict[int, dict[str, tuple[int, str | None]]] = {}
        self.pinned: set[int] = set()
        for folder, _, files in os.walk(root):
            self._names(folder)
            for name in files:
                path = Path(folder, name)
                if path.is_file() and not path.is_symlink():
                    self.content[path.stat().st_ino] = path.read_bytes()

    def sync(self, descriptor: int) -> None:
        number, place = os.fstat(descriptor), f"/proc/self/fd/{descriptor}"
        if stat.S_ISDIR(number.st_mode):
            self._names(os.readlink(place))
        elif stat.S_ISREG(number.st_mode):
            self.content[number.st_ino] = Path(place).read_bytes()
            self._pin(number.st_ino, place)

    def restore(self) -> None:
        """Leave of the folder what lasts."""
        number = self.root.stat().st_ino
        for path in list(self.root.iterdir()):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        self._restore(self.root, number)

    def _restore(self, folder: Path, number: int) -> None:
        for name, (inside, target) in self.names.get(number, {}).items():
            path = folder / name
            if target == "":
                path.mkdir()
                self._restore(path, inside)
            elif target is not None:
                path.symlink_to(target)
            else:
                path.write_bytes(self.content.get(inside, b""))

    def _names(self, folder: str) -> None:
        """Read the names in a folder: inode, and None for a file, "" for a folder, else a link's target."""
        names: dict[str, tuple[int, str | None]] = {}
        for entry in os.scandir(folder):
            if entry.is_symlink():
                names[entry.name] = entry.inode(), os.readlink(entry.path)
            else:
                names[entry.name] = entry.inode(), "" if entry.is_dir() else None
            self._pin(entry.inode(), entry.path)
        self.names[os.stat(folder).st_ino] = names

    def _pin(self, number: int, path: str) -> None:
        if number not in self.pinned:
            self.pinned.add(number)
            flags = 0 if path.startswith("/proc/") else os.O_NOFOLLOW
            os.open(path, os.O_PATH | flags)
