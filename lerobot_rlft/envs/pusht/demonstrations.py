"""Push-T: the 206 human demonstrations of Diffusion Policy (arXiv:2303.04137) as a LeRobotDataset.

The source is an npz file, recorded at 10 Hz:
    state        (frames, 5) agent x, y, block x, y in pixels of a 512 board, block angle in rad
    action       (frames, 2) target agent position, pixels
    episode_ends (episodes,) exclusive end frames
"""

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.utils.constants import ACTION, DONE, OBS_ENV_STATE, OBS_STATE, REWARD, SUCCESS
from lerobot.utils.import_utils import require_package

from ...datasets.writer import write_dataset

if TYPE_CHECKING:
    from gym_pusht.envs import PushTEnv

TASK = "Push the T-shaped block onto the T-shaped target."
FPS = 10
FEATURES = {  # those of the Hub's lerobot/pusht_keypoints
    OBS_STATE: {"dtype": "float32", "shape": (2,), "names": ["x", "y"]},
    OBS_ENV_STATE: {
        "dtype": "float32",
        "shape": (16,),
        "names": [f"{axis}{i}" for i in range(8) for axis in "xy"],
    },
    ACTION: {"dtype": "float32", "shape": (2,), "names": ["x", "y"]},
    REWARD: {"dtype": "float32", "shape": (1,), "names": None},
    SUCCESS: {"dtype": "bool", "shape": (1,), "names": None},
    DONE: {"dtype": "bool", "shape": (1,), "names": None},
}


def write_demonstrations(
    source: Path, root: Path, repo_id: str, episodes: int | None = None, progress: bool = True
) -> LeRobotDataset:
    """Convert the recordings into a LeRobotDataset with the layout of `lerobot/pusht_keypoints`.

    `observation.environment_state` is what the env itself shows: the 8 block vertices, pixels. `next.reward`
    and `next.success` belong to the recorded state that follows the action. What followed an episode's last
    action was not recorded; that frame is scored by its own state, as on the Hub, so the demonstrations look
    a little worse than they were (mean max reward 0.89; 0.95 where the simulator adds the last action).

    Args:
        source: the npz file.
        root: directory to create; it appears only once it is complete.
        repo_id: name of the dataset, `user/name`.
        episodes: only the first so many; None for all.
        progress: show a progress bar.

    Returns:
        The written dataset, opened for reading.

    Raises:
        FileExistsError: `root` exists.
        FileNotFoundError: `source` does not exist.
        ImportError: gym-pusht is not installed.
        ValueError: `source` is no such file, or `episodes` is out of range.
    """
    recordings = _read_recordings(source)
    if episodes is not None and not 1 <= episodes <= len(recordings):
        raise ValueError(
            f"episodes={episodes}: {source} has {len(recordings)}; choose 1..{len(recordings)} or None"
        )
    env, selection = _simulator(), recordings[:episodes]
    columns = (_columns(env, state, action) for state, action in selection)
    return write_dataset(root, repo_id, FPS, TASK, FEATURES, columns, len(selection), progress)


def replay(source: Path, episode: int) -> np.ndarray:
    """Replay the actions of one episode in the simulator, open loop from its first recorded state.

    Args:
        source: the npz file.
        episode: index of the episode.

    Returns:
        (T - 1,) largest deviation of agent and block x, y from the recording after each action, pixels.

    Raises:
        FileNotFoundError: `source` does not exist.
        ImportError: gym-pusht is not installed.
        ValueError: `source` is no such file, or it has no such episode.
    """
    recordings = _read_recordings(source)
    if not 0 <= episode < len(recordings):
        raise ValueError(
            f"episode={episode}: {source} has {len(recordings)}; choose 0..{len(recordings) - 1}"
        )
    state, action = recordings[episode]
    env = _simulator()
    _place(env, state[0])
    deviation = []
    for target, reference in zip(action[:-1], state[1:], strict=True):
        env.step(target.astype(float))
        deviation.append(np.abs([*env.agent.position, *env.block.position] - reference[:4]).max())
    return np.array(deviation)


