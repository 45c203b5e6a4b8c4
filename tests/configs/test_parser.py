"""The command line as words, and words as nested options."""

from dataclasses import dataclass, field

import pytest

from lerobot_rlft.cli.curves import CurvesConfig
from lerobot_rlft.cli.demos import DemosConfig
from lerobot_rlft.configs.parser import build, merged, nested, parse_command_line, split
from lerobot_rlft.utils.errors import UserError
from lerobot_rlft.utils.recipes import folder, located, names, recipe


def test_an_option_is_written_with_or_without_an_equals_sign():
    given, words = split(["a", "--x=1", "--y.z", "2", "b", "--w=", "--v=p=q", "--config_path=f"])
    assert given == {"x": "1", "y.z": "2", "w": "", "v": "p=q"} and words == ["a", "b"]
    assert split(["--x", "--y=1"], lenient=True)[0] == {"x": "", "y": "1"}
    with pytest.raises(UserError, match=r"^--x has no value: write --x=VALUE$"):
        split(["--x", "--y=1"])


def test_options_are_nested_and_the_last_word_counts():
    assert nested({"a.b": "1", "a.c.d": "[x, 2]", "e": "null"}) == {
        "a": {"b": 1, "c": {"d": ["x", 2]}},
        "e": None,
    }
    assert nested({"a": "{b: 1}", "a.c": "2"}) == {"a": {"b": 1, "c": 2}}
    below = {"a": {"b": 1, "c": [1]}, "d": None}
    assert merged(below, {"a": {"c": [2]}, "d": {"e": 1}}) == {"a": {"b": 1, "c": [2]}, "d": {"e": 1}}
    assert below == {"a": {"b": 1, "c": [1]}, "d": None}


@dataclass
class Inner:
    size: int = 1


@dataclass
class Outer:
    inner: Inner = field(default_factory=Inner)
    others: dict[str, float] = field(default_factory=dict)
    sizes: tuple[int, ...] = (1,)


@pytest.mark.parametrize(
    "given, answer",
    [
        ({"inner.siz": "2"}, "--in.inner.siz is unknown, did you mean --in.inner.size?"),
        ({"siz": "2", "inner.sze": "3"},
         "--in.inner.sze is unknown, did you mean --in.inner.size?; "
         "--in.siz is unknown, did you mean --in.sizes?"),
        ({"inner": "2"}, "--in.inner=2 is a group of options: write --in.inner.NAME=VALUE"),
        ({"others": "2"}, "--in.others=2 gives no names: write --in.others='{NAME: VALUE, ...}'"),
        ({"sizes": "2"}, "--in.sizes=2 is no list: write [...]"),
        ({"sizes": "[a]"}, "`in.sizes.0`: Couldn't parse 'a' into an int"),
        ({"others": "{a: b}"}, "`in.others.a`: Couldn't parse 'b' into a float"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_place(given, answer):
    with pytest.raises(UserError) as error:
        build(Outer, {}, given, prefix="in.")
    assert "; ".join(sorted(str(error.value).split("; "))) == answer


def test_a_mistake_in_a_file_has_no_dashes():
    with pytest.raises(UserError, match=r"^inner.siz is unknown to Inner, did you mean size\?$"):
        build(Outer, {"inner": {"siz": 2}}, {"sizes": "[2]"})
    assert build(Outer, {"inner": {"size": 2}}, {"inner.size": "3"}) == Outer(Inner(3))


def test_plain_words_are_what_a_command_is_about(monkeypatch):
    monkeypatch.setattr("sys.argv", ["lerobot-rlft-curves", "runs/a", "--output=x.png", "runs/b"])
    config = parse_command_line(CurvesConfig)
    assert [str(run) for run in config.runs] == ["runs/a", "runs/b"] and config.output.name == "x.png"


def test_demonstrations_are_written_from_any_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["lerobot-rlft-demos", "--env.type=pusht", "--root=x"])
    config = parse_command_line(DemosConfig)
    config.resolve()
    assert config.source.is_file() and config.repo_id == "local/pusht"
    monkeypatch.setattr("sys.argv", ["lerobot-rlft-demos", "--env.type=aloha", "--root=x"])
    with pytest.raises(UserError, match=r"no task: give --env.type=..., one of avoiding, grasps, pusht"):
        parse_command_line(DemosConfig).resolve()


def test_recipes_are_found_by_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert "quickstart" in names() and recipe("quickstart") == folder() / "quickstart.yaml"
    assert recipe("nothing") is None and recipe("recipes/avoiding_base") is None
    assert located("recipes/avoiding_base") == str(folder() / "avoiding_base")
    assert located("recipes/nothing") == "recipes/nothing" and located("user/name") == "user/name"
