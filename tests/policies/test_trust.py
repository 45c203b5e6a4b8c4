"""Nothing that a checkpoint names is imported or called before it is checked, whoever loads it."""

import ast
import json
import shutil
from pathlib import Path

import pytest
from lerobot.configs import PreTrainedConfig

import lerobot_rlft
from lerobot_rlft.policies.loading import load_policy
from lerobot_rlft.policies.pretrained_files import check_own_files, check_safe
from lerobot_rlft.utils.errors import UserError

PACKAGE = Path(lerobot_rlft.__file__).parent
RUNS_CODE = {
    "from_pretrained", "load_pretrained", "make_pre_post_processors", "import_module", "__import__",
    "load_plugin", "register_third_party_plugins", "hf_hub_download", "snapshot_download",
}  # fmt: skip
# What reads or imports, and where it may be called: the loaders check first.
ALLOWED = {
    ("policies/loading.py", "from_pretrained"),
    ("policies/loading.py", "load_pretrained"),
    ("policies/lora.py", "from_pretrained"),  # adapters, safetensors beside their JSON
    ("policies/loading.py", "make_pre_post_processors"),
    ("policies/rlft_guided/processor_rlft_guided.py", "make_pre_post_processors"),  # fresh ones
    ("policies/rlft_commanded/processor_rlft_commanded.py", "make_pre_post_processors"),
    ("policies/pretrained_files.py", "import_module"),  # of LeRobot's own modules
    ("policies/pretrained_files.py", "hf_hub_download"),  # JSON, YAML and weights, by name
    ("hub/client.py", "snapshot_download"),  # RUN_FILES alone
    ("cli/plugins.py", "register_third_party_plugins"),  # what the user has installed
    ("cli/plugins.py", "load_plugin"),  # --*.discover_packages_path, from the command line alone
    ("configs/parser.py", "load_plugin"),
}


def with_step(checkpoint: Path, place: Path, step: dict) -> Path:
    """A copy of a checkpoint with one processor step more."""
    shutil.copytree(checkpoint, place)
    file = place / "policy_preprocessor.json"
    content = json.loads(file.read_text())
    content["steps"].append(step)
    file.write_text(json.dumps(content))
    return place


def config_of(checkpoint: Path) -> PreTrainedConfig:
    config = PreTrainedConfig.from_pretrained(checkpoint)
    config.device = "cpu"
    return config


def test_foreign_code_is_refused_where_a_policy_is_loaded(base_policy, tmp_path):
    touched = tmp_path / "touched"
    step = {"class": "subprocess.Popen", "config": {"args": ["touch", str(touched)]}}
    place = with_step(base_policy, tmp_path / "foreign", step)
    with pytest.raises(UserError, match=r"foreign .*'subprocess.Popen'.*--trust_remote_code=true"):
        load_policy(config_of(place), place)
    assert not touched.exists()


def test_foreign_code_is_refused_where_a_configuration_names_the_policy(base_policy, tmp_path, read_command):
    from lerobot_rlft.training.setup import make_policy

    touched = tmp_path / "touched"
    step = {"class": "subprocess.Popen", "config": {"args": ["touch", str(touched)]}}
    place = with_step(base_policy, tmp_path / "foreign", step)
    file = tmp_path / "run.yaml"
    policy = {"type": "diffusion", **json.loads((place / "config.json").read_text())}
    policy |= {"pretrained_path": str(place), "device": "cpu"}
    run = {"policy": policy, "env": {"type": "avoiding"}, "algorithm": {"type": "dppo"}}
    file.write_text(json.dumps(run | {"trust_remote_code": True, "output_dir": str(tmp_path / "out")}))
    config = read_command(f"--config_path={file}")
    with pytest.raises(UserError, match="is refused"):
        make_policy(config, None, None)
    assert not touched.exists()


