"""Publishing on the Hub and getting it back, with the stock client against a stand-in."""

import hashlib
import json
import shlex
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from hub_client import Client
from huggingface_hub import DatasetCard, ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results
from mini_hub import MiniHub, serve
from runs import contents, metrics
from safetensors.torch import load_file

from lerobot_rlft.configs.push import PushConfig
from lerobot_rlft.hub import bundle
from lerobot_rlft.hub.bundle import copy, dry_run
from lerobot_rlft.utils.errors import UserError

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PLAIN = f"--config_path={ROOT / 'recipes/grasps_plain.yaml'}"
QUICK = (PLAIN, "--eval.n_episodes=100", "--eval.batch_size=100", "--probe_freq=0")
TUNED = (*QUICK, "--policy.path=user/base", "--iterations=2", "--save_freq=1", "--license=mit")


@pytest.fixture(autouse=True)
def no_network_here(monkeypatch):
    """In this process; the stand-in's clients have their own. Without a network, retries take minutes."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def hub():
    with serve() as hub:
        hub.add("user/base", ROOT / "recipes/grasps_base")
        yield hub


@pytest.fixture(scope="module")
def client(hub, tmp_path_factory):
    client = Client(hub.url, tmp_path_factory.mktemp("home"))
    yield client
    client.close()


@pytest.fixture(scope="module")
def published(hub, client, tmp_path_factory) -> tuple[Path, str]:
    """The folder of a run that pushed each checkpoint and itself to user/tuned, and what it printed."""
    run = tmp_path_factory.mktemp("runs") / "tuned"
    options = ("--push_to_hub=true", "--save_checkpoint_to_hub=true", "--repo_id=user/tuned")
    done = client.run("train", *TUNED, *options, f"--output_dir={run}")
    assert done.status == 0, done.err
    return run, done.out + done.err


@pytest.fixture(autouse=True)
def repaired(request):
    """A hub that a test broke is whole again for the next."""
    yield
    if "hub" in request.fixturenames:
        request.getfixturevalue("hub").broken.clear()


def tree(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def files(hub: MiniHub, repo: str, revision: str = "main") -> dict[str, bytes]:
    return hub.repos["model", repo].files(revision)


def error(done) -> str:
    """The one line that a command ended with."""
    assert done.status == 1, done.err
    last = done.err.strip().rpartition("error: ")
    assert last[1], done.err
    return last[2]


def test_a_run_pushes_its_checkpoints_by_tag_and_itself_at_the_end(hub, published):
    repo, (run, printed) = hub.repos["model", "user/tuned"], published
    assert list(repo.tags) == ["000001", "000002"] and len(repo.commits) == 4  # and the empty first
    held = files(hub, "user/tuned")
    assert set(held) >= {
        "README.md", "config.json", "model.safetensors", "policy_preprocessor.json",
        "policy_postprocessor.json", "rlft_config.yaml", "diversity.json", "metrics.jsonl", "report.html",
        "pictures/shares.png", "pictures/training/learning_curve.png", "training_state/state.json",
    }  # fmt: skip
    checkpoints = run / "checkpoints"
    for tag in repo.tags:
        policy = checkpoints / tag / "pretrained_model"
        assert (
            files(hub, "user/tuned", tag)["model.safetensors"] == (policy / "model.safetensors").read_bytes()
        )
        assert "diversity.json" not in files(
            hub, "user/tuned", tag
        )  # not evaluated yet, and the card says so
        assert b"was not evaluated" in files(hub, "user/tuned", tag)["README.md"]
    assert held["model.safetensors"] == files(hub, "user/tuned", "000002")["model.safetensors"]
    assert held["metrics.jsonl"] == (run / "metrics.jsonl").read_bytes()
    assert f"Published: {hub.url}/user/tuned/commit/{repo.sha('main')}" in printed


def test_the_card_says_what_was_measured_and_nothing_else(hub, published):
    card = ModelCard(files(hub, "user/tuned")["README.md"].decode())
    data, summary = card.data.to_dict(), json.loads((published[0] / "summary.json").read_text())
    fixed = {"library_name": "lerobot", "pipeline_tag": "robotics", "license": "mit"}
    assert data.items() >= (fixed | {"base_model": "user/base", "base_model_relation": "finetune"}).items()
    assert set(data["tags"]) >= {
        "lerobot",
        "robotics",
        "reinforcement-learning",
        "diffusion",
        "dppo",
        "grasps",
    }
    name, results = model_index_to_eval_results(data["model-index"])
    found = {result.metric_type: result for result in results}
    assert name == "tuned" and found["success"].metric_value == summary["tuned"]["success"]
    assert found["success"].metric_args["ci_95"] == summary["tuned"]["success_ci"]
    assert found["success"].metric_args["base"] == summary["base"]["success"]
    assert found["success"].dataset_args == {"n_episodes": 100, "first_seed": 1_000_000}
    # 100 episodes carry no claim about 5 modes (20 successes of each are needed), and none is made.
    numbers = json.loads(files(hub, "user/tuned")["diversity.json"])
    assert (numbers["claim_refusal"] is None) == ("entropy_ratio" in found)
    if numbers["claim_refusal"] is not None:
        assert list(found) == ["success"] and numbers["claim_refusal"] in card.content
    low, high = (f"{bound:.3f}".removeprefix("0") for bound in summary["tuned"]["success_ci"])
    assert f"[{low}, {high}]" in card.text and "100 episodes of each" in card.text
    commit = hub.repos["model", "user/base"].sha("main")
    assert "1. tuned by dppo, iteration 2 of 2 iterations, seed 1000, from [user/base]" in card.text
    assert commit[:8] in card.text and "![Modes of base and tuned policy](pictures/shares.png)" in card.text
    assert "Stock LeRobot is enough" in card.text and "lerobot-eval --policy.path=user/tuned" in card.text
    assert (
        "arxiv.org/abs/2409.00588" in card.text
        and "seed 1000: nothing is said about other seeds" in card.text
    )


def test_nothing_that_is_published_names_the_machine_or_the_token(hub, client, published, tmp_path):
    """A run whose base, folder and dataset are absolute paths, and a report about it."""
    base, run = tmp_path / "secret" / "base", tmp_path / "secret" / "run"
    shutil.copytree(ROOT / "recipes/grasps_base", base)
    done = client.run("train", *QUICK, "--iterations=1", f"--policy.path={base}", f"--output_dir={run}")
    assert done.status == 0, done.err
    evaluated = client.run(
        "eval", f"--policy.path={run}/checkpoints/last/pretrained_model", "--env.type=grasps",
        "--n_episodes=40", "--n_attempts=16", f"--output_dir={tmp_path}/secret/eval",
    )  # fmt: skip
    assert evaluated.status == 0, evaluated.err
    before = tree(run)
    pushed = client.run(
        "push", f"--run_dir={run}", "--repo_id=user/private", "--private=true", "--training_state=true",
        f"--eval_dir={tmp_path}/secret/eval",
    )  # fmt: skip
    assert pushed.status == 0, pushed.err
    assert tree(run) == before and hub.repos["model", "user/private"].private
    held = files(hub, "user/private")
    assert {"report.html", "pictures/fans.png", "pictures/training/kl.png"} <= held.keys()
    for name, content in held.items():
        for secret in (str(tmp_path), str(Path.home()), "secret", str(ROOT), "hf_write"):
            assert secret.encode() not in content, (name, secret)
    assert "hf_write" not in pushed.out + pushed.err + published[1]
    card = ModelCard(held["README.md"].decode())
    assert "base_model" not in card.data.to_dict() and "`base`, which is not on the Hub" in card.text
    assert yaml.safe_load(held["rlft_config.yaml"])["policy"]["pretrained_path"] == "base"
    assert json.loads(held["config.json"])["pretrained_path"] is None

    # The base is put on the Hub later: the same push names it, if it is that one.
    wrong = client.run("push", f"--run_dir={run}", "--repo_id=user/other", "--base_model=user/tuned")
    assert "--base_model=user/tuned is not what the run was tuned from" in error(wrong)
    right = client.run("push", f"--run_dir={run}", "--repo_id=user/other", "--base_model=user/base")
    assert right.status == 0, right.err
    assert ModelCard(files(hub, "user/other")["README.md"].decode()).data.base_model == "user/base"


def test_a_push_is_repeated_without_a_commit_and_a_broken_one_leaves_none(hub, client, published, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(published[0], run, symlinks=True)
    lines = (run / "metrics.jsonl").read_text()
    # Above 10 MB: the Hub wants it as a large file.
    padding = json.dumps({"kind": "train", "iteration": 0, "env_steps": 0, "padding": "x" * 11_000_000})
    (run / "metrics.jsonl").write_text(lines + padding + "\n")
    push = ("push", f"--run_dir={run}", "--repo_id=user/again")
    for broken in ("lfs", "commit"):
        hub.broken.add(broken)
        assert "the Hub answered" in error(client.run(*push))
        hub.broken.clear()
        assert files(hub, "user/again") == {}
    assert client.run(*push).status == 0
    repo = hub.repos["model", "user/again"]
    commits = dict(repo.commits)
    content, large = commits[repo.sha("main")][2]["metrics.jsonl"]
    assert large and content == (run / "metrics.jsonl").read_bytes() and len(content) > 10_000_000
    assert client.run(*push).status == 0
    assert repo.commits == commits


def test_what_an_earlier_push_left_goes_and_what_others_added_stays(hub, client, published, tmp_path):
    push = ("push", f"--run_dir={published[0]}", "--repo_id=user/cleaned")
    assert client.run(*push, "--training_state=true").status == 0
    repo = hub.repos["model", "user/cleaned"]
    own = {"demo.mp4": (b"film", True), "pictures/own.png": (b"own", True)}
    repo.commit("by hand", repo.commits[repo.sha("main")][2] | own)
    assert client.run(*push, "--tag=v1").status == 0
    assert "demo.mp4" in repo.files() and not any(f.startswith("training_state/") for f in repo.files())
    assert repo.tags["v1"] == repo.sha("main")
    assert client.run(*push, "--branch=other", "--checkpoint=000001").status == 0
    first = (published[0] / "checkpoints/000001/pretrained_model/model.safetensors").read_bytes()
    assert repo.files("other")["model.safetensors"] == first != repo.files()["model.safetensors"]


def test_a_push_that_fails_at_the_end_keeps_the_run_and_says_how_to_push_later(hub, client, tmp_path):
    hub.broken.add("commit")
    run = tmp_path / "run"
    options = ("--push_to_hub=true", "--save_checkpoint_to_hub=true", "--repo_id=user/late")
    done = client.run("train", *TUNED, *options, f"--output_dir={run}")
    said = error(done)
    assert "warning: checkpoint 000001 was not pushed" in done.err + done.out
    assert f"the run is finished and lies in {run}, but was not pushed" in said
    assert (run / "summary.json").is_file() and files(hub, "user/late") == {}
    hub.broken.clear()
    name, *arguments = shlex.split(said.rpartition("\n")[2])
    later = client.run(name.removeprefix("lerobot-rlft-"), *arguments)
    assert later.status == 0, later.err
    assert "model.safetensors" in files(hub, "user/late")


@pytest.mark.parametrize(
    "token, repo, words",
    [
        (None, "user/denied", "nobody is logged in to the Hub: log in with `hf auth login`"),
        ("hf_wrong", "user/denied", "the token was refused"),
        ("hf_read", "user/denied", "the token may only read"),
        ("hf_write", "someone/denied", "no right to write to someone/denied"),
        ("hf_write", "denied", "--repo_id=denied is no id on the Hub: give user/name"),
        ("hf_write", "user/de nied", "--repo_id=user/de nied is no id on the Hub"),
    ],
)
def test_who_may_not_push_is_told_so(token, repo, words, hub, client, published, tmp_path):
    done = client.run("push", f"--run_dir={published[0]}", f"--repo_id={repo}", token=token)
    assert words in error(done) and (not token or token not in done.out + done.err)
    assert ("model", repo) not in hub.repos
    if repo == "user/denied":  # a training that is to push is refused before it begins
        base, run = f"--policy.path={ROOT / 'recipes/grasps_base'}", tmp_path / "run"
        push = ("--push_to_hub=true", f"--repo_id={repo}", f"--output_dir={run}")
        assert words in error(client.run("train", *QUICK, base, *push, token=token))
        assert not run.exists()


def test_without_network_it_is_one_line_at_once(published, tmp_path):
    client = Client("http://127.0.0.1:9", tmp_path / "home")  # nothing listens there
    try:
        before = tree(published[0])
        done = client.run("push", f"--run_dir={published[0]}", "--repo_id=user/tuned")
        assert "the Hub cannot be reached" in error(done) and tree(published[0]) == before
        done = client.run("compare", "user/tuned", f"--output_dir={tmp_path / 'compared'}")
        assert "user/tuned has no diversity.json that can be read" in error(done)
        done = client.run("train", "--resume=hub:user/tuned", f"--output_dir={tmp_path / 'run'}")
        assert "the Hub cannot be reached" in error(done) and not (tmp_path / "run").exists()
    finally:
        client.close()


def test_a_published_policy_is_evaluated_by_its_id_beside_its_base(client, published, tmp_path):
    done = client.run(
        "eval", "--policy.path=user/tuned@000001", "--env.type=grasps", "--n_episodes=100",
        "--batch_size=100", "--n_attempts=0", f"--output_dir={tmp_path / 'eval'}",
    )  # fmt: skip
    assert done.status == 0, done.err
    m = json.loads((tmp_path / "eval/diversity.json").read_text())
    first = published[0] / "checkpoints/000001/pretrained_model/model.safetensors"
    assert (m["policy"], m["base"]) == ("user/tuned", "user/base")
    assert m["weights"] == hashlib.sha256(first.read_bytes()).hexdigest()
    missing = client.run("eval", "--policy.path=user/none", "--env.type=grasps")
    assert "--policy.path=user/none is no folder here and cannot be read from the Hub" in error(missing)
    missing = client.run("eval", "--policy.path=user/tuned@v9", "--env.type=grasps")
    assert "--policy.path=user/tuned@v9" in error(missing)


def test_a_run_is_continued_from_the_hub_as_if_it_had_not_stopped(client, published, tmp_path):
    run = tmp_path / "elsewhere"
    done = client.run("train", "--resume=hub:user/tuned@000001", f"--output_dir={run}")
    assert done.status == 0, done.err
    assert contents(run / "checkpoints/000002") == contents(published[0] / "checkpoints/000002")
    assert metrics(run) == metrics(published[0])
    again = client.run("train", "--resume=hub:user/tuned", f"--output_dir={run}")
    assert f"--resume={run}" in error(again)
    other = client.run("train", "--resume=hub:user/base", f"--output_dir={tmp_path / 'none'}")
    assert "holds no training state" in error(other) and not (tmp_path / "none").exists()


def test_a_tuned_policy_is_tuned_again_and_the_card_shows_the_chain(hub, client, published, tmp_path):
    done = client.run(
        "train", *QUICK, "--policy.path=user/tuned@000001", "--iterations=1", "--push_to_hub=true",
        "--repo_id=user/twice", f"--output_dir={tmp_path / 'run'}",
    )  # fmt: skip
    assert done.status == 0, done.err
    card = ModelCard(files(hub, "user/twice")["README.md"].decode())
    assert card.data.base_model == "user/tuned" and card.data.license == "mit"  # inherited
    tag = hub.repos["model", "user/tuned"].tags["000001"]
    assert f"from [user/tuned](https://huggingface.co/user/tuned/tree/{tag})" in card.text
    assert "2. tuned by dppo, a run of 2 iterations, seed 1000, from [user/base]" in card.text
    # Stock LeRobot takes the revision in config.json for the policy's own.
    assert json.loads(files(hub, "user/twice")["config.json"])["pretrained_revision"] is None


def test_pickles_and_foreign_code_are_refused_unless_trusted(hub, client, tmp_path):
    folder = tmp_path / "pickled"
    shutil.copytree(ROOT / "recipes/grasps_base", folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    hub.add("user/pickled", folder)
    evaluate = ("eval", "--base.path=user/base", "--env.type=grasps", "--n_episodes=4", "--n_attempts=0")
    for place in ("user/pickled", folder):
        said = error(client.run(*evaluate, f"--policy.path={place}"))
        assert "pytorch_model.bin, a pickle" in said and "--trust_remote_code=true" in said
        out = tmp_path / f"eval_{len(str(place))}"
        trusted = client.run(
            *evaluate, f"--policy.path={place}", "--trust_remote_code=true", f"--output_dir={out}"
        )
        assert trusted.status == 0, trusted.err
        assert json.loads((out / "diversity.json").read_text())["chunk_spread"] == 1.0  # the base's weights

    foreign, touched = tmp_path / "foreign", tmp_path / "touched"
    shutil.copytree(ROOT / "recipes/grasps_base", foreign)
    processor = json.loads((foreign / "policy_preprocessor.json").read_text())
    processor["steps"].append({"class": "subprocess.Popen", "config": {"args": ["touch", str(touched)]}})
    (foreign / "policy_preprocessor.json").write_text(json.dumps(processor))
    said = error(client.run(*evaluate, f"--policy.path={foreign}"))
    assert "class 'subprocess.Popen'" in said and "--trust_remote_code=true" in said and not touched.exists()


def test_compare_makes_a_table_for_each_way_of_evaluating(client, published, tmp_path):
    done = client.run(
        "eval", "--policy.path=user/tuned", "--env.type=grasps", "--n_episodes=50", "--n_attempts=0",
        f"--output_dir={tmp_path / 'eval'}",
    )  # fmt: skip
    assert done.status == 0, done.err
    out = tmp_path / "compared"
    done = client.run("compare", "user/tuned", "user/again", tmp_path / "eval", f"--output_dir={out}")
    assert done.status == 0, done.err
    assert sorted(p.name for p in out.iterdir()) == [
        "compare.csv",
        "compare.json",
        "compare.md",
        "compare.png",
    ]
    assert "evaluated in 2 different ways" in done.out and "| user/again | user/base@" in done.out
    assert done.out.index("100 episodes") < done.out.index("user/again") < done.out.index("50 episodes")
    assert f"--output_dir={out} exists" in error(client.run("compare", "user/tuned", f"--output_dir={out}"))
    assert "user/base has no diversity.json" in error(client.run("compare", "user/base"))


def test_another_policy_type_or_a_public_repository_is_not_overwritten(hub, client, published, tmp_path):
    (tmp_path / "act").mkdir()
    (tmp_path / "act/config.json").write_text('{"type": "act"}')
    before = hub.add("user/act", tmp_path / "act").sha("main")
    said = error(client.run("push", f"--run_dir={published[0]}", "--repo_id=user/act"))
    assert "--repo_id=user/act holds a policy of type act, this one is diffusion" in said
    said = error(client.run("push", f"--run_dir={published[0]}", "--repo_id=user/base", "--private=true"))
    assert "exists and is public" in said
    assert hub.repos["model", "user/act"].sha("main") == before


def test_recorded_episodes_are_a_dataset_on_the_hub_that_is_read_back(hub, client, published, tmp_path):
    out = tmp_path / "eval"
    done = client.run(
        "eval", "--policy.path=user/tuned", "--env.type=grasps", "--n_episodes=30", "--batch_size=30",
        "--n_attempts=0", "--record=true", "--push_dataset=user/played", f"--output_dir={out}",
    )  # fmt: skip
    assert done.status == 0, done.err
    m = json.loads((out / "diversity.json").read_text())
    read = """
