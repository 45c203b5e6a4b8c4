"""Times by hand: what is played, and what an update of other minibatches takes."""

from lerobot_rlft.training.estimate import Play, duration, scaled


def test_playing_by_hand():
    """10 episodes in 4 environments are 3 rounds of 3 decisions (7 steps, 3 a decision) of 4 rows."""
    play = Play(max_steps=7, n_action_steps=3, reset=0.5, step=0.1, decide=lambda envs: 0.01 * envs)
    assert abs(play.seconds(10, 4) - (3 * 3 * 0.04 + 10 * (0.5 + 0.7))) < 1e-9
    assert abs(play.seconds(2, 4) - (3 * 0.02 + 2 * 1.2)) < 1e-9  # no more environments than episodes


def test_an_update_by_hand():
    """4 minibatches of 40 rows took 2 s; one of 512 takes 6 times as long, and there are 12."""
    assert scaled(2.0, (40, 4), (512, 12), 6.0) == 36


def test_durations():
    assert [duration(s) for s in (0.123, 59, 90, 7200)] == ["0.12 s", "59 s", "1.5 min", "2 h"]
