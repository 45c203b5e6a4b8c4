"""Runs commands as a user would, against a stand-in for the Hub, without paying for the imports each time.

A process of its own imports everything once, with `HF_ENDPOINT` set before huggingface_hub is imported, and
forks for each command: the client is the stock one.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).parent


@dataclass
class Finished:
    """What a command left: exit status, and everything it printed."""

    status: int
    out: str
    err: str


class Client:
    """Starts the process; `home` holds its cache.

    Args:
        url: of the Hub.
    """

    def __init__(self, url: str, home: Path) -> None:
        home.mkdir(parents=True, exist_ok=True)
        dropped = ("HF_", "HUGGING", "WANDB")
        environment = {k: v for k, v in os.environ.items() if not k.startswith(dropped)} | {
            "HF_ENDPOINT": url, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(home / "hf"), "HOME": str(home),
            "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path]),
        }  # fmt: skip
        self.home = home
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=home,
            env=environment,
        )  # fmt: skip

    def run(
        self, command: str, *arguments: object, token: str | None = "hf_write", **variables: str
    ) -> Finished:
        """`lerobot-rlft-COMMAND ARGUMENTS`; or with `python` some lines of Python."""
        files = [self.home / f"printed.{name}" for name in ("out", "err")]
        variables |= {"HF_TOKEN": token} if token else {}
        job = [command, [str(a) for a in arguments], variables, *map(str, files)]
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        status = int(self.process.stdout.readline())
        return Finished(status, *(file.read_text() for file in files))

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(timeout=30)


def serve() -> None:
    """Read jobs from stdin, fork for each, answer its exit status."""
    import traceback
    from functools import cache
    from importlib import import_module

    from draccus.wrappers.field_wrapper import docstring as docs
    from lerobot.utils.import_utils import register_third_party_plugins

    from lerobot_rlft import algorithms  # noqa: F401
    from lerobot_rlft.configs.eval import EvalPipelineConfig
    from lerobot_rlft.configs.parser import parse_command_line
    from lerobot_rlft.configs.push import PushConfig
    from lerobot_rlft.configs.train import TrainConfig

    register_third_party_plugins()
    names = ("train", "eval", "push", "compare")
    mains = {name: import_module(f"lerobot_rlft.cli.{name}").main for name in names}
    for name in ("training.trainer", "hub.bundle", "evaluation.leaderboard", "evaluation.comparison"):
        import_module(f"lerobot_rlft.{name}")
    # Each parse would read the sources of all policies anew for the help texts.
    docs.get_attribute_docstring = cache(docs.get_attribute_docstring)
    for config in (TrainConfig, EvalPipelineConfig, PushConfig):
        sys.argv = [
            "warm",
            *(["--algorithm.type=dppo", "--env.type=grasps"] if config is TrainConfig else []),
        ]
        parse_command_line(config)
    for line in sys.stdin:
        command, arguments, variables, out, err = json.loads(line)
        if (child := os.fork()) == 0:
            for file, number in ((out, 1), (err, 2)):
                with open(file, "w") as opened:
                    os.dup2(opened.fileno(), number)
            os.environ |= variables
            try:
                if command == "python":
                    exec(arguments[0], {})
                else:
                    sys.argv = [f"lerobot-rlft-{command}", *arguments]
                    mains[command]()
                status = 0
            except SystemExit as stop:
                print(stop.code, file=sys.stderr)
                status = int(stop.code is not None)
            except BaseException:
                traceback.print_exc()
                status = 2
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)  # the threads that the imports started are not there to be waited for
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(status, flush=True)


if __name__ == "__main__":
    serve()
