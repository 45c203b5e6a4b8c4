"""`lerobot-rlft-push`: publish a run's policy on the Hub, with a card of what was measured."""

import logging
import sys

from ..configs.push import PushConfig
from . import run_command


def main() -> None:
    run_command(PushConfig, run)


def run(config: PushConfig) -> None:
    """Publish, or with `dry_run` write the folder and list it.

    Raises:
        UserError: to be shown without a traceback.
        SystemExit: after Ctrl-C while it publishes; says what may be on the Hub.
    """
    from ..hub.bundle import dry_run, push_run  # after --help, which needs no models

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    if config.dry_run:
        print(dry_run(config))
        return
    try:
        print(f"published {push_run(config)}")
    except KeyboardInterrupt:
        sys.exit(
            f"\nstopped: the repository {config.repo_id} may exist by now, its files came with one commit "
            "that is there or not, and the folder of the run is as it was. The same command again publishes "
            "what is missing"
        )
