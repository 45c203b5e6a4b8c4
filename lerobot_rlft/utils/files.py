"""Files that are always whole, also when the process is killed while it writes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to; it takes the place of `path` once the block ends without an error."""
    partial = path.with_name(f".partial.{path.name}")  # keeps the suffix: matplotlib chooses the format by it
    yield partial
    partial.replace(path)
