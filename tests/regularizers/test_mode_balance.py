"""Mode-balanced advantages against numbers worked out by hand."""

import copy
import math

import pytest
import torch

from lerobot_rlft.regularizers.mode_balance import BalanceConfig, ModeBalance, centred, counts


def make(num_modes=2, shares=None, lam=1.0, **fields):
    torch.manual_seed(0)
    balance = ModeBalance(BalanceConfig(**fields), 3, (8,), 1e-2, torch.device("cpu"), lam)
    balance.make(num_modes)
    if shares is not None:
        balance.target, balance.shares = torch.tensor(shares), torch.tensor(shares)
    return balance


def grid(*rows):
    return torch.tensor(rows, dtype=torch.float32)


def test_counts_leave_out_unknown_ones():
    assert counts(torch.tensor([2, -1, 0, 2]), 4).tolist() == [1, 0, 2, 0]


def test_centring_by_hand():
    #                  mode 0          mode 1  none
    advantage = grid([1.0, 2.0, 6.0, 5.0, 9.0], [4.0, 8.0, 0.0, 7.0, 3.0])
    valid = torch.tensor([[True] * 5, [True, True, False, True, True]])
    out = centred(advantage, valid, torch.tensor([0, 0, 0, 1, -1]), 3)
    # means of mode 0: 3 at the first decision; 6 at the second, which the third episode does not have. The
    # only episode of mode 1 gives 0; the one of unknown mode keeps what it has.
    assert out.tolist() == [[-2, -1, 3, 0, 9], [-2, 2, 0, 0, 3]]


def test_centred_advantages_sum_to_zero_in_each_mode_at_each_decision():
    torch.manual_seed(1)
    valid = torch.arange(6)[:, None] < torch.randint(1, 7, (40,))
    attempt = torch.randint(-1, 4, (40,))
    out = centred(10 * torch.randn(6, 40), valid, attempt, 4)
    for mode in range(4):
        torch.testing.assert_close(out[:, attempt == mode].sum(1), torch.zeros(6), atol=1e-4, rtol=0)
    assert (out[~valid] == 0).all()


def test_a_value_after_the_end_of_an_episode_does_not_enter_a_mean():
    valid = torch.tensor([[True, True, True], [True, True, False]])
    advantage = grid([1, 3, 2], [1, 3, 1000])
    assert centred(advantage, valid, torch.tensor([0, 0, 0]), 1)[1].tolist() == [-1, 1, 0]


def test_the_target_is_what_was_asked_for():
    attempt = torch.tensor([0, 0, 0, 1, 1, 2, -1])
    success = torch.tensor([True, False, False, True, True, False, True])
    for target, shares in (
        ("attempted", [3 / 6, 2 / 6, 1 / 6, 0]),
        ("successful", [1 / 3, 2 / 3, 0, 0]),
        ("uniform", [1 / 2, 1 / 2, 0, 0]),
    ):
        balance = make(4, tau=1, target=target)
        balance.aim(attempt, success)
        assert balance.target.tolist() == pytest.approx(shares)
        assert balance.shares.tolist() == pytest.approx(shares)


@pytest.mark.parametrize("modes, success", [([1, 1, -1], [True] * 3), ([-1, -1, -1], [False] * 3)])
def test_a_base_of_one_mode_or_none_is_refused(modes, success):
    count = len({m for m in modes if m >= 0})
    with pytest.raises(ValueError, match=rf"uses {count} mode, .*no diversity to hold.*min_cluster_size"):
        make(3, tau=1).aim(torch.tensor(modes), torch.tensor(success))


def test_the_bonus_by_hand():
    balance = make(shares=[0.5, 0.5], tau=0.4)
    balance.count(torch.tensor([0] * 6 + [1] * 2 + [-1] * 5))
    # shares: half old, half the new .75, .25; 8 known episodes weigh as 8 * 1.5 / .5 = 24 in the decaying
    # mean, and each mode gets a pseudo-episode at its target share: (.625 * 24 + .5 * 2) / 26
    assert balance.shares.tolist() == pytest.approx([0.625, 0.375])
    smooth = [(0.625 * 24 + 1) / 26, (0.375 * 24 + 1) / 26]
    expected = [-0.4 * math.log(p / 0.5) for p in smooth]
    assert expected[0] < 0 < expected[1]
    assert balance.bonus.tolist() == pytest.approx(expected)
    balance.count(torch.tensor([0, 1]))
    assert balance.shares.tolist() == pytest.approx([0.5625, 0.4375])
    balance.coef = 2.5  # it multiplies tau
    balance.count(torch.tensor([0, 1]))
    share = 0.53125
    assert balance.bonus[0].item() == pytest.approx(-1.0 * math.log((share * 6 + 1) / 8 / 0.5))


def test_shares_as_wanted_give_no_bonus():
    balance = make(shares=[0.75, 0.25], tau=1)
    balance.count(torch.tensor([0, 0, 0, 1]))
    assert balance.bonus.tolist() == pytest.approx([0, 0], abs=1e-6)


