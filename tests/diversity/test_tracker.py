"""Modes of collected episodes: the window, and when the tracker speaks."""

import json
import math

import pytest

from lerobot_rlft.diversity.tracker import ModeTracker

FOUR = [60, 60, 60, 60]  # of 300 episodes: success .8


def test_effective_modes_and_divergence_of_the_window():
    tracker = ModeTracker(FOUR, 300)
    # Miller-Madow adds (4 - 1) / (2 * 240) nats, and more than M modes are never claimed.
    assert tracker.base_effective == 4
    reading = tracker.update([120, 120, 0, 0], 300)
    # H = log 2 + 1 / (2 * 240); shares (1/2, 1/2, 0, 0) against (1/4, ...): mixed (3/8, 3/8, 1/8, 1/8).
    assert reading["effective_modes"] == pytest.approx(2 * math.exp(1 / 480))
    mixture = -2 * (3 / 8 * math.log2(3 / 8) + 1 / 8 * math.log2(1 / 8))
    assert reading["js_to_base"] == pytest.approx(mixture - (1 + 2) / 2)


def test_the_window_holds_the_newest_480_episodes_or_just_more():
    tracker = ModeTracker(FOUR, 300)
    for i in range(8):
        tracker.update([i, 0, 0, 1], 100)
    assert [counts[0] for *_, counts in tracker.window] == [3, 4, 5, 6, 7]
    tracker.update([9, 0, 0, 1], 480)
    assert [counts[0] for *_, counts in tracker.window] == [9]


def test_without_a_success_there_is_no_reading():
    tracker = ModeTracker(FOUR, 300)
    assert tracker.update([0, 0, 0, 0], 100) == {}
    assert tracker.alarm().startswith("success fell (80 % to 0 %): the policy is breaking")
    with pytest.raises(ValueError, match="holds no successes"):
        ModeTracker([0, 0], 10)


@pytest.mark.parametrize(
    "counts, episodes, word",
    [
        ([120, 120, 0, 0], 300, "drift"),  # success stays at .8
        ([285, 5, 5, 5], 300, "selection, mode 0 gained most and mode 1 lost most"),  # it rises to 1
        ([100, 0, 0, 0], 300, "breaking"),  # it falls to .33
    ],
)
def test_words_tell_drift_from_selection(counts, episodes, word):
    tracker = ModeTracker(FOUR, 300)
    tracker.update(counts, episodes)
    said = tracker.alarm()
    assert word in said and f"of {tracker.base_effective:.1f}" in said
    assert tracker.alarm() is None  # once for each tenth


def test_no_alarm_from_episodes_too_few_to_tell():
    tracker = ModeTracker(FOUR, 300)
    assert tracker.update([9, 5, 1, 1], 20)["effective_modes"] < 0.9 * 4
    assert tracker.alarm() is None
    tracker.update([450, 250, 50, 50], 1000)  # the same shares
    assert "drift" in tracker.alarm()


def test_an_alarm_for_every_further_tenth():
    tracker = ModeTracker([100] * 10, 1000)
    said = []
    for modes in (10, 10, 9, 9, 8, 8, 5):
        tracker.update([1000 // modes] * modes + [0] * (10 - modes), 1000)
        said.append(tracker.alarm())
    assert [text is not None for text in said] == [False, False, False, False, True, False, True]
    assert "80 % of the base" in said[4] and "50 % of the base" in said[6]


def test_a_policy_that_breaks_is_said_whatever_its_modes():
    """One mode is all there ever was to lose after it; success falls from 1 to .8 to 0 of the window."""
    tracker = ModeTracker([300, 1], 300)
    said = []
    for successes in (500, 490, 400, 390, 0, 0):
        tracker.update([successes, 0], 500)
        said.append(tracker.alarm())
    assert [text is not None for text in said] == [False, False, True, False, True, False]
    assert said[2].startswith(
        "success fell (100 % to 80 %): the policy is breaking; lower --algorithm.actor_lr"
    )
    assert said[4].startswith("success fell (80 % to 0 %)")
    few = ModeTracker([80, 80], 200)
    few.update([30, 31], 100)  # .61 after .8: 4 standard errors are .195
    assert few.alarm() is None


def test_it_continues_from_its_state():
    one = ModeTracker(FOUR, 300)
    one.update([120, 120, 0, 0], 300)
    one.alarm()
    two = ModeTracker.from_state(json.loads(json.dumps(one.state_dict())))
    assert one.update([10, 90, 0, 0], 100) == two.update([10, 90, 0, 0], 100)
    assert one.alarm() == two.alarm() and one.state_dict() == two.state_dict()


def test_a_success_in_no_known_mode_is_a_success():
    tracker = ModeTracker([40, 40, 40, 40], 240)
    tracker.update([300, 20, 20, 0], 500, successes=500)
    assert "success rose (67 % to 100 %)" in tracker.alarm()


@pytest.mark.parametrize("restored", [False, True])
def test_a_run_in_which_all_episodes_succeed_goes_on(restored):
    """Weighted, 103 of 100 successes were read, and the standard error of more than all is no number."""
    tracker = ModeTracker([66, 33, 27, 26, 11, 6], 240, 169)
    tracker.update([49.651, 15.22, 13.241, 12.492, 6.833, 5.177], 100, 103)
    if restored:  # from a state that was saved when such windows were kept
        state = tracker.state_dict() | {"best_success": 1.03, "alarm_success": 1.03}
        state["window"][0][1] = 103
        tracker = ModeTracker.from_state(state)
    assert tracker.alarm() is None
    assert tracker.best_success == 1
    tracker.update([40, 20, 15, 14, 6, 5], 100, 100)
    assert tracker.alarm() is None
    assert tracker.best_success == 1
