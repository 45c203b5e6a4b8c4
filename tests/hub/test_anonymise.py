"""What is published names no folder of the machine."""

import pytest

from lerobot_rlft.hub.anonymise import short_name, without_folders


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("lerobot-rlft-eval --policy.path=/home/me/run --n=5", "lerobot-rlft-eval --policy.path=run --n=5"),
        ("in '/home/me/a b'", "in 'a b'"),
        ("in ~/runs/x.", "in x."),
        ("<b>/home/me/run</b> on grasps", "<b>run</b> on grasps"),
        ("see https://huggingface.co/user/name/tree/main", "see https://huggingface.co/user/name/tree/main"),
        ("font: 16px/1.5 a", "font: 16px/1.5 a"),
        ("base64,iVBOR/ab+/cd/ef==", "base64,iVBOR/ab+/cd/ef=="),
        ("user/name and outputs/run", "user/name and outputs/run"),
        ("/home/a b/the run", "the run"),
        ("file:///home/me/run", "run"),
        ("C:\\Users\\me\\run", "run"),
        ("no file 'C:/Users/a b/run'", "no file 'run'"),
        ("--policy.path=/home/a b/run", "--policy.path=run"),
        ("--others={x: /home/a b/run, y: user/name}", "--others={x: run, y: user/name}"),
        ("--policy.path=.", "--policy.path=."),
        ("./me/run", "run"),
        ("5 / 6 ways, 0.5.", "5 / 6 ways, 0.5."),
        ("tensor:/optimizer/state", "tensor:/optimizer/state"),
    ],
)
def test_paths_in_text(text, wanted):
    assert without_folders(text) == wanted


def test_paths_in_a_configuration():
    value = {"a": ["/home/me/a b/c d", 1, None], "b": {"c": "../../me/x", "d": "user/name"}, "e": "~/f"}
    assert without_folders(value) == {"a": ["c d", 1, None], "b": {"c": "x", "d": "user/name"}, "e": "f"}


@pytest.mark.parametrize(
    "path, name",
    [
        ("/home/me/outputs/tuned/checkpoints/000010/pretrained_model", "tuned"),
        ("recipes/grasps_base", "grasps_base"),
        ("../base", "base"),
        (".", "unnamed"),
        ("C:\\Users\\me\\base", "base"),
    ],
)
def test_a_folder_has_a_short_name(path, name):
    assert short_name(path) == name
