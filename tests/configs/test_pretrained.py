"""A base that lies on the Hub: downloaded, fine-tuned, asked for again by a resume; a stand-in serves it."""

import json
import shutil

import pytest
import yaml
from hub_client import Client, Finished
from mini_hub import MiniHub, serve
from old_layouts import adapted, edit, sharded, with_buffers, with_prefix
from recorded_data import record
from runs import metrics
from safetensors.torch import load_file, save_file
from vlas import needs

from lerobot_rlft.configs.pretrained import CHECKPOINT_FILES
from lerobot_rlft.utils.run_folder import CONFIG_NAME

TINY_RUN = (
    "--algorithm.type=dppo", "--algorithm.update_epochs=1", "--algorithm.minibatch_size=16",
    "--env.type=avoiding", "--env.episode_length=8", "--rollout.n_envs=2", "--rollout.n_episodes=4",
    "--eval.n_episodes=2", "--eval.n_episodes_during=2", "--eval.n_videos=0",
)  # fmt: skip
TINY_EVAL = ("--env.type=avoiding", "--env.episode_length=8", "--n_episodes=2", "--n_attempts=0")


@pytest.fixture(scope="module")
def hub(base_policy, tmp_path_factory):
    """Serves the tiny policy as user/tiny, in old layouts, and as user/half without its preprocessor."""
    root = tmp_path_factory.mktemp("hub")
    shutil.copytree(base_policy, root / "user/tiny")
    shutil.copytree(
        base_policy, root / "user/half", ignore=shutil.ignore_patterns("policy_preprocessor.json")
    )
    ignored = shutil.ignore_patterns("model.safetensors")
    shutil.copytree(base_policy, root / "user/empty", ignore=ignored)
    with_buffers(base_policy, root / "user/old", mlp_hidden_dim=1024)
    sharded(base_policy, root / "user/sharded")
    with_prefix(base_policy, root / "user/prefixed")
    with serve(root) as hub:
        yield hub


@pytest.fixture(scope="module")
def client(hub, tmp_path_factory):
    client = Client(hub.url, tmp_path_factory.mktemp("home"))
    yield client
    client.close()


def train(hub: MiniHub, client: Client, *arguments: str) -> Finished:
    """Run the command with an empty cache."""
    shutil.rmtree(client.home / "hf", ignore_errors=True)
    hub.requests.clear()
    return client.run("train", *arguments, token=None)


def downloads(hub: MiniHub) -> set[str]:
    return {
        path.rpartition("/")[2] for method, path, status in hub.requests if (method, status) == ("GET", 200)
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "repo, files, words",
    [
        ("user/tiny", set(CHECKPOINT_FILES), ""),
        ("user/old", {"config.json", "model.safetensors"}, "dropped: mlp_hidden_dim=1024"),
    ],
)
def test_a_base_on_the_hub_is_fine_tuned_and_asked_for_again_by_a_resume(
    repo, files, words, hub, client, tmp_path
):
    run = tmp_path / "run"
    first = train(hub, client, *TINY_RUN, f"--policy.path={repo}", f"--output_dir={run}", "--iterations=1")
    assert first.status == 0 and words in first.err, first.err
    assert downloads(hub) >= files
    checkpoint = run / "checkpoints/last/pretrained_model"
    assert {file.name for file in checkpoint.iterdir()} >= set(CHECKPOINT_FILES)
    assert yaml.safe_load((checkpoint / CONFIG_NAME).read_text())["policy"]["pretrained_path"] == repo

    resumed = train(hub, client, f"--resume={run}", "--iterations=2")
    assert resumed.status == 0, resumed.err
    assert "model.safetensors" in downloads(hub)
    assert [line["iteration"] for line in metrics(run, "train")] == [1, 2]
    # The base beside the policy is the one of the Hub, and the policy has moved away from it.
    assert metrics(run, "train")[1]["kl_to_base"] > 0


