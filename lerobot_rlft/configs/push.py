"""Options of `lerobot-rlft-push`."""

from dataclasses import dataclass, field
from pathlib import Path

from lerobot.configs import parser

from ..policies.pretrained_files import check_repo_id
from ..utils.errors import UserError


@dataclass
class PushConfig:
    """Publish the policy of a run on the Hub, with a card and its report, in one commit.

    lerobot-rlft-push --run_dir=outputs/quickstart --repo_id=user/tuned --dry_run=true
    lerobot-rlft-push --run_dir=outputs/quickstart --repo_id=user/tuned --private=true
    lerobot-rlft-push --run_dir=outputs/quickstart --repo_id=user/tuned --eval_dir=outputs/report --tag=v1

    The folder of the run is only read.
    """

    # Folder of a run of lerobot-rlft-train.
    run_dir: Path | None = None
    # Name of the repository on the Hub to publish to, user/name.
    repo_id: str | None = None
    # Checkpoint of the run to publish, for example 000010 or last; null = the exported one of a finished run
    # (checkpoints/best of a guarded run, else checkpoints/last).
    checkpoint: str | None = None
    # Folder that lerobot-rlft-eval wrote about this checkpoint; null = the final evaluation of the run
    # itself.
    eval_dir: Path | None = None
    # Whether the repository is private; null = public, or what your organisation prefers.
    private: bool | None = None
    # License of the published policy, for example apache-2.0; null = that of the base.
    license: str | None = None
    # Name of the base on the Hub, if the run read it from a folder: user/name or user/name@revision.
    base_model: str | None = None
    # Tags to add to those that follow from the run.
    tags: list[str] = field(default_factory=list)
    # Whether to publish the training state, too: others can then continue the run with
    # --resume=hub:user/name.
    training_state: bool = False
    # Branch to publish to; null = the main one.
    branch: str | None = None
    # Tag to give the commit, for example v1; null = none.
    tag: str | None = None
    # Jinja template of the card; null = that of this package.
    card_template: Path | None = None
    # Whether to write what would be published into output_dir, list it with sizes, and send nothing.
    dry_run: bool = False
    # Folder to create for a dry run; null = outputs/rlft_push/NAME.
    output_dir: Path | None = None

    def resolve(self) -> None:
        """Check the fields.

        Raises:
            UserError: one is missing or not usable.
        """
        for name in ("checkpoint", "tag", "branch"):  # as written: 000010 is no number, in YAML it is 8
            setattr(self, name, parser.parse_arg(name) or getattr(self, name))
        if self.run_dir is None:
            raise UserError("no run: give --run_dir=FOLDER, the output_dir of a lerobot-rlft-train")
        if self.repo_id is None:
            raise UserError("no place: give --repo_id=user/name")
        check_repo_id(self.repo_id)
        if self.output_dir is None:
            self.output_dir = Path("outputs/rlft_push") / self.repo_id.partition("/")[2]
        if self.dry_run and self.output_dir.exists():
            raise UserError(f"--output_dir={self.output_dir} exists: choose another folder, or delete it")
