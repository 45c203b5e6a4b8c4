"""The folder of a dataset, looked at before LeRobot asks the Hub for what it lacks."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from httpx import HTTPError
from lerobot.utils.constants import HF_LEROBOT_HOME, HF_LEROBOT_HUB_CACHE
from pyarrow import ArrowException
from pyarrow.parquet import read_metadata

from ..utils.errors import one_line

INFO, STATS, TASKS, EPISODES = "meta/info.json", "meta/stats.json", "meta/tasks.parquet", "meta/episodes"
# Left alone, it pushes what it converted.
CONVERTER = "python -m lerobot.scripts.convert_dataset_v21_to_v30 --push-to-hub=false"
COUNTS = ("total_episodes", "total_frames", "total_tasks", "fps")  # entries of info.json that are read


@contextmanager
def opening(repo_id: str, root: str | Path | None) -> Iterator[None]:
    """Check the dataset, then open it inside; what LeRobot and its libraries raise becomes a sentence.

    Args:
        root: folder of the dataset; None means LeRobot's folder of that name, or the Hub.

    Raises:
        FileNotFoundError, ValueError: see `check_root`, or it cannot be read.
        HTTPError, OSError: of a dataset on the Hub.
    """
    if root is None and _is_dataset(HF_LEROBOT_HOME / repo_id):
        root = HF_LEROBOT_HOME / repo_id
    check_root(root)
    try:
        yield
    except (HTTPError, OSError) as error:
        if root is None:
            raise
        raise ValueError(
            f"the dataset in {root} lacks frames or videos of its episodes, and the Hub was asked for them "
            f"in vain ({one_line(error)}): copy or record it again"
        ) from error
    except Exception as error:  # whatever pyarrow, pandas and datasets raise at broken files
        reason = one_line(error.__cause__ or error)
        if root is not None:
            raise ValueError(
                f"the dataset in {root} cannot be read ({reason}): copy or record it again"
            ) from error
        raise ValueError(
            f"dataset {repo_id!r} of the Hub cannot be read ({reason}): if its format is older than v3.0, "
            f"run `{CONVERTER} --repo-id={repo_id}`; if its copy is broken, delete that in "
            f"{HF_LEROBOT_HUB_CACHE}"
        ) from error


def check_root(root: str | Path | None) -> None:
    """Check that a local dataset is whole and of today's format; None is not local.

    Raises:
        FileNotFoundError: there is no dataset, or it lacks a file.
        ValueError: a file is damaged, or of another format.
    """
    if root is None:
        return
    root = Path(root)
    if not _is_dataset(root):
        folders = sorted(str(p) for p in root.parent.glob("*") if _is_dataset(p))
        raise FileNotFoundError(
            f"dataset root={str(root)!r} holds no meta/info.json: give the folder of a LeRobot dataset, or "
            f"root=None for the cache and the Hub; datasets next to it: {folders}"
        )
    info = _json(root / INFO)
    try:
        major = int(str(info["codebase_version"]).removeprefix("v").partition(".")[0])
    except (ValueError, KeyError) as error:
        raise _damaged(root / INFO, one_line(error)) from error
    if major < 3:
        raise ValueError(
            f"the dataset in {root} has format {info['codebase_version']}, LeRobot reads v3.0: run "
            f"`{CONVERTER} --repo-id=NAME --root={root}`"
        )
    for name in COUNTS:
        value = info.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise _damaged(root / INFO, f"{name} is {value!r:.40}")
    for name in (STATS, TASKS, EPISODES):
        if not (root / name).exists():
            raise FileNotFoundError(f"the dataset in {root} lacks {name}: copy or record it again")
    if not _json(root / STATS):
        raise _damaged(root / STATS, "it is empty")
    _rows([root / TASKS])
    episodes = _rows(sorted((root / EPISODES).rglob("*.parquet")), "dataset_from_index", "dataset_to_index")
    if episodes != (total := info["total_episodes"]):
        raise _damaged(root / EPISODES, f"it has {episodes} episodes, and {INFO} says {total}")
    frames = sorted((root / "data").rglob("*.parquet"))
    if not frames:
        raise FileNotFoundError(f"the dataset in {root} lacks its frames, data/*.parquet: copy it again")
    try:
        columns = [name for name, feature in info["features"].items() if feature["dtype"] != "video"]
    except (KeyError, TypeError, AttributeError) as error:
        raise _damaged(root / INFO, f"features: {one_line(error)}") from error
    _rows(frames, *columns)


def _rows(files: list[Path], *columns: str) -> int:
    """Number of rows of parquet files together, read off their ends.

    Raises:
        ValueError: one cannot be read or lacks a column, or there are no rows.
    """
    count = 0
    for file in files:
        try:
            metadata = read_metadata(file)
        except (OSError, ArrowException) as error:
            raise _damaged(file, one_line(error)) from error
        names = set(metadata.schema.to_arrow_schema().names)
        if missing := [name for name in columns if name not in names]:
            raise _damaged(file, f"it lacks {', '.join(missing)}")
        count += metadata.num_rows
    if not count:
        raise _damaged(files[0] if files else Path(EPISODES), "it has no rows")
    return count


def _json(file: Path) -> dict[str, Any]:
    """Raises a ValueError unless the file holds an object."""
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(file, one_line(error)) from error
    if not isinstance(content, dict):
        raise _damaged(file, f"it holds a {type(content).__name__}")
    return content


def _damaged(file: Path, reason: str) -> ValueError:
    return ValueError(f"{file} is damaged ({reason}): copy or record the dataset again")


def _is_dataset(folder: Path) -> bool:
    return (folder / INFO).is_file()
