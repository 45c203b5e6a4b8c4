"""Stopping a run so that it can be continued."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm


class Interrupted(Exception):
    """The user asked to stop; the message says how to go on."""


@contextmanager
def stop_on_signal() -> Iterator[list[int]]:
    """A list that fills on Ctrl-C or SIGTERM; the second Ctrl-C stops at once."""
    received: list[int] = []

    def on_signal(number: int, _frame: Any) -> None:
        received.append(number)
        signal.signal(number, signal.default_int_handler)
        tqdm.write(
            "stopping after this iteration; press Ctrl-C again to stop at once (back to the last checkpoint)"
        )

    old = {s: signal.signal(s, on_signal) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """While open, SIGTERM raises KeyboardInterrupt, as Ctrl-C does."""
    old = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, old)
