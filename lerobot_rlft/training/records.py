"""The log of a run: `metrics.jsonl` and, where it is enabled, wandb.

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

from lerobot.common.wandb_utils import WandBLogger
from tqdm import tqdm

from ..configs.train import TrainConfig
from ..utils.errors import UserError, one_line
from ..utils.files import append, replacing
from ..utils.run_folder import METRICS


class Records:
    """Appends a line of metrics at a time; `trainer` documents the lines.

    Args:
        config: of the run; nothing is written or opened before `begin`.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.wandb: WandBLogger | None = None

    @property
    def path(self) -> Path:
        return self.config.output_dir / METRICS

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def begin(self, size: int) -> None:
        """Drop what lies beyond `size` bytes: after a resume it is about to be written again.

        Raises:
            UserError: wandb does not start; nothing was dropped.
        """
        self.wandb = self._start_wandb() if self.config.wandb.enable else None
        if self.size > size:
            with replacing(self.path) as partial:
                partial.write_bytes(self.path.read_bytes()[:size])

    def _start_wandb(self) -> WandBLogger:
        import wandb

        config = self.config
        try:
            return WandBLogger(config)
        except (RuntimeError, ValueError, OSError, wandb.Error) as error:
            fix = f"delete {config.output_dir} and start again with --wandb.enable=false"
            if config.resume is not None:
                fix = "resume with --wandb.enable=false, or start a new run"
            raise UserError(f"wandb.enable=true but wandb cannot log this run ({error}): {fix}") from error

    def write(self, kind: str, iteration: int, env_steps: int, values: dict[str, Any]) -> None:
        line = {"kind": kind, "iteration": iteration, "env_steps": env_steps} | values
        append(self.path, json.dumps(line))
        with self._unharmed():
            self._log(line, values, iteration)

    def _log(self, line: dict[str, Any], values: dict[str, Any], iteration: int) -> None:
        if self.wandb:
            sampler = f"{values['sampler']}_" if "sampler" in values else ""
            scalars = {f"{sampler}{k}": v for k, v in line.items() if isinstance(v, (int, float))}
            self.wandb.log_dict(scalars, step=iteration, mode=line["kind"])
            if "alarm" in values:
                wandb = self.wandb._wandb
                wandb.alert(title=f"{self.config.job_name}: mode diversity", text=values["alarm"])

    def forget(self, forgotten: Callable[[dict[str, Any]], bool]) -> None:
        """Drop lines that are about to be written again, and one that a kill left unfinished."""
        if not self.path.is_file():
            return
        whole = self.path.read_text().rpartition("\n")[0].splitlines()
        kept = [line for line in whole if not forgotten(json.loads(line))]
        with replacing(self.path) as partial:
            partial.write_text("".join(f"{line}\n" for line in kept))

    def picture(self, name: str, path: Path, iteration: int) -> None:
        """Show a picture of the run in wandb."""
        if not self.wandb:
            return
        with self._unharmed():
            self.wandb._wandb.log({f"pictures/{name}": self.wandb._wandb.Image(str(path))}, step=iteration)

    def read(self, kind: str) -> list[dict[str, Any]]:
        """All lines of one kind, of this run from its beginning."""
        if not self.path.is_file():
            return []
        lines = map(json.loads, self.path.read_text().splitlines())
        return [line for line in lines if line["kind"] == kind]

    def saved(self, checkpoint: Path) -> None:
        """A checkpoint was written."""
        if not self.wandb:
            return
        with self._unharmed():
            self.wandb.log_policy(checkpoint)

    @contextmanager
    def _unharmed(self) -> Iterator[None]:
        """Whatever wandb raises costs what it would have shown, not the run; it is said once."""
        try:
            yield
        except Exception as error:
            self.wandb = None
            tqdm.write(
                f"warning: wandb failed ({one_line(error)}) and is not told of this run any more; everything "
                f"is in {self.path}"
            )
