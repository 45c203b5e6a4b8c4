"""Grasps: one decision, a few equally easy ways to take an object, one worth a little more than the others.

The plane is seen from above. The gripper waits over the middle of a round object and goes once to where the
action says; there the episode ends. Whoever maximises the reward needs one grasp, and loses next to nothing
with all of them: with five, one worth 1.01 and the others 1.00, using them equally costs .008.

Observation (LeRobot names after `preprocess_observation` in brackets):
    agent_pos         (N, 2) x, y of the gripper                       [observation.state]
    environment_state (N, 2) x, y of the object, always its middle     [observation.environment_state]
Action (N, 2): x, y of the grasp, clipped to [-1, 1]. Lengths have no unit.
"""

from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces

from ..vector import ArrayVectorEnv

CENTRE = np.zeros(2)
RADIUS = 0.7  # of the object and of the circle of grasp points
TASK = "grasp the object"


def grasp_points(n_grasps: int) -> np.ndarray:
    """(n_grasps, 2) equally spaced points on the rim, grasp 0 at the top, then anticlockwise."""
    angles = np.pi / 2 + 2 * np.pi * np.arange(n_grasps) / n_grasps
    return CENTRE + RADIUS * np.stack([np.cos(angles), np.sin(angles)], 1)


class GraspsVectorEnv(ArrayVectorEnv):
    """N copies of the task; every step ends an episode.

    `info["mode"]` is the grasp that succeeded, or -1 after a miss. Reward is 0 for a miss, 1 for a grasp, and
    `best_reward` for grasp 0.

    Args:
        num_envs: number of copies N.
        n_grasps: number of grasp points.
        tolerance: a grasp succeeds nearer than this to its point.
        best_reward: of grasp 0.
        blocked_grasp: this grasp always misses, without being shown; None for none.
        render_size, task: see `ArrayVectorEnv`.
    """

    metadata: ClassVar = {**ArrayVectorEnv.metadata, "render_fps": 1}

    def __init__(
        self,
        num_envs: int,
        n_grasps: int = 5,
        tolerance: float = 0.15,
        best_reward: float = 1.01,
        blocked_grasp: int | None = None,
        render_size: int = 256,
        task: str = TASK,
    ):
        plane = spaces.Box(-1, 1, (2,), np.float32)
        observation = spaces.Dict({"agent_pos": plane, "environment_state": plane})
        super().__init__(num_envs, observation, plane, 1, render_size, task)
        self.num_modes, self.points, self.tolerance = n_grasps, grasp_points(n_grasps), tolerance
        self.blocked_grasp = blocked_grasp
        self.payment = np.ones(n_grasps)
        self.payment[0] = best_reward
        self._position = np.empty((num_envs, 2))
        self._clear(slice(None))

    def _clear(self, who) -> None:
        self._position[who], self._mode[who], self._success[who] = CENTRE, -1, False

    def _observe(self) -> dict[str, np.ndarray]:
        return {
            "agent_pos": self._position.astype(np.float32),
            "environment_state": np.tile(CENTRE.astype(np.float32), (self.num_envs, 1)),
        }

    def step(self, actions: np.ndarray):
        """Try one grasp in every copy."""
        self._position[:] = np.clip(self._checked(actions), -1, 1)
        distance = np.linalg.norm(self._position[:, None] - self.points, axis=-1)  # (N, n_grasps)
        if self.blocked_grasp is not None:
            distance[:, self.blocked_grasp] = np.inf
        nearest = distance.argmin(1)
        self._success[:] = distance.min(1) < self.tolerance
        self._mode[:] = np.where(self._success, nearest, -1)
        reward = np.where(self._success, self.payment[nearest], 0.0)
        return self._end_step(reward, np.ones(self.num_envs, bool), np.zeros(self.num_envs, bool))

    def render(self) -> tuple[np.ndarray, ...]:
        """One (render_size, render_size, 3) uint8 frame per copy, y upwards."""
        from PIL import Image, ImageDraw  # only rendering needs it

        scale = self.render_size / 2

        def box(x: float, y: float, r: float) -> tuple[float, float, float, float]:
            px, py = (1 + x) * scale, (1 - y) * scale
            return px - r * scale, py - r * scale, px + r * scale, py + r * scale

        frames = []
        for position in self._position:
            image = Image.new("RGB", (self.render_size, self.render_size), "white")
            draw = ImageDraw.Draw(image)
            draw.ellipse(box(*CENTRE, RADIUS), fill=(225, 225, 225))
            for i, point in enumerate(self.points):
                colour = (90, 20, 20) if i == self.blocked_grasp else (60, 160, 80)
                draw.ellipse(box(*point, self.tolerance), outline=colour, width=2)
            draw.ellipse(box(*position, 0.05), fill=(40, 90, 180))
            frames.append(np.asarray(image))
        return tuple(frames)

    def action_path(self, state: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """The way from `state` (2,) to each of actions (N, H, 2), (N, H+1, 2), for pictures."""
        start = np.broadcast_to(state, (len(actions), 1, 2))
        return np.concatenate([start, np.clip(actions, -1, 1)], 1)

    def draw_map(self, axes: Any) -> None:
        """Draw the object and how far its grasps reach into matplotlib axes."""
        from matplotlib.patches import Circle  # only pictures need it

        axes.add_patch(Circle(CENTRE, RADIUS, color="0.93", zorder=0))
        for i, point in enumerate(self.points):
            is_blocked = i == self.blocked_grasp
            axes.add_patch(Circle(point, self.tolerance, fill=is_blocked, color="0.25", lw=1, zorder=3))
        axes.set_xlim(-1, 1)
        axes.set_ylim(-1, 1)
