"""Avoiding-Lite: reach the far side of six pillars, in any of 24 ways, as one NumPy vector env.

A 2-D kinematic stand-in for the D3IL avoiding task (arXiv:2402.14606): the same layout and the same 2 x 3 x 4
modes, no MuJoCo. Scores on it must not be compared with scores on D3IL.

Observation (LeRobot names after `preprocess_observation` in brackets):
    agent_pos         (N, 4) desired x, y, current x, y in metres      [observation.state]
    environment_state (N, 9) 1 where a gap is known to be walled off   [observation.environment_state]
Action (N, 2): change of the desired position, clipped to +-0.01 m per axis and 35 ms step.
"""

from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces

from ..vector import ArrayVectorEnv

START = np.array([0.525, -0.28])
OBSTACLES = np.array(  # x, y, radius; from the left, level by level
    [(0.5, -0.10, 0.03)]
    + [(x, 0.08, 0.025) for x in (0.425, 0.575)]
    + [(x, 0.26, 0.025) for x in (0.35, 0.5, 0.65)]
)
ROD_RADIUS = 0.01
FINISH_Y = 0.35
X_RANGE = (0.2, 0.8)
Y_MIN = -0.4
MAX_DELTA = 0.01
LEVEL_Y = (-0.10, 0.08, 0.26)
LEVEL_HALF_HEIGHT = 0.03
NUM_MODES = 24
# The nine gaps, numbered from the left, level by level: (y of the level, x from, x to).
GAPS = np.array(
    [(-0.10, 0.2, 0.5), (-0.10, 0.5, 0.8)]
    + [(0.08, a, b) for a, b in ((0.2, 0.425), (0.425, 0.575), (0.575, 0.8))]
    + [(0.26, a, b) for a, b in ((0.2, 0.35), (0.35, 0.5), (0.5, 0.65), (0.65, 0.8))]
)
REWARDS = ("binary", "graded", "dppo_m5", "blocked")
TASK = "reach the far side without touching a pillar"


def mode_gaps(mode: int) -> tuple[int, int, int]:
    """The gaps (0..1, 0..2, 0..3), counted from the left on each level, that make up `mode` (0..23)."""
    return mode // 12, mode // 4 % 3, mode % 4


