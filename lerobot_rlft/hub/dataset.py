"""Episodes that lerobot-rlft-eval played, as a dataset on the Hub with a card."""

from contextlib import closing
from pathlib import Path

from huggingface_hub import DatasetCard, DatasetCardData
from lerobot.datasets import LeRobotDataset
from lerobot.datasets.dataset_metadata import CODEBASE_VERSION
from lerobot.envs import EnvConfig
from lerobot.utils.constants import ACTION, DONE, OBS_PREFIX, REWARD, SUCCESS

from ..datasets.configuration import INTERVENTION, MODE
from ..evaluation.comparison import Comparison
from ..rollout.environments import make_runner
from ..rollout.evaluation import Evaluation
from ..rollout.recorder import write_rollouts
from .anonymise import short_name
from .card import TASK, TEMPLATES, render
from .client import push
from .escape import escaped

FOLDER = "dataset"
COLUMNS = {
    ACTION: "as sent to the environment",
    REWARD: "of the environment",
    DONE: "true at the last frame of an episode",
    SUCCESS: "true there if it succeeded",
    MODE: "of the episode, at every frame; -1 unknown",
    INTERVENTION: "whether a person took over; false throughout",
}


def record(comparison: Comparison, folder: Path, repo_id: str) -> tuple[LeRobotDataset, str]:
    """Play the main policy's episodes again, on the same seeds, and write them.

    Args:
        folder: to create.

    Returns:
        The dataset and its card.

    Raises:
        FileExistsError, EnvironmentFailure, FloatingPointError: see `write_rollouts`.
    """
    config, side = comparison.config, [*comparison.tuned.values()][-1]
    runner = make_runner(config.env, side.policy, min(config.batch_size, config.n_episodes))
    with closing(runner.env):
        dataset, episodes = write_rollouts(
            runner, folder, repo_id, config.n_episodes, config.seed,
            fps=config.env.fps, task=task_of(config.env), atlas=comparison.atlas,
        )  # fmt: skip
    evaluation = Evaluation.of(episodes, side.evaluation.num_modes)  # named by the atlas, where there is one
    low, high = evaluation.success_ci
    revision = side.policy.module.config.pretrained_revision
    name = f"[{side.path}](https://huggingface.co/{side.path}/tree/{revision})"
    content = {
        "repo_id": repo_id,
        "n_episodes": evaluation.n_episodes,
        "n_frames": dataset.num_frames,
        "fps": dataset.fps,
        "policy": name if revision else f"`{escaped(short_name(str(side.path)))}`",
        "env": escaped(config.env.type),
        "seed": config.seed,
        "success": f"{evaluation.success:.3f} [{low:.3f}, {high:.3f}] (95 %)",
        "modes": evaluation.modes is not None
        and f"Successes in each of {evaluation.num_modes} modes: "
        f"{', '.join(map(str, evaluation.mode_counts))}.",
        "columns": [
            (escaped(name), COLUMNS.get(name, "before the action"))
            for name in dataset.features
            if name in COLUMNS or name.startswith(OBS_PREFIX)
        ],
    }
    data = DatasetCardData(
        task_categories=[TASK],
        tags=["LeRobot", "rollouts", config.env.type],
        configs=[{"config_name": "default", "data_files": "data/*/*.parquet"}],
    )
    return dataset, render(DatasetCard, data, TEMPLATES / "dataset.md", content)


def task_of(env: EnvConfig) -> str:
    """The sentence that describes the task."""
    return env.task or env.type


def push_dataset(folder: Path, repo_id: str, private: bool | None) -> str:
    """Publish the folder of a dataset, its card included, in one commit; returns the commit's address.

    It gets the tag that LeRobot looks for.

    Raises:
        UserError: see `hub.push`.
    """
    return push(
        repo_id, folder, "Upload recorded episodes", private=private, tag=CODEBASE_VERSION, kind="dataset"
    )