def _read_recordings(source: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """The state (T, 5) and action (T, 2), float32, of every episode."""
    source = Path(source)
    if not source.is_file():
        raise FileNotFoundError(
            f"source={source} is no file; the recordings are recipes/data/pusht_human_206.npz"
        )
    if not zipfile.is_zipfile(source):
        raise ValueError(f"source={source} is no npz file; write it with numpy.savez_compressed")
    with np.load(source) as archive:
        if missing := {"state", "action", "episode_ends"} - set(archive.files):
            raise ValueError(f"source={source} lacks {sorted(missing)}, it has {archive.files}; add them")
        state, action, ends = archive["state"], archive["action"], archive["episode_ends"]
    for name, array, width in (("state", state, 5), ("action", action, 2)):
        if array.shape != (*state.shape[:1], width) or not np.issubdtype(array.dtype, np.floating):
            raise ValueError(
                f"{name} in {source} is {array.dtype} {array.shape}; store floats (frames, {width}), "
                "one row for every row of state"
            )
        if not (finite := np.isfinite(array).all(axis=1)).all():
            frame = int(finite.argmin())
            raise ValueError(f"{name} in {source} is {array[frame]} in frame {frame}; drop that episode")
    if (
        ends.ndim != 1
        or not np.issubdtype(ends.dtype, np.integer)
        or not (np.diff(ends.astype(np.int64), prepend=0) > 0).all()
        or ends[-1:].tolist() != [len(state)]
    ):
        raise ValueError(
            f"episode_ends in {source} is {ends.dtype} {ends}; store one row of growing integers, above 0, "
            f"that ends with the number of frames, {len(state)}"
        )
    splits = ends[:-1]
    return list(zip(np.split(np.float32(state), splits), np.split(np.float32(action), splits), strict=True))


def _simulator() -> "PushTEnv":
    require_package("gym-pusht", extra="pusht", import_name="gym_pusht")
    from gym_pusht.envs import PushTEnv

    env = PushTEnv(obs_type="environment_state_agent_pos")
    # Not any seed: a reset that drops the agent onto the block leaves traces in the contact solver, which
    # later shift a replay by 0.05 px.
    env.reset(seed=0)
    return env


def _place(env: "PushTEnv", state: np.ndarray) -> None:
    """Set the simulator to a recorded state (5,), at rest."""
    x, y, block_x, block_y, angle = state.tolist()
    env.agent.position = x, y
    # Angle first: setting it turns the block about its centre of mass, which moves its position. The env's
    # own `reset(options={"reset_to_state": ...})` sets it last and leaves the block up to 90 px off.
    env.block.angle = angle
    env.block.position = block_x, block_y
    env.agent.velocity = env.block.velocity = 0, 0
    env.block.angular_velocity = 0


def _columns(env: "PushTEnv", state: np.ndarray, action: np.ndarray) -> dict[str, np.ndarray]:
    """The dataset's columns for one episode of T recorded states (T, 5) and actions (T, 2)."""
    vertices = np.empty((len(state), 16), dtype=np.float32)
    coverage = np.empty((len(state), 1))
    for t, row in enumerate(state):
        _place(env, row)
        vertices[t] = env.get_obs()["environment_state"]
        coverage[t] = env._get_coverage()
    following = np.minimum(np.arange(len(state)) + 1, len(state) - 1)
    return {
        OBS_STATE: state[:, :2],
        OBS_ENV_STATE: vertices,
        ACTION: action,
        REWARD: np.clip(coverage / env.success_threshold, 0, 1).astype(np.float32)[following],
        SUCCESS: (coverage > env.success_threshold)[following],
        DONE: (np.arange(len(state)) == len(state) - 1)[:, None],
    }
