"""What two runs must have in common to be called equal."""

import json
from pathlib import Path

from lerobot_rlft.utils.run_folder import METRICS


class Killed(BaseException):
    """Stands for a kill: nothing in the code under test may handle it."""


def metrics(run: Path, kind: str | None = None) -> list[dict]:
    """Lines of metrics.jsonl without what the clock says."""
    lines = [json.loads(line) for line in (run / METRICS).read_text().splitlines()]
    return [
        {name: value for name, value in line.items() if name != "seconds"}
        for line in lines
        if kind in (None, line["kind"])
    ]


def contents(checkpoint: Path) -> dict[str, object]:
    """All files of a checkpoint, without clock and paths."""
    files: dict[str, object] = {
        str(path.relative_to(checkpoint)): path.read_bytes()
        for path in sorted(checkpoint.rglob("*"))
        if path.is_file() and path.suffix != ".yaml"
    }
    state = json.loads(files.pop("training_state/state.json"))
    return files | {"state": {k: v for k, v in state.items() if k not in ("seconds", "metrics_bytes")}}