@pytest.mark.parametrize(
    ("step", "answer"),
    [
        ({"class": "lerobot.utils.io_utils.write_video", "config": {}}, "no ProcessorStep"),
        ({"class": "lerobot.processor.pipeline.json", "config": {}}, "no ProcessorStep"),
        ({"class": "lerobot_rlft.utils.files.replacing", "config": {}}, "no ProcessorStep"),
        ({"class": ["os"]}, "code that is not LeRobot's"),
        ({"class": "os.system", "registry_name": None}, None),
        ({"registry_name": "device_processor", "state_file": "../../x.safetensors"}, "state_file"),
        ({"registry_name": "device_processor", "state_file": "/etc/x.safetensors"}, "state_file"),
        ({"registry_name": "device_processor", "state_file": "x.pt"}, "state_file"),
        ({"registry_name": "device_processor", "config": {"trust_remote_code": 1}}, "runs code from the Hub"),
    ],
)
def test_only_processor_steps_with_files_of_their_own_pass(step, answer):
    if answer is None:  # LeRobot looks the name up and finds nothing
        check_safe("x", [{"steps": [step]}])
        return
    with pytest.raises(UserError, match=answer):
        check_safe("x", [{"steps": [step]}])


@pytest.mark.parametrize("processor", [[], {}, {"steps": {}}, {"steps": ["a"]}, None])
def test_a_processor_of_another_form_is_told(processor):
    with pytest.raises(UserError, match="without a list of steps"):
        check_safe("x", [processor])


def test_trust_does_not_reach_files_outside_of_the_checkpoint():
    check_own_files("x", [{"steps": [{"class": "somebody.Step", "state_file": "a.safetensors"}]}])
    with pytest.raises(UserError, match="state_file"):
        check_own_files("x", [{"steps": [{"class": "somebody.Step", "state_file": "../a.safetensors"}]}])


def test_trust_is_given_on_the_command_line_alone(base_policy, tmp_path, read_command):
    file = tmp_path / "run.yaml"
    run = {"trust_remote_code": True, "env": {"type": "avoiding"}, "algorithm": {"type": "dppo"}}
    file.write_text(json.dumps(run))
    given = (f"--config_path={file}", f"--policy.path={base_policy}", f"--output_dir={tmp_path / 'out'}")
    assert not read_command(*given).trust_remote_code
    assert read_command(*given, "--trust_remote_code=true").trust_remote_code


def test_trust_is_neither_saved_nor_published(dppo_config, tmp_path):
    import yaml

    from lerobot_rlft.hub.bundle import published_config
    from lerobot_rlft.training.checkpoint import write_config

    write_config(dppo_config(trust_remote_code=True), tmp_path / "saved.yaml")
    saved = yaml.safe_load((tmp_path / "saved.yaml").read_text())
    assert saved["trust_remote_code"] is False
    wandb = saved["wandb"] | {"entity": "somebody", "project": "secret", "notes": "mine", "run_id": "abc"}
    published = published_config(saved | {"trust_remote_code": True, "wandb": wandb}, None)
    assert published["trust_remote_code"] is False
    assert not {"somebody", "secret", "mine", "abc"} & {str(value) for value in published["wandb"].values()}


def test_every_call_that_may_run_code_is_one_that_checks():
    found = set()
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", None) or getattr(node.func, "id", "")
            owner = getattr(getattr(node.func, "value", None), "id", "")
            place = file.relative_to(PACKAGE).as_posix()
            called = isinstance(node.func, ast.Name) and name in ("eval", "exec")  # module.eval() is torch's
            if called or name in RUNS_CODE:
                found.add((place, name))
            if (owner, name) in (("pickle", "load"), ("pickle", "loads"), ("yaml", "load")):
                found.add((place, f"{owner}.{name}"))
            if (owner, name) == ("torch", "load"):
                assert any(k.arg == "weights_only" and k.value.value is True for k in node.keywords), place
    assert found == ALLOWED, f"new: {found - ALLOWED}, gone: {ALLOWED - found}; policies/loading.py checks"
