"""Stopping a run so that it can be continued."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm


class Interrupted(Exception):
    """The user asked to stop; the message says how to go on."""


@contextmanager
def stop_on_signal() -> Iterator[list[int]]:
    """A list that fills on Ctrl-C, SIGTERM or the end of the terminal; the second Ctrl-C stops at once."""
    signals: list[int] = []
    terminals = [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]

    def on_signal(number: int, _frame: Any) -> None:
        signals.append(number)
        if number == signal.SIGHUP:
            _write_nowhere(terminals)
        signal.signal(number, signal.default_int_handler)
        tqdm.write(
            "stopping after this iteration; press Ctrl-C again to stop at once (back to the last checkpoint)"
        )

    numbers = [signal.SIGINT, signal.SIGTERM, *_hangup()]
    old = {number: signal.signal(number, on_signal) for number in numbers}
    try:
        yield signals
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """While open, SIGTERM and the end of the terminal raise KeyboardInterrupt, as Ctrl-C does."""
    terminals = [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]

    def on_hangup(number: int, frame: Any) -> None:
        _write_nowhere(terminals)
        signal.default_int_handler(number, frame)

    old = {signal.SIGTERM: signal.signal(signal.SIGTERM, signal.default_int_handler)}
    old |= {number: signal.signal(number, on_hangup) for number in _hangup()}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _hangup() -> list[signal.Signals]:
    """SIGHUP, unless `nohup` has it ignored."""
    return [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN else []


def _write_nowhere(terminals: list[int]) -> None:
    """Writing to a terminal that is gone is an error, which would end the run before it is saved."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in terminals:
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
