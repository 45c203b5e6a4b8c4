"""Files that are always whole, also when the process is killed or the disk fills up while it writes."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from .errors import StorageFailure, one_line


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write a file or folder to; it takes the place of `path` once the block ends without an error.

    Raises:
        StorageFailure: the system did not let it be written; nothing is left of it, `path` is as it was.
    """
    partial = path.with_name(f".partial.{path.name}")  # keeps the suffix: matplotlib chooses the format by it
    try:
        with explained(path):
            remove(partial)
            yield partial
            _sync(partial)
            _put(partial, path)
    except (Exception, KeyboardInterrupt):
        with suppress(OSError):  # of a folder that is gone or read-only
            remove(partial)
        raise


def append(path: Path, line: str) -> None:
    """Append a line of text; after an error nothing of it is there.

    Raises:
        StorageFailure: the system did not let it be written.
    """
    with explained(path), path.open("ab", buffering=0) as file:
        size, rest = file.tell(), f"{line}\n".encode()
        try:
            while rest:  # the system takes what fits, and refuses only then
                rest = rest[file.write(rest) :]
        except OSError:
            with suppress(OSError):
                os.truncate(path, size)
            raise


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Tell an error of the file system as a StorageFailure that names what was being written."""
    try:
        yield
    except (ConnectionError, TimeoutError):
        raise
    except (OSError, SafetensorError) as error:
        if isinstance(error, OSError) and error.errno is None:  # not the system's, but a library's
            raise
        raise StorageFailure(f"{path} cannot be written ({one_line(error)})") from error


def remove(path: Path) -> None:
    """Delete a file, link or folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _put(partial: Path, path: Path) -> None:
    """Rename; a folder that is in the way leaves only once the new one is there."""
    old = path.with_name(f".partial.old.{path.name}")
    if partial.is_dir() and path.is_dir():
        remove(old)
        path.rename(old)
    partial.replace(path)
    with suppress(OSError):  # some network file systems cannot
        _sync_one(path.parent)
    with suppress(OSError):
        remove(old)


def _sync(path: Path) -> None:
    """Have what was written reach the disk: else a power cut may keep the rename and lose the content."""
    if path.is_symlink():
        return
    if path.is_dir():
        for inside in path.iterdir():
            _sync(inside)
        with suppress(OSError):
            _sync_one(path)
    elif path.exists():
        _sync_one(path)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
