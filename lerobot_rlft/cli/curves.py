"""`lerobot-rlft-curves`: success and modes of several runs in one picture."""

import argparse
import sys
from pathlib import Path


def main() -> None:
    args = parser().parse_args()
    from ..plots.curves import draw_curves, draw_shares, read_curve  # after --help

    try:
        curves = [read_curve(run) for run in args.runs]
        if args.shares is not None:
            draw_shares(args.shares, curves)
        draw_curves(args.output, curves)
    except (ValueError, OSError) as error:  # UserError, or matplotlib about the suffix
        sys.exit(f"error: {error}")
    print(f"{len(args.runs)} runs in {' and '.join(str(p) for p in (args.output, args.shares) if p)}")


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser("lerobot-rlft-curves", description=__doc__)
    p.add_argument("runs", type=Path, nargs="+", help="folders of runs; NAME_SEED share the colour of NAME")
    p.add_argument("--output", type=Path, default=Path("curves.png"), help="picture to write")
    p.add_argument("--shares", type=Path, help="a second picture: shares of modes, a panel for each run")
    return p
