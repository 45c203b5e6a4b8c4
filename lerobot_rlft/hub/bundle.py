"""What a run publishes: policy, configuration, metrics, report and card, none of which names the machine."""

import json
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import draccus
import yaml
from lerobot.configs.default import WandBConfig
from lerobot.envs import EnvConfig
from lerobot.utils.constants import (
    CHECKPOINTS_DIR,
    LAST_CHECKPOINT_LINK,
    PRETRAINED_MODEL_DIR,
    TRAINING_STATE_DIR,
)

from .. import algorithms  # noqa: F401  registers them
from ..algorithms.base import AlgorithmConfig
from ..configs.aliases import current
from ..configs.pretrained import needs_plugin
from ..configs.push import PushConfig
from ..envs.options import eval_command
from ..evaluation.report import DIVERSITY, PICTURES, REPORT
from ..utils.errors import UserError
from ..utils.run_folder import BEST_CHECKPOINT_LINK, CONFIG_NAME, METRICS, SUMMARY
from ..utils.run_folder import DIVERSITY as DIVERSITY_FOLDER
from ..utils.tables import plain_table
from .anonymise import short_name, text_without_folders, without_folders
from .card import limits, policy_card
from .client import check_login, explained, push
from .lineage import Ancestor, lineage, on_hub
from .results import SHARES, measured, run_report

