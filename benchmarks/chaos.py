"""`make chaos`: seeded faults in tiny runs, and whether each comes to what an undisturbed run gives.

    OMP_NUM_THREADS=1 python -m benchmarks chaos [--faults=200] [--seed=0] [--folder=outputs/chaos]

Every case runs a command that a fault strikes (`faults`, `disk`), and then the way on as a user would: a run
is resumed, a push is repeated. Its numbers, weights and training state must equal those of the run without a
fault. Cases that `folder` holds already are not run again.
"""

import argparse
import json
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from socket import SHUT_RDWR
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from hub_client import Client, Finished  # noqa: E402
from mini_hub import Handler, MiniHub, serve  # noqa: E402
from runs import contents, metrics  # noqa: E402
from tiny import save_policy  # noqa: E402

GRASPS = f"--policy.path={ROOT / 'recipes/grasps_base'} --env.type=grasps"
QUICK = "--eval.n_episodes=40 --eval.n_episodes_during=20 --eval.batch_size=20 --eval.n_videos=0"
POLICY = "--policy.path={folder}/tiny"
TINY = f"{POLICY} --env.type=avoiding --env.episode_length=8"
SHORT = f"{QUICK} --iterations=4 --save_freq=1 --eval_freq=2 --probe_freq=2"
DPPO = f"train --algorithm.type=dppo --algorithm.update_epochs=1 {SHORT}"
RUNS = {
    "plain": f"{DPPO} {TINY} --rollout.n_envs=4 --rollout.n_episodes=8",
    "workers": f"{DPPO} {POLICY} --env.type=chaos_points --rollout.n_envs=2 --rollout.n_episodes=4"
    " --rollout.use_async_envs=true",
    "guarded": f"train --algorithm.type=nft --algorithm.update_epochs=1 --guard.enable=true {GRASPS} {SHORT}"
    " --algorithm.commands.steps=20 --rollout.n_envs=40 --rollout.n_episodes=40",
    "recap": f"train --algorithm.type=recap --algorithm.n_rounds=2 --algorithm.batch_size=8"
    " --algorithm.label=quantile"
    f" --algorithm.value.steps=3 --policy.scheduler_warmup_steps=0 {TINY} {QUICK} --rollout.n_envs=4"
    " --rollout.n_episodes=8 --dataset.repo_id=local/demos --dataset.root={folder}/demos"
    " --iterations=6 --save_freq=2 --log_freq=1",
    "bc": "train --algorithm.type=bc --algorithm.batch_size=16 --env.type=avoiding --env.episode_length=8"
    f" --dataset.repo_id=local/demos --dataset.root={{folder}}/demos {QUICK}"
    " --iterations=6 --save_freq=1 --eval_freq=3 --log_freq=1 --policy.type=diffusion --policy.device=cpu"
    " --policy.push_to_hub=false --policy.n_obs_steps=1 --policy.horizon=8 --policy.n_action_steps=8"
    " --policy.drop_n_last_frames=0 --policy.down_dims=[8] --policy.diffusion_step_embed_dim=8"
    " --policy.num_train_timesteps=3",
    "push": "push --run_dir={folder}/plain/run --repo_id=user/tuned --license=mit",
}
DISK = ("kill", "power", "full", "signal")
FAULTS = {
    "plain": (*DISK, "tracker"), "workers": ("worker",), "guarded": (*DISK, "tracker"), "recap": DISK,
    "bc": (*DISK, "tracker"), "push": ("kill", "full", "signal", "upload", "upload"),
}  # fmt: skip
CASES = [(run, faults[turn]) for turn in range(5) for run, faults in FAULTS.items() if turn < len(faults)]
TRACKED = ("--tracker=wandb", "--wandb.mode=offline", "--wandb.disable_artifact=true")
WAYS = ("silent", "half", "500", "503")  # no answer, half of one, two codes
WAYS_ON = ("--resume", "start again", "nothing was")
NOT_BEGUN = ("has no whole checkpoint", "is not the folder of a run", "there is no")


ENDS = {
    "unharmed": "went on by itself", "resumed": "resumed, equal", "repeated": "repeated, equal",
    "not begun": "before the first checkpoint",
}  # fmt: skip


@dataclass
class Case:
    """What became of a fault.

    Attributes:
        at: what it struck, `of` so many that there were.
        end: "unharmed", "resumed", "repeated", "not begun", or "wrong": what it says.
        traceback: whether anything that was printed holds one.
    """

    number: int
    run: str
    fault: str
    at: int
    of: int
    end: str = ""
    traceback: bool = False


