"""Episodes as videos."""

import math
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
from lerobot.utils.io_utils import write_video
from tqdm import tqdm

from ..utils.files import make_folder, replacing
from .runner import EpisodeRunner

LONGEST = 120.0  # seconds that rendering may take; of a slower renderer only every n-th step is filmed


class Camera:
    """Renders all environments at every `stride`-th call, so seldom that `max_frames` calls do not take long.

    Attributes:
        frames: steps, and a (height, width, 3) uint8 image of every environment.
        stride: follows from the time that the first rendering after the warm-up takes.
    """

    def __init__(self, env: gym.vector.VectorEnv, max_frames: int, bar: tqdm) -> None:
        self.env, self.max_frames, self.bar = env, max_frames, bar
        self.frames: list[tuple[int, tuple[np.ndarray, ...]]] = []
        self.calls, self.stride = 0, 1

    def __call__(self) -> None:
        if self.calls % self.stride == 0:
            begun = time.perf_counter()
            self.frames.append((self.calls, self.env.call("render")))
            if len(self.frames) == 2:  # the first one may open a window or load textures
                self._pace(time.perf_counter() - begun)
        self.calls += 1
        self.bar.update()

    def _pace(self, seconds: float) -> None:
        whole = seconds * self.max_frames
        self.stride = max(1, math.ceil(whole / LONGEST))
        if self.stride > 1:
            tqdm.write(
                f"filming: {seconds:.1f} s for a frame of {self.env.num_envs} environments would take "
                f"{whole / 60:.0f} min for {self.max_frames} steps; one step in {self.stride} is filmed"
            )


def film(runner: EpisodeRunner, seed: int, path: Path) -> None:
    """Write one MP4 for each environment of `runner`, `path` with `_0`, `_1`, ... before the suffix."""
    count, steps = runner.env.num_envs, runner.max_steps + 1
    with (
        torch.random.fork_rng(),
        tqdm(total=steps, desc="filming", unit="step", leave=False, disable=None) as bar,
    ):
        torch.manual_seed(seed)
        camera = Camera(runner.env, steps, bar)
        episodes = runner.evaluate(count, seed + np.arange(count), runner.deployed, camera)
    make_folder(path.parent)
    fps = max(1, round(runner.env.metadata.get("render_fps", 30) / camera.stride))
    for i in range(count):
        # After its last step the environment already shows the next episode.
        frames = [images[i] for step, images in camera.frames if step < episodes.length[i]]
        with replacing(path.with_stem(f"{path.stem}_{i}")) as partial:
            write_video(partial, frames, fps)
