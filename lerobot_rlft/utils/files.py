"""Files that are always whole, also when the process is killed or the disk fills up while it writes."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from .errors import StorageFailure, one_line


@contextmanager
def replacing(path: Path, exist_ok: bool = True) -> Iterator[Path]:
    """A path to write a file or folder to; it takes the place of `path` once the block ends without an error.

    Args:
        exist_ok: False leaves alone what another program put there meanwhile.

    Raises:
        StorageFailure: the system did not let it be written; nothing is left of it, `path` is as it was.
    """
    # Two programs that both make `path` do not write into each other's: the second is refused at the end.
    owner = "" if exist_ok else f"{os.getpid()}."
    # Keeps the suffix: matplotlib chooses the format by it.
    partial = path.with_name(f".partial.{owner}{path.name}")
    try:
        with explained(path):
            remove(partial)
            yield partial
            _sync(partial)
            if not exist_ok and path.exists():
                raise FileExistsError(errno.EEXIST, "another program made it meanwhile", str(path))
            _put(partial, path)
    except (Exception, KeyboardInterrupt):
        with suppress(OSError):  # of a folder that is gone or read-only
            remove(partial)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a file of text, in the place of what is there.

    Raises:
        StorageFailure: the system did not let it be written; `path` is as it was.
    """
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def make_folder(path: Path, exist_ok: bool = True, parents: bool = True) -> None:
    """Make a folder, in a way that a power cut leaves them there.

    Raises:
        StorageFailure: the system did not let it be made, or it is there and `exist_ok` is False.
    """
    with explained(path):
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=parents, exist_ok=exist_ok)
        for folder in missing:
            _sync_names(folder.parent)


def append(path: Path, line: str) -> None:
    """Append a line of text, which is on the disk then; after an error nothing of it is there.

    Raises:
        StorageFailure: the system did not let it be written.
    """
    with explained(path), path.open("ab", buffering=0) as file:
        size, rest = file.tell(), f"{line}\n".encode()
        try:
            while rest:  # the system takes what fits, and refuses only then
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        except OSError:
            with suppress(OSError):
                os.truncate(path, size)
            raise
        if not size:
            _sync_names(path.parent)


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
    if all(p.is_dir() and not p.is_symlink() for p in (partial, path)):
        remove(old)
        path.rename(old)
    partial.replace(path)
    _sync_names(path.parent)
    with suppress(OSError):
        remove(old)


def _sync(path: Path) -> None:
    """Have what was written reach the disk: else a power cut may keep the rename and lose the content."""
    if path.is_symlink():
        return
    if path.is_dir():
        for inside in path.iterdir():
            _sync(inside)
        _sync_names(path)
    elif path.exists():
        _sync_one(path)


def _sync_names(folder: Path) -> None:
    """The same for what a folder holds: for files that were made, renamed or deleted in it."""
    with suppress(OSError):  # some network file systems cannot
        _sync_one(folder)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
