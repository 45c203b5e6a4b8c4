"""`lerobot-rlft-compare`: published policies beside each other, by success and by the modes they use."""

import argparse
import datetime as dt
import sys
from pathlib import Path


def main() -> None:
    args = parser().parse_args()
    from ..evaluation.leaderboard import markdown, read, write  # after --help

    folder = args.output_dir or Path("outputs/rlft_compare") / f"{dt.datetime.now():%Y-%m-%d_%H-%M-%S}"
    try:
        if folder.exists():
            sys.exit(f"error: --output_dir={folder} exists: choose another folder")
        entries = [entry for place in dict.fromkeys(args.policies) for entry in read(place)]
        write(entries, folder)
    except ValueError as error:  # UserError
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: --output_dir={folder} cannot be written ({error}): choose another folder")
    print(f"{markdown(entries)}\n\nTables and picture: {folder}")


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser("lerobot-rlft-compare", description=__doc__)
    p.add_argument(
        "policies",
        nargs="+",
        help="Hub ids user/name or user/name@revision that lerobot-rlft-push published, or folders that "
        "lerobot-rlft-eval wrote",
    )
    p.add_argument("--output_dir", type=Path, help="folder to create; outputs/rlft_compare/DATE if not given")
    return p
