"""The log of a run: `metrics.jsonl` and, where one is chosen, a tracker.

`metrics.jsonl` in the folder of the run has one JSON object on each line. All lines have `kind`, `iteration`
and `env_steps` (taken for training so far); the rest depends on `kind`:

train, every `log_freq` iterations, and with every alarm:
    seconds: of collection and update; the only number that differs between two equal runs.
    success, return, max_reward: rate and means over the exploratory episodes (rollouts only).
    mode_counts: successes in each mode; effective_modes, js_to_base (bits): of the newest 480 episodes or
    more beside the exploring base (`diversity/tracker.py`); guard_ratio, guard_strength, of a guarded run
    (`diversity/guard.py`); alarm: words, when modes are being lost.
    every `probe_freq` iterations chunk_spread, peaks, base_peaks, off_manifold, kl_forward
    (`diversity/probe.py`).
    what `Algorithm.update` returned: for dppo policy_loss, value_loss, kl_to_base, kl_by_step (from the last
    denoising step to the noisiest), clip_fraction and others,
    for bc loss, grad_norm and lr.
eval, before the first iteration (dppo), every `eval_freq` iterations, and at the end:
    sampler: "deployed", the policy's own as users run it, or "exploratory", with the noise of collection.
    reloaded: true for the last line, of the checkpoint as it was read back from disk.
    the fields of `evaluation.Evaluation`; those about modes only where the environment names modes.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..configs.train import TrainConfig
from ..utils.errors import one_line
from ..utils.files import append, replacing, write_text
from ..utils.run_folder import METRICS
from .trackers import TRACKERS, Tracker


class Records:
    """Appends a line of metrics at a time; `trainer` documents the lines.

    Args:
        config: of the run; nothing is written or opened before `begin`.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.tracker: Tracker | None = None

    @property
    def path(self) -> Path:
        return self.config.output_dir / METRICS

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def begin(self, size: int) -> None:
        """Start the tracker and drop what lies beyond `size` bytes: after a resume it is written again."""
        name = self.config.tracked_by
        if name != "none":
            with self._unharmed():
                self.tracker = TRACKERS[name](self.config)
        if self.size > size:
            with replacing(self.path) as partial:
                partial.write_bytes(self.path.read_bytes()[:size])

    def write(self, kind: str, iteration: int, env_steps: int, values: dict[str, Any]) -> None:
        line = {"kind": kind, "iteration": iteration, "env_steps": env_steps} | values
        append(self.path, json.dumps(line))
        if not self.tracker:
            return
        sampler = f"{values['sampler']}_" if "sampler" in values else ""
        scalars = {f"{sampler}{k}": v for k, v in line.items() if isinstance(v, (int, float))}
        with self._unharmed():
            self.tracker.log(kind, scalars, iteration)
            if "alarm" in values:
                self.tracker.alert(f"{self.config.job_name}: mode diversity", values["alarm"])

    def forget(self, condition: Callable[[dict[str, Any]], bool]) -> None:
        """Drop lines that are about to be written again, and one that a kill left unfinished."""
        if not self.path.is_file():
            return
        whole = self.path.read_text().rpartition("\n")[0].splitlines()
        lines = [line for line in whole if not condition(json.loads(line))]
        write_text(self.path, "".join(f"{line}\n" for line in lines))

    def picture(self, name: str, path: Path, iteration: int) -> None:
        """Show a picture of the run in its tracker."""
        if self.tracker:
            with self._unharmed():
                self.tracker.picture(name, path, iteration)

    def read(self, kind: str) -> list[dict[str, Any]]:
        """All lines of one kind, of this run from its beginning."""
        if not self.path.is_file():
            return []
        lines = map(json.loads, self.path.read_text().splitlines())
        return [line for line in lines if line["kind"] == kind]

    def saved(self, checkpoint: Path) -> None:
        """A checkpoint was written."""
        if self.tracker:
            with self._unharmed():
                self.tracker.checkpoint(checkpoint)

    def finish(self) -> None:
        """Let the tracker send what it still holds."""
        if self.tracker:
            with self._unharmed():
                self.tracker.finish()
        self.tracker = None

    @contextmanager
    def _unharmed(self) -> Iterator[None]:
        """Whatever a tracker raises costs what it would have shown, not the run; it is said once."""
        try:
            yield
        except Exception as error:
            self.tracker = None
            tqdm.write(
                f"warning: {self.config.tracked_by} failed ({one_line(error)}) and is not told of this run "
                f"any more; everything is in {self.path}"
            )