class Cutting(Handler):
    """Breaks answers off: those from number `at` on, or that one alone, in a way of WAYS."""

    def reply(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        cut = getattr(self.server, "cut", None)
        number = len(self.server.requests) + 1
        if cut is None or number < cut[0] or (cut[2] and number > cut[0]):
            super().reply(status, content, headers)
            return
        if cut[1].isdigit():
            super().reply(int(cut[1]), b"", {})
            return
        self.server.requests.append((self.command, self.path, 0))
        if cut[1] == "half":
            self.send_response(status)
            self.send_header("Content-Length", str(len(content) + 100))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
        self.close_connection = True
        self.connection.shutdown(SHUT_RDWR)


class Chaos:
    """Runs cases in `folder`, with clients that fork."""

    def __init__(self, folder: Path, seed: int, hub: MiniHub, client: Client) -> None:
        self.folder, self.seed, self.hub, self.client = folder, seed, hub, client
        self.counts: dict[str, int] = {}
        self.printed: list[str] = []

    def prepare(self) -> None:
        """Make what the runs begin with, and the runs without a fault."""
        if not (self.folder / "tiny").is_dir():
            save_policy(self.folder / "tiny")
            options = ("--env.type=avoiding", "--episodes_per_mode=1", f"--root={self.folder / 'demos'}")
            self.must(self.strike("demos", options, "", 0, self.folder))
        for run in RUNS:
            self.count(run, "")
            for fault in {"tracker", "worker"} & set(FAULTS[run]):
                self.count(run, fault)
        self.requests, self.reference = len(self.hub.requests), self.published()

    def count(self, run: str, fault: str) -> None:
        """Run without a fault, and note how often it could have struck."""
        key = f"{run} {fault}".strip()
        home, note = self.folder / key, self.folder / f"{key}.count"
        if not note.exists() or run == "push":  # whose hub is empty again
            shutil.rmtree(home, ignore_errors=True)
            home.mkdir()
            self.must(self.command(run, f"{fault} count" if fault else "", home))
            note.write_text(str(self.reported))
        self.counts[key] = int(note.read_text())

    def command(self, run: str, fault: str, home: Path, at: int = 0) -> Finished:
        command, *options = RUNS[run].format(folder=self.folder).split()
        if fault.startswith("tracker"):
            options += TRACKED
        if run != "push":
            options.append(f"--output_dir={home / 'run'}")
        return self.strike(command, options, fault, at, home)

    def strike(self, command: str, options: Any, fault: str, at: int, home: Path) -> Finished:
        report = self.folder / "report"
        report.unlink(missing_ok=True)
        job = (command, list(options), fault, at, str(home), str(report))
        code = f"from benchmarks.faults import strike; strike(*{job!r})"
        (home / "tmp").mkdir(exist_ok=True)
        done = self.client.run("python", code, TMPDIR=str(home / "tmp"))
        self.reported = report.stat().st_size if report.exists() else 0
        self.printed.append(f"{command} {fault} {at} -> {done.status}\n{done.out}{done.err}")
        return done

    def must(self, done: Finished) -> None:
        if done.status:
            sys.exit(f"{done.status}: {self.printed[-1]}")

    def run(self, number: int) -> Case:
        """One case, all of which follows from its number and the seed."""
        run, fault = CASES[number % len(CASES)]
        random, key = Random(f"{self.seed} {number}"), fault if fault in ("tracker", "worker") else ""
        of = self.requests if fault == "upload" else self.counts[f"{run} {key}".strip()]
        case = Case(number, run, fault, random.randint(1, of), of)
        home = self.folder / f"case_{number:04}"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        self.printed = []
        case.end = self.push(case, home, random) if run == "push" else self.train(case, home)
        case.traceback = any("Traceback" in text for text in self.printed)
        if case.traceback or case.end.startswith("wrong"):
            (home / "printed.txt").write_text("\n".join(self.printed))
        else:
            shutil.rmtree(home)
        return case

    # What must become of it

    def train(self, case: Case, home: Path) -> str:
        run = home / "run"
        done = self.command(case.run, case.fault, home, case.at)
        if done.status == -14:
            return "wrong: it hangs"
        if done.status == 0:
            return self.compared(case, run) or "unharmed"
        killed = case.fault in ("kill", "power")
        if killed != (done.status == -9):
            return f"wrong: it ended with {done.status}"
        if not killed and not any(words in done.err for words in WAYS_ON):
            return "wrong: no way on was told"
        done = self.strike("train", [f"--resume={run}"], "", 0, home)
        if done.status and any(words in done.err for words in NOT_BEGUN):
            return "not begun" if not list(run.glob("checkpoints/0*")) else "wrong: no checkpoint was whole"
        return "wrong: it does not resume" if done.status else self.compared(case, run) or "resumed"

    def compared(self, case: Case, run: Path) -> str:
        """How a finished run differs from the one without a fault; empty where it does not."""
        whole = self.folder / case.run / "run"
        if metrics(run) != metrics(whole):
            return "wrong: other metrics"
        mine, its = (state(folder / "checkpoints" / "last") for folder in (run, whole))
        if different := [name for name in mine | its if mine.get(name) != its.get(name)]:
            return f"wrong: {', '.join(different)}"
        left = [str(path.relative_to(run)) for path in run.rglob(".partial*")]
        return f"wrong: left {left}" if left else ""

    def push(self, case: Case, home: Path, random: Random) -> str:
        self.hub.repos.clear()
        self.hub.requests.clear()
        if case.fault == "upload":
            self.hub.cut = case.at, random.choice(WAYS), random.random() < 0.5
        done = self.command("push", "" if case.fault == "upload" else case.fault, home, case.at)
        self.hub.cut = None
        if done.status == -14:
            return "wrong: it hangs"
        end = "unharmed"
        if done.status:
            end = "repeated"
            again = self.command("push", "", home)
            if again.status:
                return "wrong: it cannot be repeated"
        if self.published() != self.reference:
            return "wrong: something else was published"
        left = list((home / "tmp").iterdir()) if case.fault != "kill" else []
        return f"wrong: left {left}" if left else end

    def published(self) -> dict[str, bytes]:
        return self.hub.repos["model", "user/tuned"].files()


def state(checkpoint: Path) -> dict[str, object]:
    """A checkpoint's content but for what belongs to this run alone."""
    content = contents(checkpoint)
    return content | {"state": {k: v for k, v in content["state"].items() if k != "wandb_run_id"}}


def table(cases: list[Case]) -> str:
    """Counts as Markdown, a line for each kind of run and fault."""
    rows = [["run", "fault", "faults", *ENDS.values(), "wrong", "tracebacks"]]
    keys = sorted({(c.run, c.fault) for c in cases}, key=lambda key: (list(RUNS).index(key[0]), key[1]))
    for run, fault in [*keys, ("all", "")]:
        group = [c for c in cases if run == "all" or (c.run, c.fault) == (run, fault)]
        count = Counter(c.end.partition(":")[0] for c in group)
        numbers = [len(group), *(count[end] for end in ENDS), count["wrong"], sum(c.traceback for c in group)]
        rows.append([run, fault, *map(str, numbers)])
    rows.insert(1, ["---"] * len(rows[0]))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


@contextmanager
def stage(folder: Path) -> Iterator[tuple[MiniHub, Client]]:
    """A hub whose answers can be cut, and a client of it."""
    with serve() as hub:
        hub.RequestHandlerClass = Cutting
        client = Client(hub.url, folder / "home")
        try:
            yield hub, client
        finally:
            client.close()


def main(arguments: list[str]) -> int:
    """Run the cases that are missing and print the table; the number of those that went wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks chaos", description=__doc__)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("outputs/chaos"))
    options = parser.parse_args(arguments)
    folder = options.folder.resolve() / f"seed_{options.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / "cases.jsonl"
    cases = [Case(**json.loads(line)) for line in record.read_text().splitlines()] if record.exists() else []
    missing = sorted(set(range(options.faults)) - {case.number for case in cases})
    if missing:
        with stage(folder) as (hub, client):
            chaos = Chaos(folder, options.seed, hub, client)
            chaos.prepare()
            for number in missing:
                case = chaos.run(number)
                cases.append(case)
                with record.open("a") as file:
                    file.write(json.dumps(asdict(case)) + "\n")
                what = f"{number} {case.run} {case.fault} {case.at}/{case.of}: {case.end}"
                print(what, "TRACEBACK" * case.traceback, file=sys.stderr, flush=True)
    print(table(cases))
    return sum(case.traceback or case.end.startswith("wrong") for case in cases)
