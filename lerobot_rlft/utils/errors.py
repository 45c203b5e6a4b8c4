"""Errors that are shown to the user as one sentence, without a traceback."""


class UserError(ValueError):
    """A field, file or environment is not usable.

    The message names it, its value, the fix and the known choices.
    """


class RatioError(RuntimeError):
    """Sampling and re-evaluation disagree about the probability of what was sampled."""


class EnvironmentFailure(RuntimeError):
    """The environment raised or returned a value that cannot be learned from."""


class StorageFailure(UserError):
    """The system did not let a file be written: the disk is full, the folder is gone or read-only."""


def one_line(error: BaseException) -> str:
    """A library's message with the error's type, short enough to stand inside a sentence."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def check(field: str, value: object, ok: bool, choice: str) -> None:
    """Raise a ValueError that names field, value and what is wanted unless `ok`."""
    if not ok:
        raise ValueError(f"algorithm.{field}={value} is out of range, choose {choice}")
