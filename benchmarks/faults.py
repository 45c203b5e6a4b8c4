"""Faults that strike a command in its own process, by the name of what fails; `chaos` chooses when."""

import os
import signal
import sys
import tempfile
from functools import cache
from importlib import import_module
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from benchmarks import points  # noqa: F401  registers --env.type=chaos_points
from benchmarks.disk import Disk

LIMIT = 300  # seconds after which a command hangs


def strike(command: str, arguments: list[str], fault: str, at: int, root: str, report: str) -> None:
    """Run `lerobot-rlft-COMMAND ARGUMENTS` with a fault.

    Args:
        fault: one of `disk.FAULTS`, "worker", "tracker", or "" to count the operations of the disk.
        at: which operation, step of the environments, or call of the tracker meets it.
        root: folder whose operations count.
        report: file whose size in bytes says how often it could have struck.
    """
    signal.alarm(LIMIT)  # its default action ends the process
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    if fault.startswith("worker"):
        kill_worker(at, Path(report), count_only=fault == "worker count")
    elif fault.startswith("tracker"):
        sys.modules["wandb"] = Tracker(at if fault == "tracker" else 0, Path(report))
    else:
        Disk(Path(root), fault, at, Path(report)).install()
    tempfile.tempdir = os.environ["TMPDIR"]  # which the process that forked has looked up before
    without_waiting()
    read_once()
    sys.argv = [f"lerobot-rlft-{command}", *arguments]
    import_module(f"lerobot_rlft.cli.{command}").main()


def kill_worker(at: int, report: Path, count_only: bool) -> None:
    """SIGKILL a process of the environments before their step number `at`."""
    from gymnasium.vector import AsyncVectorEnv

    step, count = AsyncVectorEnv.step_async, 0

    def counted(self: AsyncVectorEnv, actions: Any) -> None:
        nonlocal count
        count += 1
        report.write_bytes(bytes(count))
        if count == at and not count_only:
            os.kill(self.processes[at % len(self.processes)].pid, signal.SIGKILL)
        step(self, actions)

    AsyncVectorEnv.step_async = counted


class Tracker(ModuleType):
    """Stands for wandb; every call from number `at` on raises, none where that is 0."""

    def __init__(self, at: int, report: Path) -> None:
        super().__init__("wandb")
        self.__spec__ = ModuleSpec("wandb", None)
        self.run = SimpleNamespace(id="abc", get_url=lambda: "url")
        self.config = SimpleNamespace(update=self.call)
        self.at, self.report, self.count = at, report, 0
        self.init = self.log = self.alert = self.finish = self.call
        self.Image = self.define_metric = self.Artifact = self.call

    def call(self, *args: Any, **kwargs: Any) -> "Tracker":
        self.count += 1
        self.report.write_bytes(bytes(self.count))
        if self.at and self.count >= self.at:
            raise ConnectionError("the tracker is dead")
        return self


def without_waiting() -> None:
    """A client that tries again does so at once."""
    http = import_module("huggingface_hub.utils._http")
    http.time = SimpleNamespace(**{**vars(http.time), "sleep": lambda seconds: None})


def read_once() -> None:
    """A dataset's list of episodes takes .2 s to read, and a run of rounds opens it dozens of times."""
    metadata = import_module("lerobot.datasets.dataset_metadata")
    load = metadata.load_episodes
    read = cache(lambda root, files: load(root))

    def load_episodes(root: Path) -> Any:
        files = [(path, path.stat()) for path in sorted(Path(root).glob("meta/episodes/**/*.parquet"))]
        return read(root, tuple((path, stat.st_ino, stat.st_mtime_ns) for path, stat in files))

    metadata.load_episodes = load_episodes
