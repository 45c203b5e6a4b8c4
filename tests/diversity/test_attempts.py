import numpy as np
import pytest

from lerobot_rlft.diversity.attempts import Attempts
from lerobot_rlft.utils.errors import UserError

NAN = float("nan")


def paths(*episodes):
    """(E, L+1, 1), filled up with NaN."""
    longest = max(map(len, episodes))
    return np.array([[*e, *[NAN] * (longest - len(e))] for e in episodes], np.float32)[..., None]


def name(attempts, episodes, modes, success):
    return attempts.name(paths(*episodes), np.array(modes), np.array(success)).tolist()


def test_a_failure_takes_the_mode_of_the_nearest_success():
    attempts = Attempts(paths([0, 1, 2], [0, -1, -2]), np.array([4, 7]))
    # squared distances to (mode 4, mode 7): (.25 + .25, 2.25 + 12.25) and (4 + 9, 0 + 1)
    assert name(attempts, [[0, 0.5, 1.5], [0, -1, -1]], [-1, -1], [False, False]) == [4, 7]


def test_only_the_time_before_it_ended_counts():
    """[0, -1] is mode 7's beginning; waiting at -1 it would be nearer to mode 4, which comes back to -1."""
    attempts = Attempts(paths([0, 0, -1, -1, -1], [0, -1, -4, -4, -4]), np.array([4, 7]))
    assert name(attempts, [[0, -1], [0, -1, -1, -1, -1]], [-1, -1], [False, False]) == [7, 4]


def test_a_success_that_ended_earlier_waits_at_its_end():
    attempts = Attempts(paths([0, 1], [0, 3, 3, 3, 3]), np.array([0, 1]))
    # to mode 0, which waits at 1: 3 * .81; to mode 1: 1 + 3 * 1.21
    assert name(attempts, [[0, 2, 1.9, 1.9, 1.9]], [-1], [False]) == [0]
    # and the remembered paths may be longer or shorter than these
    assert name(attempts, [[0, 0, 0, 5, 5, 5, 5, 5, 5]], [-1], [False]) == [1]


def test_each_dimension_is_in_units_of_its_spread():
    """Plain distances would be ruled by the second dimension, whose numbers are a thousand times larger."""
    small, large = [0.0, 1.0, 0.0, -1.0], [0.0, 1000.0, 0.0, 1500.0]
    base = np.stack([small, large], -1).reshape(2, 2, 2)
    attempts = Attempts(base, np.array([0, 1]))
    np.testing.assert_allclose(attempts.scale, [np.std(small), np.std(large)])
    # in units of .71 and 650: 0.08 + .43 to mode 0, 6.48 + .02 to mode 1
    episode = np.array([[[0, 0], [0.8, 1430.0]]])
    assert attempts.name(episode, np.array([-1]), np.array([False])).tolist() == [0]


def test_a_dimension_that_never_changes_divides_by_nothing():
    base = np.array([[[0, 5.0], [1, 5.0]], [[0, 5.0], [-1, 5.0]]])
    attempts = Attempts(base, np.array([2, 3]))
    assert attempts.scale[1] == 1
    assert attempts.name(base, np.array([-1, -1]), np.array([False, False])).tolist() == [2, 3]


def test_successes_beside_a_failure_are_compared_too_and_known_modes_stay():
    attempts = Attempts(paths([0, 5, 5]), np.array([1]))
    episodes, given = [[0, 1, 1], [0, 1, 2], [0, 4, 4]], [6, -1, 0]
    modes = np.array(given)
    named = attempts.name(paths(*episodes), modes, np.array([True, False, False]))
    assert named.tolist() == [6, 6, 0] and modes.tolist() == given
    # an episode that failed teaches nobody, even if its mode is known
    assert name(attempts, [[0, 1, 1], [0, 1, 2]], [6, -1], [False, False]) == [6, 1]


def test_a_base_without_success_is_refused():
    with pytest.raises(ValueError, match="no success in a known mode whose path failures could be held to"):
        Attempts(np.zeros((0, 3, 1)), np.zeros(0, int))


def test_saved_and_loaded(tmp_path):
    attempts = Attempts(paths([0, 1, 2], [0, -1]), np.array([4, 7]))
    attempts.save(tmp_path / "attempts.safetensors")
    loaded = Attempts.load(tmp_path / "attempts.safetensors")
    assert vars(loaded).keys() == vars(attempts).keys()
    for key, value in vars(attempts).items():
        np.testing.assert_array_equal(getattr(loaded, key), value)
    for damage in (lambda f: f.write_bytes(b"cut"), lambda f: f.unlink()):
        damage(tmp_path / "attempts.safetensors")
        with pytest.raises(UserError, match=r"attempts.safetensors, are missing or damaged .*new run"):
            Attempts.load(tmp_path / "attempts.safetensors")
