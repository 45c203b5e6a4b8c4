"""Trackers: services that show the metrics of a run as it goes, beside its `metrics.jsonl`.

Both give a scalar the same name, `train/loss` or `eval/deployed_success`, at the same step, the iteration.
"""

import uuid
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from lerobot.common.wandb_utils import WandBLogger

from ..configs.train import TrainConfig
from ..utils.errors import UserError
from ..utils.files import write_text
from ..utils.run_folder import TRACKIO_RUN


class Tracker(Protocol):
    """A service that shows a run; any method may raise whatever its library raises."""

    def log(self, kind: str, scalars: dict[str, float], iteration: int) -> None: ...

    def alert(self, title: str, text: str) -> None: ...

    def picture(self, name: str, path: Path, iteration: int) -> None: ...

    def checkpoint(self, folder: Path) -> None: ...

    def finish(self) -> None: ...


class WandB:
    """Weights & Biases, by LeRobot's logger."""

    def __init__(self, config: TrainConfig) -> None:
        self.logger = WandBLogger(config)  # sets wandb.run_id, by which a resume continues it
        self.wandb = self.logger._wandb

    def log(self, kind: str, scalars: dict[str, float], iteration: int) -> None:
        self.logger.log_dict(scalars, step=iteration, mode=kind)

    def alert(self, title: str, text: str) -> None:
        self.wandb.alert(title=title, text=text)

    def picture(self, name: str, path: Path, iteration: int) -> None:
        self.wandb.log({f"pictures/{name}": self.wandb.Image(str(path))}, step=iteration)

    def checkpoint(self, folder: Path) -> None:
        self.logger.log_policy(folder)

    def finish(self) -> None:
        self.wandb.finish()


class Trackio:
    """Trackio, a local dashboard or a Space; checkpoints are not copied to it."""

    def __init__(self, config: TrainConfig) -> None:
        import trackio

        self.trackio = trackio
        # Runs of one project are told apart by their names alone; a resume continues its own.
        file = config.output_dir / TRACKIO_RUN
        old = file.read_text().strip() if file.is_file() else None
        name = old or f"{config.job_name}-{uuid.uuid4().hex[:8]}"
        trackio.init(
            project=config.wandb.project,
            name=name,
            config=config.to_dict(),
            resume="allow" if old else "never",
        )
        write_text(file, name + "\n")

    def log(self, kind: str, scalars: dict[str, float], iteration: int) -> None:
        self.trackio.log({f"{kind}/{k}": v for k, v in scalars.items()}, step=iteration)

    def alert(self, title: str, text: str) -> None:
        self.trackio.alert(title=title, text=text)

    def picture(self, name: str, path: Path, iteration: int) -> None:
        self.trackio.log({f"pictures/{name}": self.trackio.Image(str(path))}, step=iteration)

    def checkpoint(self, folder: Path) -> None:
        pass

    def finish(self) -> None:
        self.trackio.finish()


TRACKERS: dict[str, type[WandB] | type[Trackio]] = {"wandb": WandB, "trackio": Trackio}


def check_tracker(config: TrainConfig) -> None:
    """Raise a UserError if the tracker is not installed, or would wait for somebody to log in."""
    if config.tracked_by == "trackio" and find_spec("trackio") is None:
        raise UserError(
            "tracker=trackio is not installed: run `pip install 'lerobot_policy_rlft[trackio]'`, or leave "
            "--tracker out"
        )
    if config.tracked_by != "wandb" or config.wandb.mode in ("offline", "disabled"):
        return
    import wandb

    if wandb.api.api_key is None:
        option, off = ("wandb.enable=true", "--wandb.enable=false")
        if config.tracker == "wandb":
            option, off = ("tracker=wandb", "--tracker=none")
        raise UserError(
            f"{option} but nobody is logged in: run `wandb login`, or use --wandb.mode=offline or {off}"
        )