import numpy as np
from lerobot.datasets import LeRobotDataset
data = LeRobotDataset("user/played").hf_dataset.with_format("numpy")
column = lambda name: np.asarray(data[name][:]).reshape(-1)
success, mode, done = column("next.success"), column("mode"), column("next.done")
assert done.sum() == 30 and not column("intervention").any() and np.isfinite(column("next.reward")).all()
print(int(success.sum()), np.bincount(mode[success], minlength=5).tolist())
"""
    back = client.run("python", read, HF_LEROBOT_HOME=str(tmp_path / "lerobot"))
    assert back.status == 0, back.err
    # The episodes that were evaluated are those that were recorded.
    assert back.out.splitlines()[-1] == f"{m['n_success']} {m['mode_counts']}"
    repo = hub.repos["dataset", "user/played"]
    card = DatasetCard(repo.files()["README.md"].decode())
    assert card.data.task_categories == ["robotics"] and "LeRobot" in card.data.tags
    assert "30 episodes (30 frames" in card.text and "[user/tuned](https://huggingface.co" in card.text
    assert len(repo.commits) == 2 and str(tmp_path).encode() not in b"".join(repo.files().values())
    said = error(client.run("eval", "--policy.path=user/tuned", "--env.type=grasps", "--push_dataset=user/x"))
    assert "push_dataset=user/x needs recorded episodes: give --record=true" in said


# Without the Hub


@pytest.fixture
def finished(published, tmp_path) -> Path:
    """A run to be changed, whose base is taken for one in a folder: nothing is asked of the Hub."""
    run = tmp_path / "run"
    shutil.copytree(published[0], run, symlinks=True)
    for file in run.glob("checkpoints/*/pretrained_model/rlft_config.yaml"):
        content = yaml.safe_load(file.read_text())
        content["policy"]["pretrained_revision"] = None
        file.write_text(yaml.safe_dump(content))
    return run


def options(run: Path, **fields) -> PushConfig:
    return PushConfig(run, "user/name", dry_run=True, output_dir=run.with_name("sent"), **fields)


def test_a_dry_run_writes_the_folder_and_lists_it_with_sizes(finished):
    before = tree(finished)
    said = dry_run(options(finished))
    sent = finished.with_name("sent")
    assert tree(finished) == before and "nothing was sent" in said
    listed = dict(reversed(line.split()) for line in said.splitlines()[:-2])
    assert {k: int(v.replace(",", "")) for k, v in listed.items()} == {
        name: (sent / name).stat().st_size for name in tree(sent)
    }
    assert [p.name for p in sent.parent.iterdir() if p.name.startswith(".")] == []


def test_a_run_that_has_not_finished_is_pushed_by_name_only(finished):
    (finished / "summary.json").unlink()
    with pytest.raises(UserError, match=r"has not finished: go on with .*--resume=.*--checkpoint=000002"):
        dry_run(options(finished))
    assert "diversity.json" not in dry_run(options(finished, checkpoint="000002"))
    text = (finished.with_name("sent") / "README.md").read_text()
    assert "model-index" not in text and "iteration 2 of 2) was not evaluated" in text
    with pytest.raises(UserError, match=r"no whole checkpoint 000009, known: 000000, 000001, 000002"):
        dry_run(options(finished, checkpoint="000009"))
    with pytest.raises(UserError, match=r"--checkpoint=\.\./elsewhere is no checkpoint of --run_dir="):
        dry_run(options(finished, checkpoint="../elsewhere"))
    shutil.rmtree(finished / "checkpoints")
    with pytest.raises(UserError, match=r"is not the folder of a run: it has no checkpoints/"):
        dry_run(options(finished))


def test_the_card_is_about_the_checkpoint_and_not_about_what_it_began_with(finished):
    """A guarded run exports another policy type than it began with."""
    for file in finished.glob("checkpoints/*/pretrained_model/config.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"type": "rlft_commanded"}))
    dry_run(options(finished))
    card = ModelCard.load(finished.with_name("sent") / "README.md")
    assert "A LeRobot `rlft_commanded` policy" in card.text and "belongs to the plugin" in card.text
    assert {"rlft_commanded", "diffusion"} <= set(
        card.data.tags
    ) and "Stock LeRobot is enough" not in card.text


def test_a_template_with_an_unknown_field_is_refused(finished, tmp_path):
    template = tmp_path / "card.md"
    template.write_text("---\n{{ card_data }}\n---\n{{ repo_id }} by {{ author }}")
    with pytest.raises(UserError, match=r"unknown field author, known: .*headline.*repo_id"):
        dry_run(options(finished, card_template=template))
    template.write_text("---\n{{ card_data }}\n---\n# Mine: {{ repo_id }}")
    dry_run(options(finished, card_template=template))
    assert (finished.with_name("sent") / "README.md").read_text().endswith("# Mine: user/name")
    template.write_text("{% for %}")
    with pytest.raises(UserError, match="is no template"):
        dry_run(options(finished, card_template=template))


def test_a_report_about_another_policy_is_refused(finished, tmp_path):
    with pytest.raises(UserError, match=r"--eval_dir=.* holds no report"):
        dry_run(options(finished, eval_dir=tmp_path))
    numbers = {"policy": "user/x", "weights": "0", "others": {}}
    (tmp_path / "diversity.json").write_text(json.dumps(numbers))
    (tmp_path / "report.html").write_text("")
    (tmp_path / "report.json").write_text("{}")
    (tmp_path / "pictures").mkdir()
    with pytest.raises(UserError, match=r"is about user/x, whose weights are not those of"):
        dry_run(options(finished, eval_dir=tmp_path))


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    (tmp_path / "staged").mkdir()
    (tmp_path / "staged/weights").write_bytes(b"1")
    with pytest.raises(UserError, match=r"--output_dir=.*out cannot be written \(.*No space left"):
        copy(tmp_path / "staged", tmp_path / "deep" / "out")
    assert list((tmp_path / "deep").iterdir()) == []


def test_a_run_without_environment_states_no_numbers(bc_config):
    from lerobot_rlft.training.trainer import Trainer

    config = bc_config(iterations=1)
    Trainer(config).train()
    dry_run(options(config.output_dir))
    card = ModelCard.load(config.output_dir.with_name("sent") / "README.md")
    data = card.data.to_dict()
    assert "model-index" not in data and "base_model" not in data and "datasets" not in data  # local/tiny
    assert "Not stated: success and modes, the run had no environment" in card.text
    assert (
        "1. trained from scratch by bc, iteration 1 of 1 iterations, seed 1000, on `local/tiny`" in card.text
    )


def with_base(run: Path, place: Path) -> Path:
    """The run, tuned from a copy of the base in `place`."""
    shutil.copytree(ROOT / "recipes/grasps_base", place)
    for file in run.glob("checkpoints/*/pretrained_model/rlft_config.yaml"):
        content = yaml.safe_load(file.read_text())
        content["policy"] |= {"pretrained_path": str(place), "license": None}
        file.write_text(yaml.safe_dump(content))
    return place


@pytest.mark.parametrize(
    "card", [b"---\nlicense: [a\n---\n", b"\xff\xfe", b"", b"---\n- a\n---\n", b"---\nlicense: [a, b]\n---\n"]
)
def test_a_damaged_card_of_the_base_is_left_out(card, finished, tmp_path):
    (with_base(finished, tmp_path / "base") / "README.md").write_bytes(card)
    for file in finished.glob("checkpoints/*/pretrained_model/config.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"license": None}))
    dry_run(options(finished))
    data = ModelCard.load(finished.with_name("sent") / "README.md").data
    assert data.license is None and data.datasets is None


def test_the_dataset_of_the_base_is_one_name(finished, tmp_path):
    base = with_base(finished, tmp_path / "base")
    (base / "README.md").write_text("---\ndatasets: user/data\n---\n")
    dry_run(options(finished))
    assert ModelCard.load(finished.with_name("sent") / "README.md").data.datasets == ["user/data"]


def test_half_lines_are_left_out_and_told(finished, capsys):
    with (finished / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "tr')
    dry_run(options(finished))
    assert "1 of " in (told := capsys.readouterr().out) and "metrics.jsonl cannot be read" in told
    sent = (finished.with_name("sent") / "metrics.jsonl").read_text()
    assert all(map(json.loads, sent.splitlines()))


def test_half_a_summary_is_a_run_that_has_not_finished(finished, capsys):
    (finished / "summary.json").write_text('{"tuned": ')
    dry_run(options(finished, checkpoint="000002"))
    assert "summary.json cannot be read" in capsys.readouterr().out


@pytest.mark.parametrize("config", ["a: 1", "- a", "[", "algorithm: {type: nobodys}\nenv: null"])
def test_a_foreign_configuration_is_one_sentence(config, finished):
    for file in finished.glob("checkpoints/*/pretrained_model/rlft_config.yaml"):
        file.write_text(config)
    with pytest.raises(UserError, match=r"rlft_config.yaml (is no configuration|cannot be read|holds no)"):
        dry_run(options(finished))


def test_json_of_the_policy_is_scrubbed_and_the_run_is_not_touched(finished):
    for file in finished.glob("checkpoints/*/pretrained_model/policy_preprocessor.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"tokenizer": "/home/a b/tok"}))
    before = tree(finished)
    dry_run(options(finished))
    sent = json.loads((finished.with_name("sent") / "policy_preprocessor.json").read_text())
    assert sent["tokenizer"] == "tok" and tree(finished) == before


def test_a_remembered_package_is_named(finished):
    for file in finished.glob("checkpoints/*/pretrained_model/rlft_config.yaml"):
        content = yaml.safe_load(file.read_text()) | {"packages": {"env": "somebodys_env"}}
        file.write_text(yaml.safe_dump(content))
    dry_run(options(finished))
    card = (finished.with_name("sent") / "README.md").read_text()
    assert "lerobot-eval --env.discover_packages_path=somebodys_env" in card
    assert "needs the package `somebodys_env`" in card


def test_a_token_that_is_no_token_is_one_sentence(monkeypatch):
    from lerobot_rlft.hub.client import check_login

    monkeypatch.setenv("HF_TOKEN", "hf_ü")
    with pytest.raises(UserError, match="the token holds letters that no token has"):
        check_login("user/name")


def test_publishing_never_ends_a_training(monkeypatch, capsys, tmp_path):
    from lerobot_rlft.hub import push

    def broken(*_, **__):
        raise ZeroDivisionError("of any kind")

    monkeypatch.setattr(push, "_push", broken)
    push.push_checkpoint(None, tmp_path / "000001")
    assert "000001 was not pushed: ZeroDivisionError: of any kind" in capsys.readouterr().out


def test_an_answer_of_another_form_is_one_sentence():
    from lerobot_rlft.hub.client import explained

    for error in (KeyError("url"), json.JSONDecodeError("no JSON", "", 0)):  # as of a 409 without one
        with pytest.raises(UserError, match="the Hub's answer cannot be read"), explained("user/name"):
            raise error


def test_ctrl_c_while_the_staged_folder_is_deleted_leaves_nothing(monkeypatch, tmp_path):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(bundle, "gather", lambda run, options, folder: (folder / "file").touch())
    monkeypatch.setattr(bundle.TemporaryDirectory, "__exit__", interrupted)
    with pytest.raises(KeyboardInterrupt), bundle.staged(None, PushConfig(repo_id="user/x")) as folder:
        assert (folder / "file").exists()
    assert not list(tmp_path.iterdir())