class AvoidingVectorEnv(ArrayVectorEnv):
    """N copies of Avoiding-Lite.

    `info["mode"]` is the mode in 0..23, or -1 while the agent has not passed all three levels;
    `info["is_success"]` is true once y > 0.35 was reached without contact.

    Args:
        num_envs: number of copies N.
        reward: `binary` (1 at success), `graded` (1 + graded_bonus * mode / 23), `dppo_m5` (+1 for every step
            beyond the finish line, the episode runs to the horizon) or `blocked` (binary, a wall across
            `blocked_gap`).
        graded_bonus: `graded` only: reward difference between the best- and the worst-paid mode.
        blocked_gap: `blocked` only: 0..8, see `GAPS`.
        show_block: `blocked` only: whether the wall is flagged in `environment_state`.
        lag: share of the tracking error that remains after a step, 0 <= lag <= 0.5.
        max_episode_steps: horizon; reaching it truncates the episode.
        render_size, task: see `ArrayVectorEnv`.

    Raises:
        ValueError: `reward` is unknown.
    """

    metadata: ClassVar = {**ArrayVectorEnv.metadata, "render_fps": 28}
    num_modes = NUM_MODES

    def __init__(
        self,
        num_envs: int,
        reward: str = "binary",
        graded_bonus: float = 0.05,
        blocked_gap: int = 0,
        show_block: bool = False,
        lag: float = 0.25,
        max_episode_steps: int = 150,
        render_size: int = 256,
        task: str = TASK,
    ):
        if reward not in REWARDS:
            raise ValueError(f"reward={reward!r} is unknown, choose one of {', '.join(REWARDS)}")
        if not 0 <= lag <= 0.5:
            raise ValueError(f"lag={lag} is out of range, choose 0 to 0.5")
        super().__init__(
            num_envs,
            spaces.Dict(
                {
                    "agent_pos": spaces.Box(-2, 2, (4,), np.float32),
                    "environment_state": spaces.Box(0, 1, (len(GAPS),), np.float32),
                }
            ),
            spaces.Box(-MAX_DELTA, MAX_DELTA, (2,), np.float32),
            max_episode_steps,
            render_size,
            task,
        )
        self.reward, self.graded_bonus, self.lag = reward, graded_bonus, lag
        self.wall = GAPS[blocked_gap] if reward == "blocked" else None
        flags = np.zeros((num_envs, len(GAPS)), np.float32)
        if self.wall is not None and show_block:
            flags[:, blocked_gap] = 1
        self._flags = flags
        self._obs = np.empty((num_envs, 4), np.float32)
        self._desired, self._current = np.empty((num_envs, 2)), np.empty((num_envs, 2))
        self._side, self._middle = np.zeros((2, num_envs), np.int64)
        self._steps = np.empty(num_envs, np.int64)
        self._clear(slice(None))

    def _clear(self, who) -> None:
        self._desired[who] = self._current[who] = START
        self._mode[who], self._steps[who], self._success[who] = -1, 0, False

    def _observe(self) -> dict[str, np.ndarray]:
        self._obs[:, :2], self._obs[:, 2:] = self._desired, self._current
        return {"agent_pos": self._obs.copy(), "environment_state": self._flags.copy()}

    def step(self, actions: np.ndarray):
        """Advance all copies by one 35 ms step; see the class for the meaning of `info`."""
        self._desired += np.clip(self._checked(actions), -MAX_DELTA, MAX_DELTA)
        self._current += (1 - self.lag) * (self._desired - self._current)
        self._steps += 1
        x, y = self._current.T
        self._pass_levels(x, y)
        failure = self._contact(x, y) | (x < X_RANGE[0]) | (x > X_RANGE[1]) | (y < Y_MIN)
        success = (y > FINISH_Y) & ~failure
        self._success |= success
        # dppo_m5 runs on beyond the line, so that staying there pays.
        terminated = failure if self.reward == "dppo_m5" else failure | success
        truncated = (self._steps >= self._max_episode_steps) & ~terminated
        reward = success.astype(np.float64)
        if self.reward == "graded":
            reward *= 1 + self.graded_bonus * self._mode / (NUM_MODES - 1)
        return self._end_step(reward, terminated, truncated)

    def _pass_levels(self, x: np.ndarray, y: np.ndarray) -> None:
        near = np.abs(y - LEVEL_Y[0]) <= LEVEL_HALF_HEIGHT
        self._side[near] = x[near] >= OBSTACLES[0, 0]
        near = np.abs(y - LEVEL_Y[1]) <= LEVEL_HALF_HEIGHT
        self._middle[near] = np.searchsorted(OBSTACLES[1:3, 0], x[near], side="right")
        arrives = (y >= LEVEL_Y[2]) & (self._mode < 0)
        top = np.searchsorted(OBSTACLES[3:, 0], x[arrives], side="right")
        self._mode[arrives] = self._side[arrives] * 12 + self._middle[arrives] * 4 + top

    def _contact(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        ox, oy, r = OBSTACLES.T
        dx, dy = x[:, None] - ox, y[:, None] - oy
        contact = (dx * dx + dy * dy < (r + ROD_RADIUS) ** 2).any(axis=1)
        if self.wall is not None:
            wall_y, left, right = self.wall
            contact |= (np.abs(y - wall_y) < ROD_RADIUS) & (x >= left) & (x <= right)
        return contact

    def render(self) -> tuple[np.ndarray, ...]:
        """One (render_size, render_size, 3) uint8 frame per copy, y upwards."""
        from PIL import Image, ImageDraw  # only rendering needs it

        scale = self.render_size / 0.8  # x from .1 to .9, y from -.42 to .38

        def box(x: float, y: float, r: float) -> tuple[float, float, float, float]:
            px, py = (x - 0.1) * scale, (0.38 - y) * scale
            return px - r * scale, py - r * scale, px + r * scale, py + r * scale

        frames = []
        for current, target in zip(self._current, self._desired, strict=True):
            image = Image.new("RGB", (self.render_size, self.render_size), "white")
            draw = ImageDraw.Draw(image)
            finish = (0.38 - FINISH_Y) * scale
            draw.line([(0, finish), (self.render_size, finish)], fill=(60, 160, 80), width=2)
            for x, y, r in OBSTACLES:
                draw.ellipse(box(x, y, r), fill=(178, 60, 60))
            if self.wall is not None:
                wall_y, left, right = self.wall
                py = (0.38 - wall_y) * scale
                draw.line(
                    [((left - 0.1) * scale, py), ((right - 0.1) * scale, py)], fill=(90, 20, 20), width=4
                )
            draw.ellipse(box(*target, ROD_RADIUS / 2), fill=(180, 200, 235))
            draw.ellipse(box(*current, ROD_RADIUS), fill=(40, 90, 180))
            frames.append(np.asarray(image))
        return tuple(frames)

    def action_path(self, state: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Desired positions (N, H+1, 2) after actions (N, H, 2) from `state` (4,), for pictures."""
        start = np.broadcast_to(state[:2], (len(actions), 1, 2))
        return np.concatenate([start, start + np.clip(actions, -MAX_DELTA, MAX_DELTA).cumsum(1)], 1)

    def draw_map(self, axes: Any) -> None:
        """Draw pillars, wall and finish line into matplotlib axes whose units are metres."""
        from matplotlib.patches import Circle  # only pictures need it

        for x, y, r in OBSTACLES:
            axes.add_patch(Circle((x, y), r, color="0.25", zorder=3))
        if self.wall is not None:
            axes.hlines(self.wall[0], self.wall[1], self.wall[2], color="0.25", lw=3, zorder=3)
        axes.axhline(FINISH_Y, color="tab:green", lw=1)
        axes.set_xlim(*X_RANGE)
        axes.set_ylim(-0.32, 0.38)
