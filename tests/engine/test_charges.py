"""What has been charged for, on a clock of its own."""

from __future__ import annotations

import json

import pytest
from attrs import evolve

from claudeproxy.engine import charges as module
from claudeproxy.engine.charges import AGAIN, Charges, setup_key
from claudeproxy.messages import Message, Request, Text, Tool

LOOK = Tool("look", "Looks.", {"type": "object"})
ASKS = Request("opus", (Message("user", (Text("x"),)),), ("Be brief.",), (LOOK,))


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_set_up_is_its_system_prompt_and_its_tools() -> None:
    key = setup_key(ASKS)
    other = Message("user", (Text("y"),))
    assert key == setup_key(evolve(ASKS, messages=(other,), model="haiku", max_tokens=5))
    for change in (
        {"system": ("Be long.",)},
        {"system": ("Be", "brief.")},
        {"tools": ()},
        {"tools": (evolve(LOOK, name="see"),)},
        {"tools": (evolve(LOOK, description="?"),)},
        {"tools": (evolve(LOOK, parameters={}),)},
    ):
        assert setup_key(evolve(ASKS, **change)) != key
    assert "brief" not in key


def test_a_set_up_that_was_charged_may_try_again_after_an_hour() -> None:
    clock = Clock()
    charges = Charges(clock)
    assert not charges.is_judged("a")
    charges.charge("a")
    assert charges.is_charged("a") and charges.is_judged("a")
    assert not charges.is_charged("b") and not charges.is_judged("b")
    assert charges.charged == 1
    clock.now += AGAIN - 1
    assert charges.is_charged("a")
    clock.now += 1
    assert not charges.is_charged("a") and not charges.is_judged("a")
    assert charges.charged == 0


def test_the_last_reply_counts() -> None:
    charges = Charges(Clock())
    charges.clear("a")
    assert charges.is_judged("a") and not charges.is_charged("a")
    charges.charge("a")
    assert charges.is_charged("a")
    charges.clear("a")
    assert charges.is_judged("a") and not charges.is_charged("a")


def test_what_was_free_before_it_was_charged_has_to_be_judged_anew() -> None:
    clock = Clock()
    charges = Charges(clock)
    charges.clear("a")
    charges.charge("a")
    clock.now += AGAIN
    assert not charges.is_judged("a")


def test_kept_over_a_restart() -> None:
    clock = Clock()
    charges = Charges(clock)
    charges.charge("a")
    charges.clear("b")
    restored = Charges(clock)
    restored.restore(json.loads(json.dumps(charges.kept())), {})
    assert restored.is_charged("a")
    assert not restored.is_judged("b")
    clock.now += AGAIN
    assert not restored.is_judged("a")


def test_another_account_is_not_judged_yet() -> None:
    charges = Charges(Clock())
    charges.charge("a")
    charges.clear("b")
    charges.forget()
    assert not charges.is_judged("a") and not charges.is_judged("b")


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REMEMBERED", 3)
    charges = Charges(Clock())
    for number in range(9):
        charges.charge(f"c{number}")
        charges.clear(f"f{number}")
    assert [n for n in range(9) if charges.is_charged(f"c{n}")] == [6, 7, 8]
    assert [n for n in range(9) if charges.is_judged(f"f{n}")] == [6, 7, 8]
