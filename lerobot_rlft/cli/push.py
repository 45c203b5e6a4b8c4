"""`lerobot-rlft-push`: publish a run's policy on the Hub, with a card of what was measured."""

import logging

from ..configs.push import PushConfig
from . import run_command


def main() -> None:
    run_command(PushConfig, run)


def run(config: PushConfig) -> None:
    """Publish, or with `dry_run` write the folder and list it.

    Raises:
        UserError: to be shown without a traceback.
    """
    from ..hub.bundle import dry_run, push_run  # after --help, which needs no models

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    if config.dry_run:
        print(dry_run(config))
    else:
        print(f"published {push_run(config)}")
