"""The simulation behind the choice of what to give up (``make bench ARGS=policies``)."""

from __future__ import annotations

import pytest
from machine import user

from benchmarks.policies import (
    MIXES,
    POLICIES,
    START,
    Outcome,
    Policy,
    Turn,
    gaps,
    simulate,
    traffic,
)
from claudeproxy.engine.placing import MESSAGE, REWIND, SET_UP
from claudeproxy.messages import Message, Request, Text

ANSWER = Message("assistant", (Text("one"),))


def turn(at: float, *texts: str, system: str = "s") -> Turn:
    return Turn(at, int(at), Request("opus", user(*texts), system=(system,)), ANSWER, 1.0)


def spent(*turns: Turn, budget: int = 2) -> Outcome:
    return simulate(turns, Policy(gives_way=False), budget)


def test_a_first_turn_costs_the_set_up_and_what_follows_nothing() -> None:
    outcome = spent(turn(0, "a"), turn(10, "a", "one", "b"))
    assert outcome == Outcome(turns=2, spent=SET_UP, starts=2)


def test_another_conversation_with_the_same_set_up_costs_a_rewind() -> None:
    outcome = spent(turn(0, "a"), turn(10, "b"))
    assert outcome.spent == SET_UP + REWIND


def test_a_history_that_no_process_holds_is_replayed() -> None:
    outcome = spent(turn(0, "a", "other", "b"))
    assert outcome.spent == pytest.approx(SET_UP + 2 * MESSAGE, abs=1)


def test_a_set_up_that_no_process_has_costs_a_start_where_none_is_unused() -> None:
    outcome = spent(turn(0, "a"), turn(10, "a", system="other"), budget=1)
    assert outcome == Outcome(turns=2, spent=SET_UP + START + SET_UP, starts=2)


@pytest.mark.parametrize("mix", [mix for mix in MIXES if mix != "all"])  # the others together
def test_every_turn_is_served(mix: str) -> None:
    turns = traffic(mix, 1, ())
    assert simulate(turns, Policy(), 2).turns == len(turns) > 100


def test_a_seed_tells_all() -> None:
    one, again, other = (simulate(traffic("people", n, ()), Policy(), 4) for n in (1, 1, 2))
    assert one == again != other


def test_where_set_ups_are_many_it_pays_to_give_way() -> None:
    turns = traffic("scripts", 1, ())
    stays, gives = (simulate(turns, Policy(gives_way=way), 4).spent for way in (False, True))
    assert gives < stays / 2


def test_where_people_talk_rewinding_costs_fewer_starts() -> None:
    turns = traffic("people", 1, ())
    names = ("always started", "expected loss")
    always, rewound = (simulate(turns, POLICIES[name], 8).starts for name in names)
    assert rewound < always


def test_a_night_is_no_pause_between_two_turns() -> None:
    assert gaps([40_010.0, 10.0, 0.0, 40_000.0]) == [10.0, 10.0]