def test_an_empty_mode_has_a_finite_bonus_and_an_unknown_one_none():
    balance = make(3, shares=[0.5, 0.5, 0.0], tau=0.2)
    for _ in range(60):
        balance.count(torch.tensor([0] * 50))
    # mode 1 is down to its pseudo-episodes: .5 * 3 of 150 + 3
    assert balance.bonus[1].item() == pytest.approx(-0.2 * math.log(1.5 / 153 / 0.5), rel=1e-4)
    assert balance.bonus[2] == 0
    strong = make(3, shares=[0.5, 0.5, 0.0], tau=50)
    strong.count(torch.tensor([0] * 50))
    assert strong.bonus.tolist() == [-1, 1, 0]  # capped


def test_an_iteration_of_unknown_modes_changes_no_share():
    balance = make(shares=[0.75, 0.25], tau=1)
    balance.count(torch.tensor([-1, -1, -1]))
    assert balance.shares.tolist() == [0.75, 0.25] and balance.bonus.tolist() == pytest.approx([0, 0])


def force(balance, bonus, attempt, expected, valid=None):
    balance.bonus = torch.tensor(bonus)
    valid = torch.ones_like(expected, dtype=torch.bool) if valid is None else valid
    advantage = torch.zeros_like(expected)
    return balance(advantage, valid, torch.tensor(attempt), expected)


def test_the_force_lands_on_the_decision_that_chooses_the_mode():
    """Until the second decision both modes are expected equally, after it the mode is certain."""
    expected = grid([0.0, 0.0], [0.0, 0.0], [0.6, -0.6], [0.6, -0.6])
    for lam in (0.0, 0.5, 0.95):
        out = force(make(tau=1, lam=lam), [0.6, -0.6], [0, 1], expected)
        delta = [0, 0.6, 0, 0]  # of mode 0: what is expected rises once
        by_hand = [sum(lam ** (j - t) * delta[j] for j in range(t, 4)) for t in range(4)]
        assert out[:, 0].tolist() == pytest.approx(by_hand)
        assert out[:, 1].tolist() == pytest.approx([-x for x in by_hand])


def test_unknown_attempts_feel_no_force_and_failures_feel_that_of_what_they_attempted():
    out = force(make(tau=1), [0.6, -0.5], [0, 1, -1], torch.zeros(1, 3))
    assert out.tolist() == [pytest.approx([0.6, -0.5, 0])]


def test_the_bonus_is_paid_at_each_episodes_own_end():
    valid = torch.tensor([[True, True], [True, False], [True, False]])
    out = force(make(tau=1, lam=0.5), [0.6, -0.5], [0, 1], torch.zeros(3, 2), valid)
    assert out.T.tolist() == [pytest.approx([0.15, 0.3, 0.6]), pytest.approx([-0.5, 0, 0])]


def test_centring_and_force_add_up_and_each_can_be_left_out():
    advantage, expected = grid([1, 3]), torch.zeros(1, 2)
    arguments = advantage, torch.ones(1, 2, dtype=torch.bool), torch.tensor([0, 0])
    for fields, out in (
        ({"center": True}, [-1, 1]),
        ({"tau": 1.0}, [1.25, 3.25]),
        ({"center": True, "tau": 1.0}, [-0.75, 1.25]),
    ):
        balance = make(lam=0.95, **fields)
        balance.bonus = torch.tensor([0.25, 0.0])
        assert balance(*arguments, expected).tolist() == [pytest.approx(out)]
        assert balance.config.enabled
    assert not BalanceConfig().enabled


def test_the_classifier_learns_which_mode_follows_and_skips_unknown_ones():
    balance = make(tau=1)
    condition = torch.tensor([[2.0, 0, 0], [-2.0, 0, 0], [0, 1, 0]])
    attempt = torch.tensor([0, 1, -1])
    first = balance.step(condition, attempt)
    assert first == pytest.approx(math.log(2), abs=0.3)
    for _ in range(100):
        last = balance.step(condition, attempt)
    assert last < 0.1 * first
    assert balance.predict(condition)[:2].argmax(1).tolist() == [0, 1]
    torch.testing.assert_close(balance.predict(condition).sum(1), torch.ones(3))
    before = [p.clone() for p in balance.classifier.parameters()]
    assert balance.step(condition, torch.full((3,), -1)) == 0
    assert all(torch.equal(p, q) for p, q in zip(balance.classifier.parameters(), before, strict=True))


def test_state_comes_back():
    balance, other = make(shares=[0.75, 0.25], tau=1), make(tau=1)
    balance.step(torch.randn(4, 3), torch.tensor([0, 1, 1, 0]))
    balance.count(torch.tensor([0, 1, 1]))
    other.load_state_dict(copy.deepcopy(balance.state_dict()))
    for b in (balance, other):
        b.count(torch.tensor([1, 1]))
        b.loss = b.step(torch.ones(2, 3), torch.tensor([0, 1]))
    assert torch.equal(balance.bonus, other.bonus) and balance.loss == other.loss
    assert torch.equal(balance.predict(torch.ones(1, 3)), other.predict(torch.ones(1, 3)))


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"tau": -0.1}, r"algorithm.balance.tau=-0.1 must not be negative"),
        ({"tau": math.nan}, r"algorithm.balance.tau=nan must not be negative"),
        ({"target": "base"}, r"balance.target='base' is unknown, choose attempted, successful, uniform"),
    ],
)
def test_values_out_of_range_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        BalanceConfig(**fields)
