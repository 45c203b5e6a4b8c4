"""`lerobot-rlft-curves`: success and modes of several runs in one picture."""

from dataclasses import dataclass, field
from pathlib import Path

from ..utils.errors import UserError
from . import run_command


@dataclass
class CurvesConfig:
    """Draw success and modes of several runs over training, in one picture.

    lerobot-rlft-curves outputs/tuned
    lerobot-rlft-curves outputs/plain_1000 outputs/plain_1001 outputs/guarded_1000 --output=curves.png
    lerobot-rlft-curves outputs/plain outputs/guarded --shares=shares.png

    Runs whose folders are called NAME_SEED share the colour of NAME.
    """

    POSITIONAL = "runs"

    # Folders of runs of lerobot-rlft-train, given as plain words, without a name of an option.
    runs: list[Path] = field(default_factory=list)
    # Picture to write; its suffix says the format.
    output: Path = Path("curves.png")
    # Second picture to write: shares of modes over training, a panel for each run; null = none.
    shares: Path | None = None

    def resolve(self) -> None:
        """Raise a UserError if there is nothing to draw."""
        if not self.runs:
            raise UserError("no runs: give folders of runs, lerobot-rlft-curves outputs/one outputs/two")


def main() -> None:
    run_command(CurvesConfig, run)


def run(config: CurvesConfig) -> None:
    """Draw.

    Raises:
        UserError: to be shown without a traceback.
    """
    from ..plots.curves import draw_curves, draw_shares, read_curve  # after --help

    curves = [read_curve(run) for run in config.runs]
    try:
        if config.shares is not None:
            draw_shares(config.shares, curves)
        draw_curves(config.output, curves)
    except (ValueError, OSError) as error:  # matplotlib about the suffix
        raise UserError(f"--output={config.output} or --shares={config.shares}: {error}") from error
    pictures = " and ".join(str(p) for p in (config.output, config.shares) if p)
    print(f"{len(config.runs)} runs in {pictures}")
