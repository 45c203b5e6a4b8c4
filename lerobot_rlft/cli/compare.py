"""`lerobot-rlft-compare`: published policies beside each other, by success and by the modes they use."""

import datetime as dt
from dataclasses import dataclass, field
from pathlib import Path

from ..utils.errors import UserError
from . import run_command


@dataclass
class CompareConfig:
    """Compare policies that were evaluated before, by success and by the modes they use.

    lerobot-rlft-compare user/one user/two
    lerobot-rlft-compare user/one@v1 outputs/report --output_dir=outputs/compared
    lerobot-rlft-compare outputs/report_1 outputs/report_2 outputs/report_3

    Nothing is played: the numbers are read from the diversity.json of each policy.
    """

    POSITIONAL = "policies"

    # Hub ids user/name or user/name@revision that lerobot-rlft-push published, or folders that
    # lerobot-rlft-eval wrote. They are given as plain words, without a name of an option.
    policies: list[str] = field(default_factory=list)
    # Folder to create for tables and picture; null = outputs/rlft_compare/DATE.
    output_dir: Path | None = None

    def resolve(self) -> None:
        """Check the fields.

        Raises:
            UserError: there is nothing to compare, or the folder exists.
        """
        if not self.policies:
            raise UserError("no policies: give Hub ids or folders, lerobot-rlft-compare user/one user/two")
        self.output_dir = (
            self.output_dir or Path("outputs/rlft_compare") / f"{dt.datetime.now():%Y-%m-%d_%H-%M-%S}"
        )
        if self.output_dir.exists():
            raise UserError(f"--output_dir={self.output_dir} exists: choose another folder")


def main() -> None:
    run_command(CompareConfig, run)


def run(config: CompareConfig) -> None:
    """Read the numbers, write tables and picture.

    Raises:
        UserError: to be shown without a traceback.
    """
    from ..evaluation.leaderboard import markdown, read, write  # after --help

    entries = [entry for place in dict.fromkeys(config.policies) for entry in read(place)]
    try:
        write(entries, config.output_dir)
    except OSError as error:
        raise UserError(
            f"--output_dir={config.output_dir} cannot be written ({error}): choose another folder"
        ) from error
    print(f"{markdown(entries)}\n\nTables and picture: {config.output_dir}")
