"""What ancestors say of themselves is plain text, and names nothing on this machine."""

import yaml

from lerobot_rlft.hub import lineage as module
from lerobot_rlft.hub.lineage import Ancestor, lineage

COMMIT = "0" * 40
BASE = Ancestor("user/base", "user/base", COMMIT)


def run(**changes) -> dict:
    content = {"algorithm": {"type": "dppo"}, "iterations": 2, "seed": 7, "dataset": {"repo_id": "user/data"}}
    return content | {"policy": {"pretrained_path": None}} | changes


def test_foreign_values_are_plain_text(monkeypatch):
    evil = run(algorithm={"type": "<b>"}, seed="[a](b)", dataset={"repo_id": "`x"})
    monkeypatch.setattr(Ancestor, "read", lambda *_: yaml.safe_dump(evil))
    assert lineage(run(), 2, BASE) == [
        "tuned by dppo, iteration 2 of 2 iterations, seed 7, from [user/base](https://huggingface.co/user/base/"
        f"tree/{COMMIT}) at commit `00000000`",
        "trained from scratch by &#60;b&#62;, a run of 2 iterations, seed &#91;a&#93;(b), on `&#96;x`",
    ]


def test_a_folder_that_the_hub_names_is_not_read_here(monkeypatch, tmp_path):
    (tmp_path / "rlft_config.yaml").write_text(yaml.safe_dump(run(seed=123)))
    named = run(policy={"pretrained_path": str(tmp_path), "pretrained_revision": None})
    fetched = []

    def fetch(path, file, revision=None):
        fetched.append(path)
        place = tmp_path / f"fetched{len(fetched)}"
        place.write_text(yaml.safe_dump(named))
        return place

    monkeypatch.setattr(module, "fetch", fetch)
    lines = lineage(run(), 2, BASE)
    assert fetched == ["user/base"] and len(lines) == 2 and "which is not on the Hub" in lines[1]


def test_a_configuration_of_another_form_ends_the_chain(monkeypatch, capsys):
    for text in ("[", "- a", "policy: 1", "policy: {pretrained_path: null}"):
        monkeypatch.setattr(Ancestor, "read", lambda *_, text=text: text)
        assert len(lineage(run(), 2, BASE)) == 1
        assert "rlft_config.yaml cannot be read" in capsys.readouterr().out


def test_an_id_that_is_none_gets_no_link():
    assert str(Ancestor("a/b](http://x)", "", COMMIT)) == "`a/b&#93;(http:&#47;/x)`"
