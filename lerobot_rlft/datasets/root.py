"""The folder of a dataset, looked at before LeRobot asks the Hub for what it lacks."""

import json
from pathlib import Path

INFO, TASKS, EPISODES = "meta/info.json", "meta/tasks.parquet", "meta/episodes"
# Left alone, it pushes what it converted.
CONVERTER = "python -m lerobot.scripts.convert_dataset_v21_to_v30 --push-to-hub=false"


def check_root(root: str | Path | None) -> None:
    """Check that a local dataset is whole and of today's format; None is not local.

    Raises:
        FileNotFoundError: there is no dataset, or it lacks a file.
        ValueError: `meta/info.json` is damaged, or of another format.
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
    try:
        info = json.loads((root / INFO).read_text())
        major = int(str(info["codebase_version"]).removeprefix("v").partition(".")[0])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{root / INFO} is damaged ({type(error).__name__}: {error}): copy or record the dataset again"
        ) from error
    if major < 3:
        raise ValueError(
            f"the dataset in {root} has format {info['codebase_version']}, LeRobot reads v3.0: run "
            f"`{CONVERTER} --repo-id=NAME --root={root}`"
        )
    for name in (TASKS, EPISODES):
        if not (root / name).exists():
            raise FileNotFoundError(f"the dataset in {root} lacks {name}: copy or record it again")
    if not any((root / "data").rglob("*.parquet")):
        raise FileNotFoundError(f"the dataset in {root} lacks its frames, data/*.parquet: copy it again")


def _is_dataset(folder: Path) -> bool:
    return (folder / INFO).is_file()
