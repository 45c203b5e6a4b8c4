"""Base of all runs: a folder, its log, signals, the way on after an interruption, and the end."""

import shlex
from abc import ABC, abstractmethod
from contextlib import suppress

from filelock import FileLock, Timeout
from lerobot.utils.random_utils import set_seed

from ..configs.packages import flags
from ..configs.train import TrainConfig
from ..hub.client import check_login
from ..policies.pretrained_files import TRUST
from ..rollout.runner import EpisodeRunner
from ..utils.errors import EnvironmentFailure, RatioError, StorageFailure, UserError, one_line
from ..utils.files import make_folder
from ..utils.run_folder import CONFIG_NAME, LOCK
from ..utils.signals import Interrupted
from .checkpoint import remove_partial, write_config
from .records import Records
from .trackers import check_tracker


class Run(ABC):
    """A run of one configuration; everything is built, and every input checked, before anything is written.

    Args:
        config: resolved (`TrainConfig.resolve`), or read from a checkpoint when it resumes.

    Raises:
        UserError: an input is unusable.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        check_tracker(config)
        if config.push_to_hub or config.save_checkpoint_to_hub:
            check_login(config.repo_id)
        self.records = Records(config)
        self.lock: FileLock | None = None
        self.phase = ""  # what an error interrupts
        self.runners: list[EpisodeRunner] = []  # whose environments are closed at the end
        set_seed(config.seed)

    def train(self) -> None:
        """Run until the end, or on from where it stopped.

        Raises:
            Interrupted: after Ctrl-C, SIGTERM or SIGHUP.
            UserError: the folder of the run cannot be made, or an input of a stage is unusable.
            EnvironmentFailure, FloatingPointError, RatioError, StorageFailure: the run cannot go on; the
                message says where it stopped and how to continue.
        """
        try:
            self._train()
        except (Interrupted, KeyboardInterrupt):
            raise Interrupted(f"{self.kept()}. {self._way_on()}") from None
        except (EnvironmentFailure, FloatingPointError, RatioError, StorageFailure) as error:
            raise type(error)(f"{self._where}{error}. {self._way_on()}") from error
        except OSError as error:
            raise StorageFailure(f"{self._where}{one_line(error)}. {self._way_on()}") from error
        finally:
            self.close()

    @property
    def _where(self) -> str:
        return f"{self.phase}: " if self.phase else ""

    def _way_on(self) -> str:
        if not self.config.output_dir.is_dir():
            return (
                f"{self.config.output_dir} is gone, it was renamed or deleted meanwhile: put it back, or "
                "name its new place with lerobot-rlft-train --resume=FOLDER"
            )
        return self.way_on()

    @abstractmethod
    def _train(self) -> None: ...

    @abstractmethod
    def kept(self) -> str:
        """The progress that an interruption leaves, in words."""

    @abstractmethod
    def dry_run(self) -> None:
        """Show what would be done and write nothing."""

    def begin_folder(self, log_bytes: int, exist_ok: bool) -> None:
        """Make the folder of the run and drop what an interrupted one left half-written.

        Args:
            log_bytes: of metrics.jsonl that are kept.
            exist_ok: whether the folder may be there already.

        Raises:
            UserError: it cannot be made, or another process runs it.
        """
        config = self.config
        try:
            make_folder(config.output_dir, exist_ok)
        except StorageFailure as failure:
            if isinstance(failure.__cause__, FileExistsError):
                raise UserError(
                    f"--output_dir={config.output_dir} exists, another program made it meanwhile: choose "
                    "another folder"
                ) from failure
            raise UserError(
                f"--output_dir={config.output_dir} cannot be made ({failure.__cause__}): choose another"
            ) from failure
        self._take_lock()
        remove_partial(config.output_dir)
        self.records.begin(log_bytes)
        write_config(config, config.output_dir / CONFIG_NAME)

    def _take_lock(self) -> None:
        """Raise a UserError if another process runs in this folder. The lock of a killed one is free."""
        self.lock = FileLock(self.config.output_dir / LOCK)
        try:
            self.lock.acquire(timeout=0)
        except Timeout as error:
            self.lock = None
            raise UserError(
                f"another process is running {self.config.output_dir}: wait until it has finished or stop "
                "it, two would overwrite each other's checkpoints"
            ) from error
        except OSError as error:
            self.lock = None
            raise StorageFailure(f"{self.config.output_dir} cannot be written ({one_line(error)})") from error

    def way_on(self) -> str:
        """The command that continues a run that stopped."""
        return f"Continue with\n  {self.resume_command}"

    @property
    def resume_command(self) -> str:
        trust = f" {TRUST}" if self.config.trust_remote_code else ""  # which the saved configuration lacks
        run_dir = shlex.quote(str(self.config.output_dir))
        return f"lerobot-rlft-train --resume={run_dir}{flags(self.config.packages)}{trust}"

    def close(self) -> None:
        """Close the environments, whose processes would outlive the run, and leave its folder to others."""
        self.records.finish()
        for runner in self.runners:
            runner.close()
        if self.lock is not None:
            with suppress(OSError):  # of a folder that is gone or read-only
                (self.config.output_dir / LOCK).unlink(missing_ok=True)
            self.lock.release()
            self.lock = None
