"""Several runs in one picture."""

import json
import math

import pytest
import yaml

from lerobot_rlft.cli import curves as command
from lerobot_rlft.plots.curves import draw_shares, read_curve
from lerobot_rlft.plots.run import mode_colour
from lerobot_rlft.utils.errors import UserError


def write_run(folder, counts, base=(60, 60, 60)):
    folder.mkdir()
    eval_ = {"kind": "eval", "iteration": 0, "env_steps": 0, "sampler": "exploratory", "n_episodes": 300}
    lines = [eval_ | {"mode_counts": list(base)}]
    for i, c in enumerate(counts):
        lines.append(
            {"kind": "train", "iteration": i + 1, "env_steps": 100 * (i + 1), "success": sum(c) / 480}
        )
        lines[-1]["mode_counts"] = c
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (folder / "rlft_config.yaml").write_text(yaml.safe_dump({"rollout": {"n_episodes": 480}}))
    return folder


def test_effective_modes_of_each_iteration(tmp_path):
    curve = read_curve(write_run(tmp_path / "plain_1000", [[100, 100, 100], [200, 200, 0], [0, 0, 0]]))
    assert curve.group == "plain" and curve.num_modes == 3
    assert curve.env_steps.tolist() == [100, 200, 300] and curve.success.tolist() == [300 / 480, 400 / 480, 0]
    assert curve.effective_modes[:2].tolist() == pytest.approx([3, 2 * math.exp(1 / 800)])
    assert math.isnan(curve.effective_modes[2])  # no success, no modes
    assert curve.name == "plain_1000"
    assert curve.mode_counts.tolist() == [[100, 100, 100], [200, 200, 0], [0, 0, 0]]


def test_a_run_that_does_not_fit(tmp_path):
    with pytest.raises(UserError, match=r"nowhere is not the folder of a run"):
        read_curve(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"counted no modes"):
        read_curve(write_run(tmp_path / "empty", []))


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """What `draw_shares` draws, before it is written."""

    def draw(*runs):
        figures = []
        monkeypatch.setattr("lerobot_rlft.plots.curves.save", lambda figure, path: figures.append(figure))
        draw_shares(tmp_path / "shares.png", [read_curve(run) for run in runs])
        (figure,) = figures
        return figure

    return draw


def test_shares_of_modes_have_a_panel_for_each_run(tmp_path, drawn):
    runs = [write_run(tmp_path / f"a_{i}", [[120, 60, 60], [240, 240, 0]]) for i in range(5)]
    figure = drawn(*runs)
    panels = [axis for axis in figure.axes if axis.axison]
    assert [axis.get_title() for axis in panels] == [f"a_{i}" for i in range(5)] and len(figure.axes) == 8
    (line,) = panels[0].lines
    assert line.get_xydata().tolist() == [[100, 0.5], [200, 1.0]]
    bottoms = [{y for _, y in area.get_paths()[0].vertices} for area in panels[0].collections]
    assert bottoms == [{0, 0.5}, {0.5, 0.75, 1.0}, {0.75, 1.0}]  # stacked from 0 to 1
    colours = [tuple(area.get_facecolor()[0][:3]) for area in panels[0].collections]
    assert colours == [tuple(mode_colour(mode, 3)[:3]) for mode in range(3)]
    (legend,) = figure.legends
    assert [t.get_text() for t in legend.get_texts()] == ["success", "mode 0", "mode 1", "mode 2"]


def test_shares_of_runs_with_different_modes_are_refused(tmp_path):
    two = write_run(tmp_path / "two", [[1, 1]], base=[60, 60])
    with pytest.raises(UserError, match=r"\(three has 3, two has 2\): draw their shares apart"):
        curves = [read_curve(write_run(tmp_path / "three", [[1, 1, 1]])), read_curve(two)]
        draw_shares(tmp_path / "shares.png", curves)


def test_the_command_draws(tmp_path, monkeypatch, capsys):
    runs = [write_run(tmp_path / f"a_{seed}", [[100, 50, 0], [150, 0, 0]]) for seed in (1, 2)]
    written = [tmp_path / "new" / name for name in ("c.png", "s.png")]
    options = [f"--output={written[0]}", f"--shares={written[1]}"]
    monkeypatch.setattr("sys.argv", ["x", *map(str, runs), *options])
    command.main()
    for path in written:
        assert path.read_bytes().startswith(b"\x89PNG")
    assert f"2 runs in {written[0]} and {written[1]}" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["x", str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit, match=r"error: .*nowhere is not"):
        command.main()


def test_a_base_without_a_success_is_told(tmp_path):
    run = write_run(tmp_path / "none", [[0, 0, 0]], base=(0, 0, 0))
    with pytest.raises(UserError, match=r"modes cannot be followed \(ValueError: .*no successes"):
        read_curve(run)
