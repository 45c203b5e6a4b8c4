"""Videos show the episode that was played, at a pace that does not depend on the renderer."""

import pytest
import torch
from toy import MAX_STEPS, toy_envs
from toy_policy import runner_in
from tqdm import tqdm

from lerobot_rlft.rollout import film as module
from lerobot_rlft.rollout.film import LONGEST, Camera, film


@pytest.fixture
def written(monkeypatch):
    """Name of each video -> its frames, by the number in their pixels, and frames per second."""
    videos = {}

    def write_video(path, frames, fps):
        path.touch()  # it is renamed when whole
        videos[path.name.removeprefix(".partial.")] = ([int(frame[0, 0, 0]) for frame in frames], fps)

    monkeypatch.setattr(module, "write_video", write_video)
    return videos


class Clock:
    """Every look at it finds `seconds` more."""

    def __init__(self, seconds):
        self.now, self.seconds = 0.0, seconds

    def perf_counter(self):
        self.now += self.seconds
        return self.now


def test_videos_show_the_episode_and_not_the_next(written, tmp_path):
    before = torch.get_rng_state()
    film(runner_in(toy_envs(2)), 0, tmp_path / "videos/base.mp4")
    assert torch.equal(torch.get_rng_state(), before)
    assert (tmp_path / "videos").is_dir()
    assert written == {"base_0.mp4": ([0, 1], 10), "base_1.mp4": ([10, 11, 12], 10)}


def test_of_a_slow_renderer_one_step_in_several_is_filmed(written, tmp_path, monkeypatch, capsys):
    """Eight frames, the start among them, in 120 s, and each takes 45 s: every third."""
    monkeypatch.setattr(module, "time", Clock(45.0))
    film(runner_in(toy_envs(3)), 0, tmp_path / "base.mp4")
    # Steps 0 and 1 are seen before the pace is known, then 3 and 6.
    assert written["base_2.mp4"] == ([20, 21, 23, 26], 3)
    assert written["base_0.mp4"] == ([0, 1], 3)
    said = capsys.readouterr().out
    assert said.startswith("filming: 45.0 s for a frame of 3 environments would take 6 min for 8 steps;")


@pytest.mark.parametrize("seconds, stride", [(0.01, 1), (LONGEST / 8, 1), (LONGEST / 7, 2), (LONGEST, 8)])
def test_the_pace_of_a_camera(seconds, stride, monkeypatch):
    monkeypatch.setattr(module, "time", Clock(seconds))
    envs = toy_envs(1)
    envs.reset(seed=[0])
    camera = Camera(envs, MAX_STEPS + 1, tqdm(disable=True))
    camera()
    assert camera.stride == 1  # the first frame tells nothing
    camera()
    assert camera.stride == stride