CARD = "README.md"
KEPT = (".safetensors", ".json", ".yaml")
# Of a run, not of what it made: a published configuration starts a new run that pushes nowhere.
OWN = {
    "push_to_hub": False, "save_checkpoint_to_hub": False, "repo_id": None, "private": None, "license": None,
    "trust_remote_code": False, "wandb": draccus.encode(WandBConfig()),
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """A run and one of its checkpoints.

    Attributes:
        checkpoint: its folder, named by the iteration.
        config: content of its rlft_config.yaml.
        final: whether it is the checkpoint that the run exported at its end.
    """

    folder: Path
    checkpoint: Path
    config: dict[str, Any]
    final: bool

    @classmethod
    def open(cls, folder: Path, name: str | None) -> "Run":
        """The checkpoint `name`; None means the exported one.

        Raises:
            UserError: no run, no such checkpoint, or without a name a run that has not finished.
        """
        checkpoints = folder / CHECKPOINTS_DIR
        if not checkpoints.is_dir():
            raise UserError(f"--run_dir={folder} is not the folder of a run: it has no {CHECKPOINTS_DIR}/")
        best = checkpoints / BEST_CHECKPOINT_LINK
        exported = BEST_CHECKPOINT_LINK if best.exists() else LAST_CHECKPOINT_LINK
        chosen = (checkpoints / (name or exported)).resolve()
        if chosen.parent != checkpoints.resolve():
            raise UserError(
                f"--checkpoint={name or exported} is no checkpoint of --run_dir={folder}: give the name of a "
                f"folder in its {CHECKPOINTS_DIR}/"
            )
        if not (chosen / PRETRAINED_MODEL_DIR / CONFIG_NAME).is_file():
            whole = sorted(p.parents[1].name for p in checkpoints.glob(f"[0-9]*/*/{CONFIG_NAME}"))
            known = f"known: {', '.join(whole)}" if whole else "the run has none: let it go on"
            raise UserError(f"--run_dir={folder} has no whole checkpoint {name or exported}, {known}")
        config = yaml.safe_load((chosen / PRETRAINED_MODEL_DIR / CONFIG_NAME).read_text())
        if config["env"] is None:  # nothing is evaluated at the end
            final = int(chosen.name) == config["iterations"]
        else:
            final = int(chosen.name) == _evaluated(folder)
        if not final and name is None:
            raise UserError(
                f"--run_dir={folder} has not finished: go on with lerobot-rlft-train "
                f"--resume={shlex.quote(str(folder))}, or push what there is with --checkpoint={chosen.name}"
            )
        return cls(folder, chosen, config, final)

    @property
    def policy(self) -> Path:
        return self.checkpoint / PRETRAINED_MODEL_DIR

    @property
    def policy_type(self) -> str:
        """Of the checkpoint: a run may wrap the policy that it began with."""
        return json.loads((self.policy / "config.json").read_text())["type"]

    @property
    def summary(self) -> dict[str, Any]:
        return json.loads((self.folder / SUMMARY).read_text())


def _evaluated(folder: Path) -> int | None:
    """The iteration whose checkpoint the run evaluated at its end; None where it has not come so far."""
    if not (folder / SUMMARY).is_file() or not (folder / METRICS).is_file():
        return None
    lines = map(json.loads, (folder / METRICS).read_text().splitlines())
    return max((line["iteration"] for line in lines if line.get("reloaded")), default=None)


def push_run(options: PushConfig) -> str:
    """Publish a checkpoint of a run; returns the commit's address.

    Raises:
        UserError: see `gather` and `hub.push`.
    """
    run = Run.open(options.run_dir, options.checkpoint)
    check_login(options.repo_id)
    with explained(options.repo_id):
        files = gather(run, options)
    return push(
        options.repo_id,
        files,
        f"Upload iteration {int(run.checkpoint.name)} of {run.config['job_name']}",
        private=options.private,
        branch=options.branch,
        tag=options.tag,
        policy_type=run.policy_type,
    )


def dry_run(options: PushConfig) -> str:
    """Write what would be published into `output_dir`; returns the list of it with sizes.

    Raises:
        UserError: see `gather` and `write`.
    """
    run = Run.open(options.run_dir, options.checkpoint)
    with explained(options.repo_id):
        files = gather(run, options)
    write(files, options.output_dir)
    where = f"{options.repo_id}{f' (branch {options.branch})' if options.branch else ''}"
    return f"{sizes(files)}\nwould be sent to {where}, written to {options.output_dir}; nothing was sent"


def gather(run: Run, options: PushConfig) -> dict[str, Path | bytes]:
    """Path in the repository -> content, or the file to read it from. Nothing is written.

    Raises:
        UserError: the evaluation, the base or the card template that was named does not fit.
    """
    base = Ancestor.of(run.config)
    m, report, missing = measured(run.folder, run.checkpoint, run.config, run.final, base, options.eval_dir)
    if options.base_model is not None:
        if base is None:
            raise UserError(
                f"--base_model={options.base_model}, but the run began from scratch: leave it out"
            )
        base = on_hub(base, options.base_model)
    files: dict[str, Path | bytes] = {
        path.name: path for path in sorted(run.policy.iterdir()) if path.suffix in KEPT
    }
    config = published_config(run.config, base)
    files[CONFIG_NAME] = yaml.safe_dump(config, sort_keys=False).encode()
    policy = json.loads((run.policy / "config.json").read_text())
    policy |= {"repo_id": None, "private": None, "license": options.license or policy["license"]}
    policy["pretrained_path"] = base.name if base is not None and base.revision is not None else None
    policy["pretrained_revision"] = None  # stock LeRobot would look for it in this repository
    files["config.json"] = _json(policy)
    metrics = (run.folder / METRICS).read_bytes() if (run.folder / METRICS).is_file() else b""
    files[METRICS] = metrics
    if options.training_state:
        files |= _folder(run.checkpoint / TRAINING_STATE_DIR, TRAINING_STATE_DIR)
        files |= _folder(run.folder / DIVERSITY_FOLDER, DIVERSITY_FOLDER)
    if run.final or report is not None:
        files |= _folder(run.folder / "pictures", f"{PICTURES}/training", (".png",))
    if report is not None:
        files |= _folder(report / PICTURES, PICTURES, (".png",))
        page = (report / REPORT).read_text()
        for name, path in ((options.repo_id, m["policy"]), (base.name, m["base"])):
            page = page.replace(path, name)
        files[REPORT] = text_without_folders(page).encode()
    if m is not None:
        m = m | {"policy": options.repo_id, "base": base and base.name}
        m["base_revision"] = base and base.revision
        m["others"] = {
            name: side | {"policy": short_name(side["policy"]), "base": m["base"]}
            for name, side in m["others"].items()
        }
        m = without_folders(m)
        files[DIVERSITY] = _json(m)
        if report is None:
            files |= run_report(m, run.folder / "pictures")
    files[CARD] = card(run, base, config, m, missing, files, options).encode()
    return files


def published_config(run: dict[str, Any], base: Ancestor | None) -> dict[str, Any]:
    """The configuration, with the base by its name and without folders of this machine."""
    policy = run["policy"] | {"pretrained_path": base and base.name}
    policy |= {"pretrained_revision": base and base.revision, "repo_id": None, "private": None}
    return without_folders(run | OWN | {"policy": policy, "dataset": run["dataset"] | {"root": None}})


def card(
    run: Run,
    base: Ancestor | None,
    config: dict[str, Any],
    m: dict[str, Any] | None,
    missing: list[str],
    files: dict[str, Path | bytes],
    options: PushConfig,
) -> str:
    """README.md.

    Args:
        config: as it is published.
        m: content of diversity.json as it is published; None where nothing was measured.
        missing: why a number is not there.
        files: what is published beside it.
    """
    algorithm = draccus.decode(AlgorithmConfig, current(run.config)["algorithm"])
    env = run.config["env"] and draccus.decode(EnvConfig, run.config["env"])
    on_base = base.card_field if base is not None else {}.get
    kind, dataset = run.policy_type, run.config["dataset"]
    datasets = [dataset["repo_id"]] if dataset["repo_id"] and dataset["root"] is None else []
    inherited = on_base("datasets") or []
    datasets += [name for name in inherited if name not in datasets]
    tags = [
        "lerobot",
        "robotics",
        kind,
        config["policy"]["type"],
        algorithm.type,
        env and env.type,
        *options.tags,
    ]
    if algorithm.consumes == "rollouts":
        tags.insert(2, "reinforcement-learning")
    front: dict[str, Any] = {"license": options.license or config["policy"]["license"] or on_base("license")}
    front |= {"tags": list(dict.fromkeys(filter(None, tags))), "datasets": datasets or None}
    if base is not None and base.revision is not None:
        front |= {"base_model": base.name, "base_model_relation": "finetune"}
    shares, paths = f"{PICTURES}/{SHARES}", f"{PICTURES}/trajectories.png"
    picture = shares if shares in files else paths if paths in files else None
    summary = run.summary if run.final and env is not None else {}
    guard = summary.get("guard")
    fields = {
        "repo_id": options.repo_id,
        "policy_type": kind,
        "algorithm": algorithm.type,
        "base": base and str(base),
        "base_missing": base is not None and base.revision is None,
        "not_measured": missing,
        "picture": picture,
        "caption": "Shares of the modes among successes, deployed sampler."
        if picture == shares
        else "Episodes of the deployed sampler, successes coloured by mode.",
        "lineage": lineage(run.config, int(run.checkpoint.name), base),
        "env": env and env.type,
        "env_is_ours": env is not None and type(env).__module__.startswith("lerobot_rlft."),
        "env_steps": summary.get("env_steps"),
        "guard": guard
        and f"A guard with floor {guard['floor']} under the base's {guard['metric'].replace('_', ' ')} was "
        f"on while it trained; exported is the checkpoint of iteration {guard['iteration']}, at "
        f"{guard['ratio']:.3f} of the base's.",
        "papers": algorithm.papers,
        "rerun_command": f"lerobot-rlft-train --config_path={CONFIG_NAME} --output_dir=outputs/again",
        "stock": not needs_plugin(kind),
        "eval_command": eval_command(options.repo_id, env)
        if env
        else f"lerobot-rollout --policy.path={options.repo_id} ...",
        "limits": limits(m, run.config),
    }
    return policy_card(options.repo_id, m, front, fields, options.card_template)


def write(files: dict[str, Path | bytes], folder: Path) -> None:
    """Make `folder` with what would be published; it appears when it is whole.

    Raises:
        UserError: it cannot be written, for example because the disk is full.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
            partial = Path(temporary) / folder.name
            for name, content in files.items():
                (partial / name).parent.mkdir(parents=True, exist_ok=True)
                if isinstance(content, bytes):
                    (partial / name).write_bytes(content)
                else:
                    shutil.copyfile(content, partial / name)
            partial.rename(folder)
    except OSError as error:
        raise UserError(
            f"--output_dir={folder} cannot be written ({error}): choose another folder, or make room"
        ) from error


def sizes(files: dict[str, Path | bytes]) -> str:
    """A line for each file, the largest first, and the sum."""
    size = {
        name: len(content) if isinstance(content, bytes) else content.stat().st_size
        for name, content in files.items()
    }
    lines = [[f"{size[name]:,}", name] for name in sorted(size, key=lambda name: (-size[name], name))]
    return plain_table([*lines, [f"{sum(size.values()):,}", f"bytes in {len(size)} files"]], ">")


def _folder(folder: Path, name: str, suffixes: tuple[str, ...] = KEPT) -> dict[str, Path | bytes]:
    found = sorted(p for p in folder.iterdir() if p.suffix in suffixes) if folder.is_dir() else []
    return {f"{name}/{path.name}": path for path in found if not path.name.startswith(".")}


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()
