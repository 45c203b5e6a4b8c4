"""Measurements of a checkpoint: by `lerobot-rlft-eval`, or by its run at the end."""

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
from lerobot.utils.constants import PRETRAINED_MODEL_DIR

from ..envs.options import env_options
from ..evaluation.figures import Figure
from ..evaluation.measures import Metrics, measure_modes, measure_registered
from ..evaluation.report import DIVERSITY, PARTS, PICTURES, REPORT, page
from ..plots.run import draw_mode_shares
from ..policies.pretrained_files import WEIGHTS, file_hash
from ..utils.errors import UserError
from ..utils.files import write_text
from .anonymise import without_folders
from .finished_run import Run
from .lineage import Ancestor

CAPTIONS = {
    "trajectories.png": ("Trajectories", "Episodes of the final evaluation, successes coloured by mode."),
    "front.png": ("Success and diversity", "Evaluated checkpoints; the star is the exported one."),
    "learning_curve.png": ("Learning curve", "Evaluations of the deployed sampler while it trained."),
    "modes.png": ("Modes while training", "Shares of modes among the newest episodes."),
    "kl.png": ("KL to the base", "By denoising step and iteration."),
    "atlas.png": ("Mode atlas", "The modes that clustering found in the base's paths."),
}
SHARES = "shares.png"
NO_BASE = "base numbers, the run did not play the base on the same episodes"


def measured(
    run: Run, base: Ancestor | None, eval_dir: Path | None
) -> tuple[dict[str, Any] | None, Path | None, list[str]]:
    """The content of diversity.json, the folder of the report behind it, and why numbers are missing.

    Args:
        eval_dir: that lerobot-rlft-eval wrote; None takes the run's own evaluation.

    Raises:
        UserError: the report is missing, damaged, or about another policy or base.
    """
    if eval_dir is not None:
        return _reported(eval_dir, run.checkpoint, base), eval_dir, []
    if run.env is None:
        return None, None, ["success and modes, the run had no environment to evaluate in"]
    if not run.final:
        why = (
            f"success and modes, this checkpoint (iteration {run.iteration} of {run.config['iterations']}) "
            "was not evaluated at the end of a run"
        )
        return None, None, [why]
    return _own(run, base)


def _reported(eval_dir: Path, checkpoint: Path, base: Ancestor | None) -> dict[str, Any]:
    """The numbers of lerobot-rlft-eval."""
    try:
        m = json.loads((eval_dir / DIVERSITY).read_text())
        by_weights = {side["weights"]: side for side in (*m["others"].values(), m)}
        missing = [name for name in (REPORT, PARTS, PICTURES) if not (eval_dir / name).exists()]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"--eval_dir={eval_dir} holds no report ({type(error).__name__}: {error}): give the "
            "--output_dir of a lerobot-rlft-eval of this version"
        ) from error
    if missing:
        raise UserError(f"--eval_dir={eval_dir} lacks {', '.join(missing)}: run lerobot-rlft-eval again")
    side = by_weights.get(file_hash(checkpoint / PRETRAINED_MODEL_DIR / WEIGHTS))
    if side is None:
        raise UserError(
            f"--eval_dir={eval_dir} is about {m['policy']}, whose weights are not those of {checkpoint}: run "
            "lerobot-rlft-eval on this checkpoint"
        )
    if base is not None and base.revision != side["base_revision"]:
        raise UserError(
            f"--eval_dir={eval_dir} compares with {side['base']}, but the run was tuned from {base.name}: "
            "give lerobot-rlft-eval that --base.path"
        )
    return side | {"others": {name: other for name, other in m["others"].items() if other is not side}}


def _own(run: Run, base: Ancestor | None) -> tuple[dict[str, Any], None, list[str]]:
    """The numbers of the run's last evaluation, under the names of diversity.json."""
    atlas, summary = (run.folder / "diversity/atlas.json").is_file(), run.summary
    m, gaps = Metrics(), []
    modes_from = "atlas" if atlas else "environment"
    tuned, before = summary["tuned"], summary.get("base")
    if before is not None and before["n_episodes"] != tuned["n_episodes"]:
        before, gaps = None, [NO_BASE]
    m |= {
        "policy": "",
        "name": "tuned",
        "base": base and base.name,
        "weights": file_hash(run.policy / WEIGHTS),
        "revision": None,
        "base_revision": base and base.revision,
        "env": run.env.type,
        "env_options": env_options(run.env),
        "sampler": "deployed",
        # The exported checkpoint may be older than the options that the run ended with.
        "seed": summary.get("seed", run.config["eval"]["seed"]),
        "n_episodes": tuned["n_episodes"],
        "num_modes": tuned.get("num_modes"),
        "modes_from": modes_from if "mode_counts" in tuned else None,
        "others": {},
    }
    for prefix, side in (("", tuned), ("base_", before)):
        if side is not None:
            m[f"{prefix}success"], m[f"{prefix}success_ci"] = side["success"], side["success_ci"]
            m[f"{prefix}n_success"] = round(side["success"] * side["n_episodes"])
            m[f"{prefix}max_reward"] = side["max_reward"]
            if "mode_counts" in side:
                m[f"{prefix}unknown"] = m[f"{prefix}n_success"] - sum(side["mode_counts"])
    counts = [side and "mode_counts" in side and np.array(side["mode_counts"]) for side in (tuned, before)]
    if before is not None:
        arrays = [c if isinstance(c, np.ndarray) else None for c in counts]
        measure_modes(m, *arrays)
        measure_registered(m, *({"mode_counts": c} for c in arrays))
    elif isinstance(counts[0], np.ndarray):
        m["mode_counts"] = tuned["mode_counts"]
    if before is not None and m["claim_refusal"] is not None:
        gaps.append(f"modes in the Hub's results. {m['claim_refusal']}")
    return m, None, gaps


def run_report(m: dict[str, Any], pictures: Path, folder: Path) -> None:
    """Write report.html and its picture of shares, of a run's own evaluation.

    Args:
        m: content of diversity.json.
        pictures: folder of the run's.
        folder: to write into.
    """
    figures = []
    if sum(m.get("mode_counts") or ()) and sum(m.get("base_mode_counts") or ()):
        shares, counts = folder / PICTURES / SHARES, np.array(m["mode_counts"])
        draw_mode_shares(shares, np.array(m["base_mode_counts"]), {m["name"]: counts})
        figures.append(Figure("Mode shares", shares, "Shares of successes, deployed sampler."))
    for name, (heading, caption) in CAPTIONS.items():
        if (pictures / name).is_file():
            figures.append(Figure(heading, pictures / name, caption))
    if m.get("base_success") is not None:
        write_text(folder / REPORT, page(m, figures, "the final evaluation of lerobot-rlft-train"))


def eval_report(m: dict[str, Any], report: Path, folder: Path) -> None:
    """Write report.html of lerobot-rlft-eval anew, with what is published of its numbers and words.

    Args:
        m: content of diversity.json as it is published.
        report: folder that lerobot-rlft-eval wrote.
        folder: to write into.
    """
    parts = json.loads((report / PARTS).read_text())
    figures = [
        Figure(heading, report / PICTURES / Path(name).name, without_folders(caption))
        for heading, name, caption in parts["figures"]
    ]
    command = shlex.join(without_folders(shlex.split(parts["command"])))
    write_text(folder / REPORT, page(m, figures, command))
