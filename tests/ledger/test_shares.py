"""Which part of a window went to which key."""

from __future__ import annotations

import pytest

from claudeproxy.ledger.shares import Shares, window_seconds

RESETS = {"five_hour": 5000.0}


def used(share: float) -> dict[str, float]:
    return {"five_hour": share}


def test_each_key_gets_the_growth_that_its_turns_report() -> None:
    shares = Shares()
    shares.heard("a", used(0.1), used(0.12), RESETS)
    shares.heard("b", used(0.1), used(0.12), RESETS)  # beside it: the growth is counted once
    shares.heard("b", used(0.12), used(0.15), RESETS)
    shares.heard(None, used(0.15), used(0.2), RESETS)
    shares.heard("a", used(0.2), used(0.21), RESETS)
    assert shares.of("a", "five_hour", 0.0) == pytest.approx(0.03)
    assert shares.of("b", "five_hour", 0.0) == pytest.approx(0.03)
    assert shares.of("c", "five_hour", 0.0) == 0
    assert shares.of("a", "seven_day", 0.0) == 0


def test_a_window_of_which_nothing_was_known_belongs_to_nobody() -> None:
    shares = Shares()
    shares.heard("a", {}, used(0.5), RESETS)
    assert shares.of("a", "five_hour", 0.0) == 0
    shares.heard("a", used(0.5), used(0.6), RESETS)
    assert shares.of("a", "five_hour", 0.0) == pytest.approx(0.1)


def test_a_new_window_begins_anew() -> None:
    shares = Shares()
    shares.heard("a", used(0.1), used(0.4), RESETS)
    assert shares.of("a", "five_hour", 5000.0) == 0  # it has reset; nothing is heard of the next
    shares.heard("a", {}, used(0.45), {"five_hour": 23_000.0})
    assert shares.of("a", "five_hour", 6000.0) == pytest.approx(0.45)
    shares.heard("a", {}, used(0.47), {"five_hour": 23_001.0})  # the same one, told a second later
    assert shares.of("a", "five_hour", 6000.0) == pytest.approx(0.47)


def test_a_share_that_falls_is_not_taken_back() -> None:
    shares = Shares()
    for before, after in ((0.1, 0.3), (0.3, 0.2), (0.2, 0.25)):
        shares.heard("a", used(before), used(after), RESETS)
    assert shares.of("a", "five_hour", 0.0) == pytest.approx(0.25)


def test_how_long_windows_last() -> None:
    assert window_seconds("five_hour") == 18_000
    assert window_seconds("seven_day_opus") == window_seconds("seven_day") == 604_800
    assert window_seconds("overage") == 0