@pytest.mark.slow
def test_statistics_of_a_dataset_are_those_of_the_run_of_its_resume_and_of_its_base(hub, client, tmp_path):
    run, data = tmp_path / "run", tmp_path / "data"
    record(data, (6, 7))
    options = (*TINY_RUN, "--policy.path=user/prefixed", f"--output_dir={run}", "--iterations=1")
    failed = train(hub, client, *options)
    assert failed.status == 1 and "none for action, but for" in failed.err
    assert f"--policy.stats_from={data}" in failed.err.replace("DATASET", str(data))

    first = train(hub, client, *options, f"--policy.stats_from={data}")
    assert first.status == 0, first.err
    resumed = train(hub, client, f"--resume={run}", "--iterations=2")
    assert resumed.status == 0, resumed.err
    tuned = f"--policy.path={run}/checkpoints/last/pretrained_model"
    measured = client.run("eval", tuned, *TINY_EVAL, f"--output_dir={tmp_path / 'report'}", token=None)
    assert measured.status == 0, measured.err
    numbers = json.loads((tmp_path / "report/diversity.json").read_text())
    assert numbers["base"] == "user/prefixed" and numbers["kl_reverse"] > 0


@pytest.mark.slow
def test_adapters_on_the_hub_belong_to_the_revision_that_they_name(hub, client, base_policy, tmp_path):
    """The base has moved on since."""
    needs("peft")
    repo = hub.add("user/moving", base_policy)
    first = repo.sha("main")
    adapters = adapted(base_policy, tmp_path / "adapters")
    edit(adapters / "adapter_config.json", base_model_name_or_path="user/moving", revision=first)
    hub.add("user/adapted", adapters)
    place = shutil.copytree(base_policy, tmp_path / "moved")
    halved = {name: tensor / 2 for name, tensor in load_file(place / "model.safetensors").items()}
    save_file(halved, place / "model.safetensors")
    hub.add("user/moving", place)
    assert repo.sha("main") != first
    options = ("--policy.path=user/adapted", *TINY_EVAL)
    for base, same in ((f"user/moving@{first}", True), ("user/moving", False)):
        report = tmp_path / f"report_{same}"
        done = client.run("eval", *options, f"--base.path={base}", f"--output_dir={report}", token=None)
        assert done.status == 0, done.err
        numbers = json.loads((report / "diversity.json").read_text())
        assert (numbers["kl_reverse"] < 1e-6) is same


@pytest.mark.slow
@pytest.mark.parametrize("repo", ["user/old", "user/sharded"])
def test_an_old_layout_on_the_hub_is_evaluated_and_again_without_network(repo, hub, client, tmp_path):
    shutil.rmtree(client.home / "hf", ignore_errors=True)
    options = (f"--policy.path={repo}", "--base.path=user/tiny", *TINY_EVAL)
    first = client.run("eval", *options, f"--output_dir={tmp_path / 'first'}", token=None)
    assert first.status == 0, first.err
    away = {"HF_HUB_OFFLINE": "1"}
    again = client.run("eval", *options, f"--output_dir={tmp_path / 'again'}", token=None, **away)
    assert again.status == 0, again.err
    for folder in ("first", "again"):
        numbers = json.loads((tmp_path / folder / "diversity.json").read_text())
        assert (
            numbers["kl_reverse"] == numbers["kl_forward"] == 0
            and numbers["success"] == numbers["base_success"]
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    "repo, words",
    [
        ("user/none", "--policy.path=user/none is no folder here and cannot be read from the Hub: "),
        ("user/half", "policy_preprocessor.json"),
        ("user/empty", "--policy.path=user/empty lacks a file of a policy (EntryNotFoundError: user/empty "),
    ],
)
def test_what_is_not_on_the_hub_is_one_line(repo, words, hub, client, tmp_path):
    run = tmp_path / "run"
    failed = train(hub, client, *TINY_RUN, f"--policy.path={repo}", f"--output_dir={run}")
    assert failed.status == 1 and any(status == 404 for *_, status in hub.requests)
    (error,) = failed.err.splitlines()
    assert error.startswith("error: ") and words in error and failed.out == ""
    assert not run.exists()
