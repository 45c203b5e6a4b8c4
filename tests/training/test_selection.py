"""Which checkpoint a guarded run exports."""

from pathlib import Path

import pytest

from lerobot_rlft.training.selection import Point, best, draw_front, front, link_best, points


def make(*pairs):
    """Points (success, ratio), their intervals .05 to each side."""
    return [
        Point(i + 1, success, ratio, Path(f"{i + 1:06d}"), success - 0.05)
        for i, (success, ratio) in enumerate(pairs)
    ]


def iterations(found):
    return [p.iteration for p in found]


def test_the_front_by_hand():
    # 1 is beaten by 2 in both, 4 by 3 in success alone at an equal ratio, 5 and 6 are equals
    found = make((0.5, 0.8), (0.6, 0.9), (0.9, 0.7), (0.8, 0.7), (0.95, 0.2), (0.95, 0.2), (0.4, 1.0))
    assert iterations(front(found)) == [7, 2, 3, 5, 6]
    assert front([]) == []


def test_the_best_is_the_most_successful_above_the_floor():
    found = make((0.9, 0.94), (0.8, 0.96), (0.7, 1.1))
    assert best(found, 0.95).iteration == 2
    assert best(found, 0.96).iteration == 2  # the floor itself respects it
    assert best(found, 1.0).iteration == 3
    assert best(found, 0.1).iteration == 1


def test_among_those_that_noise_does_not_tell_apart_the_latest_is_best():
    assert best(make((0.7, 0.99), (0.8, 0.96), (0.76, 0.97), (0.74, 1.0)), 0.95).iteration == 3
    assert best(make((0.8, 0.96), (0.79, 0.94)), 0.95).iteration == 1


def test_none_is_best_where_none_respects_the_floor():
    assert best(make((0.9, 0.94), (0.8, 0.5)), 0.95) is None
    assert best([], 0.95) is None


def line(iteration, counts, success=0.5, **fields):
    return {
        "iteration": iteration, "sampler": "deployed", "success": success, "mode_counts": counts,
        "success_ci": [success - 0.1, success + 0.1],
    } | fields  # fmt: skip


@pytest.fixture
def run(tmp_path):
    for name in ("000002", "000004", "000006", ".000008.partial"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    (tmp_path / "checkpoints/last").symlink_to("000006")
    return tmp_path


def test_points_are_evaluations_whose_checkpoint_is_there(run):
    lines = [
        line(0, [30, 30]),
        line(0, [1, 0], sampler="exploratory"),
        line(2, [45, 15], 0.6),
        line(3, [30, 30]),  # no checkpoint
        line(4, [0, 0], 0.0),
        line(6, [30, 30], 0.9),
        line(6, [20, 40], 0.9, reloaded=True),
    ]
    found = points(lines, "smallest_share", run)
    assert [(p.iteration, p.success, p.ratio) for p in found] == [(2, 0.6, 0.5), (4, 0.0, 0.0), (6, 0.9, 1.0)]
    assert [p.checkpoint for p in found] == [run / f"checkpoints/00000{i}" for i in (2, 4, 6)]


@pytest.mark.parametrize("base", [[0, 0], [7, 0], None])
def test_nothing_is_compared_with_a_base_that_shows_no_diversity(base, run):
    lines = [line(2, [1, 1])] + ([] if base is None else [line(0, base)])
    for metric in ("entropy", "effective_modes", "smallest_share"):
        assert points(lines, metric, run) == []


def test_the_link_to_the_best_moves(run):
    for name in ("000002", "000004"):
        link = link_best(Point(2, 0.5, 1.0, run / "checkpoints" / name, 0.4))
        assert link == run / "checkpoints/best" and link.readlink() == Path(name)
    assert sorted(p.name for p in link.parent.iterdir() if p.is_symlink()) == ["best", "last"]


def test_the_picture_shows_points_front_floor_and_choice(tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(
        "lerobot_rlft.training.selection.save", lambda figure, path: kept.append((figure, path))
    )
    found = make((0.5, 0.9), (0.9, 0.7), (0.4, 0.8))
    draw_front(tmp_path / "front.png", found, 0.95, "effective_modes", found[1])
    (figure, path), axis = kept[0], kept[0][0].axes[0]
    assert path == tmp_path / "front.png" and "effective modes" in axis.get_xlabel()
    evaluations, exported = axis.collections
    assert evaluations.get_offsets().tolist() == [[0.9, 0.5], [0.7, 0.9], [0.8, 0.4]]
    assert exported.get_offsets().tolist() == [[0.7, 0.9]]
    _, edge, floor = axis.lines
    assert list(zip(*edge.get_data(), strict=True)) == [(0.9, 0.5), (0.7, 0.9)]
    assert floor.get_xdata() == [0.95, 0.95]
    assert [text.get_text() for text in axis.texts] == ["1", "2"]
    assert figure.axes == [axis]
