"""`advantages/NAME.parquet`: what a round decided about each frame of a dataset, to look at and to correct.

One row for each frame: index, episode_index, frame_index (of the dataset), dataset (its fingerprint), success
(1, 0 or NaN), mode, return, value, advantage (NaN where there is none), label ("positive", "negative" or
"unknown") and weight (how often it is seen, 0 = never). The refit reads label and weight.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from ..policies.conditioning import LABELS
from ..utils.errors import UserError, one_line
from ..utils.files import make_folder, replacing
from .recorded import Recorded

READ = ("index", "dataset", "label", "weight")


def write_sidecar(path: Path, data: Recorded, columns: dict[str, np.ndarray]) -> None:
    """Write the table of one dataset.

    Args:
        columns: return, value, advantage, label (int of `LABELS`) and weight, (F,) each.
    """
    table = pd.DataFrame(
        {
            "index": data.index,
            "episode_index": data.episode_index,
            "frame_index": data.frame_index,
            "dataset": pd.Categorical([data.fingerprint] * len(data.index)),
            "success": data.success[data.episode],
            "mode": data.mode[data.episode],
            **columns,
            "label": pd.Categorical.from_codes(columns["label"], list(LABELS)),
        }
    )
    make_folder(path.parent)
    with replacing(path) as partial:
        table.to_parquet(partial, index=False)


def read_sidecar(path: Path, data: Recorded) -> tuple[np.ndarray, np.ndarray]:
    """Labels (F,) int of `LABELS` and weights (F,) of the frames of `data`, in their order.

    Raises:
        UserError: the file is missing, damaged, of another dataset, or holds a label or weight that is none.
    """
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise UserError(
            f"the advantages {path} are missing or damaged ({one_line(error)}): delete them and run "
            "--algorithm.stage=advantages again"
        ) from error
    again = f"delete {path.parent} and run --algorithm.stage=advantages again"
    if missing := [name for name in READ if name not in table]:
        raise UserError(f"the advantages {path} lack {', '.join(missing)}: {again}")
    names = sorted(set(table["dataset"].astype(str)))
    if names != [data.fingerprint] or set(table["index"]) != set(data.index) or len(table) != len(data.index):
        raise UserError(
            f"the advantages {path} belong to another dataset ({', '.join(names)}, {len(table)} frames) than "
            f"{data.name} ({data.fingerprint}, {len(data.index)} frames): {again}"
        )
    table = table.set_index("index").loc[data.index]
    label, weight = table["label"].astype(str).to_numpy(), table["weight"].to_numpy(float)
    if unknown := sorted(set(label) - set(LABELS)):
        raise UserError(f"label={unknown[0]!r} in {path} is unknown, choose {', '.join(LABELS)}")
    if not (np.isfinite(weight) & (weight >= 0)).all():
        raise UserError(f"a weight in {path} is not a number >= 0: correct it")
    return np.array([LABELS.index(name) for name in label]), weight
