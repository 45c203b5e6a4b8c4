"""Processes of an asynchronous vector environment: how they are ended, and how one died."""

import time
from contextlib import suppress
from multiprocessing.process import BaseProcess
from typing import Any

import gymnasium as gym

PATIENCE = 5.0  # seconds that a process has to close its simulator


def close_env(env: Any) -> None:
    """Close a vector environment; processes that do not end by themselves are killed.

    Gymnasium's own `close` waits for ever for a process that hangs and raises for one that was killed.
    Ctrl-C meanwhile cuts the waiting short.
    """
    vector = asynchronous(env)
    if vector is None:
        env.close()
        return
    if vector.closed:
        return
    vector.closed = True  # before anything else: gymnasium closes once more when the object is collected
    try:
        for pipe in vector.parent_pipes:
            with suppress(OSError):  # its process has died
                pipe.send(("close", None))
        _join(vector.processes, PATIENCE)
        for process in vector.processes:
            process.terminate()
        _join(vector.processes, 1.0)
    except KeyboardInterrupt:
        pass
    finally:
        for process in vector.processes:
            process.kill()
            process.join(1.0)
        for pipe in vector.parent_pipes:
            pipe.close()


def how_it_died(env: Any) -> str:
    """The fate of a process that has ended by itself; empty where all live."""
    vector = asynchronous(env)
    for i, process in enumerate(vector.processes if vector is not None and not vector.closed else ()):
        process.join(0.1)  # the pipe of a process closes a moment before it has ended
        if process.exitcode is not None:
            code = process.exitcode
            how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            return (
                f"the process of environment {i + 1} of {len(vector.processes)} {how} (a simulator that "
                "crashed, or too little memory: lower --rollout.n_envs and --eval.batch_size)"
            )
    return ""


def asynchronous(env: Any) -> gym.vector.AsyncVectorEnv | None:
    """The vector environment with processes inside `env`; None where there is none, or none yet."""
    inner = env.unwrapped
    inner = vars(inner).get("_env", inner)  # LeRobot's starts them when they are first used
    return inner if isinstance(inner, gym.vector.AsyncVectorEnv) else None


def _join(processes: list[BaseProcess], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
