"""What each way of serving a request costs, over real processes whose CLI is a script."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve
from machine import LOOK, NAMES, Machine, call, request, said

from claudeproxy.cli.process import BILLING_WAIT
from claudeproxy.cli.setup import Setup
from claudeproxy.engine.engine import Limits
from claudeproxy.engine.placing import (
    CHARACTER,
    HALF_LIFE,
    MESSAGE,
    RECENT,
    REPLACING,
    REPORT,
    REWIND,
    SET_UP,
    SETTLING,
    TOOLS,
    Kept,
    Placement,
    Wanted,
    cheapest,
    least,
    loss,
    worth_less,
)
from claudeproxy.messages import Image, Message, Request, Text, ToolResult, ToolUse
from claudeproxy.testing import transcripts as cli

PARK = 900.0
BRIEF = ("Be brief.",)


def wanted(asks: Request, model: str = "opus") -> Wanted:
    return Wanted(asks, model, Setup.of(asks))


def kept(machine: Machine) -> list[Kept]:
    return list(machine.engine.keeper._kept.values())


def way(machine: Machine, asks: Request, model: str = "opus") -> Placement | None:
    return cheapest(kept(machine), wanted(asks, model), machine.clock.seconds(), PARK)


def found(machine: Machine, *texts: str, **fields: Any) -> Placement:
    """The cheapest way to serve a conversation."""
    placement = way(machine, request(*texts, **fields))
    assert placement is not None
    return placement


def holding(*texts: str, **fields: Any) -> Machine:
    """A process that holds the conversation ``texts``, the last of which is its answer."""
    *asked, answer = texts
    machine = Machine([said(answer)])
    machine.ask(request(*asked, **fields))
    return machine


def alone(machine: Machine) -> Kept:
    """The one process that holds something; the unused one is away."""
    for claude in machine.alive:
        if claude.process.setup is None:
            claude.die()
    (only,) = kept(machine)
    return only


# -- the ways --


def test_a_process_that_holds_the_conversation_goes_on() -> None:
    placement = found(holding("a", "one"), "a", "one", "b")
    assert (placement.how, placement.since, placement.cost) == ("kept", 2, 0.0)


def test_what_it_does_not_hold_yet_is_put_to_it() -> None:
    placement = found(holding("a", "one"), "a", "one", "b", "two", "c")
    more = MESSAGE * 2 + CHARACTER * (len('["user",{"text":"b","type":"text"}]["assistant","two"]'))
    assert (placement.how, placement.since, placement.cost) == ("kept", 2, pytest.approx(more))


@pytest.mark.parametrize("end", [b"", cli.result("one")])
def test_one_that_has_not_ended_its_turn_costs_a_little(end: bytes) -> None:
    machine = Machine([said("one").replace(cli.result("one"), end)])
    machine.ask(request("a"))
    expected = 0.0 if end else SETTLING
    assert found(machine, "a", "one", "b").cost == expected


@pytest.mark.parametrize(
    ("texts", "since", "lost"),
    [
        (("a", "one", "b", "two", "c"), 4, 2),  # regenerated
        (("a", "one", "b", "two", "d"), 4, 2),  # the last message edited
        (("a", "one", "e"), 2, 4),  # one in the middle
        (("a", "one", "b", "other", "c"), 2, 4),  # an answer
        (("a", "one", "b"), 2, 4),  # shortened
        (("e",), 0, 6),
    ],
)
def test_one_that_holds_more_is_taken_back(texts: Any, since: int, lost: int) -> None:
    machine = holding("a", "one", "b", "two", "c", "three")
    placement = found(machine, *texts)
    assert (placement.how, placement.since) == ("rewound", since)
    replayed = MESSAGE * (len(texts) - 1 - since)
    at_least = REWIND + replayed + REWIND + MESSAGE * lost
    assert at_least < placement.cost < at_least + 5  # and the characters


def test_of_several_the_one_with_the_longest_prefix() -> None:
    machine = Machine([said("one"), said("two")])
    machine.ask(request("a"))
    machine.clis[0].process.outlive(1.0)  # taken
    machine.ask(request("a", "one", "b"))
    machine.run(1.0)
    assert machine.engine.keeper.holding == 2
    placement = found(machine, "a", "one", "c")
    assert (placement.kept.process, placement.since) == (machine.clis[0].process, 2)
    placement = found(machine, "a", "one", "b", "two", "c")
    assert (placement.kept.process, placement.since) == (machine.clis[1].process, 4)


def test_a_blank_one_costs_nothing() -> None:
    machine = Machine([b""])
    machine.ask(request("a")).group.cancel()
    machine.run()
    placement = found(machine, "b")
    assert (placement.how, placement.since, placement.cost) == ("rewound", 0, 0.0)


def test_other_tools_are_put_in_the_place_of_those_it_has() -> None:
    machine = holding("a", "one", tools=(LOOK,))
    same = found(machine, "b", tools=(LOOK,))
    for tools in ((), (evolve(LOOK, description="Looks around."),)):
        other = found(machine, "b", tools=tools)
        assert (other.how, other.since, other.cost) == ("rewound", 0, same.cost + TOOLS)


def test_an_unused_one_fits_any_request() -> None:
    machine = holding("a", "one")
    placement = found(machine, "a", "one", "b", system=BRIEF)
    assert (placement.how, placement.since) == ("warm", 0)
    assert placement.cost == pytest.approx(REPLACING + SET_UP + 2 * MESSAGE, abs=2)


def test_a_process_keeps_its_system_prompt() -> None:
    machine = holding("a", "one")
    alone(machine)
    assert way(machine, request("a", "one", "b", system=BRIEF)) is None


def test_one_at_work_serves_nobody_else() -> None:
    machine = Machine([cli.requesting()])
    machine.ask(request("a"))
    assert way(machine, request("a")) is None


@pytest.mark.parametrize(
    ("fields", "model"), [({}, "haiku"), ({"tools": (LOOK,)}, "opus")], ids=["model", "tools"]
)
def test_nothing_goes_on_under_another_model_or_with_other_tools(fields: Any, model: str) -> None:
    machine = holding("a", "one")
    placement = way(machine, request("a", "one", "b", **fields), model)
    assert placement is not None
    assert (placement.how, placement.since) == ("rewound", 0)


@pytest.mark.parametrize(("texts", "how"), [(("a", "one", "b"), "kept"), (("b",), "rewound")])
def test_one_about_to_tell_how_it_is_paid_is_worth_the_wait(texts: Any, how: str) -> None:
    machine = Machine([said("one").replace(cli.result("one"), b"")])
    machine.engine.quota.applies = True
    machine.ask(request("a"))
    before = found(machine, *texts)
    assert (before.how, before.ready) == (how, False)
    machine.clis[0].say(cli.result("one"))
    then = found(machine, *texts)
    assert (then.how, then.ready, then.cost) == (how, True, pytest.approx(before.cost - SETTLING))


def test_a_parked_one_tells_that_a_little_later() -> None:
    machine = Machine([call()])
    machine.engine.quota.applies = True
    machine.ask(request("a", tools=(LOOK,)))
    before = found(machine, "b", tools=(LOOK,))
    assert (before.how, before.ready) == ("rewound", False)
    machine.run(BILLING_WAIT)
    then = found(machine, "b", tools=(LOOK,))
    assert then.ready
    assert then.cost == pytest.approx(before.cost - REPORT, abs=1)


def test_by_their_cost() -> None:
    """Goes on, blank, other tools, taken back and unused: each is the choice once those before it
    are away; then one has to start."""
    machine = Machine([said("one"), said("two"), b"", b""], Limits(processes=5))
    machine.ask(request("a", tools=(LOOK,)))
    first = machine.clis[0].process
    first.outlive(1.0)
    machine.ask(request("b"))
    second = machine.clis[1].process
    second.outlive(1.0)
    blank = machine.ask(request("c", tools=(LOOK,)))
    third = machine.clis[2].process
    other = machine.ask(request("d"))
    blank.group.cancel()
    other.group.cancel()
    machine.run(1.0)
    fourth = machine.clis[3].process
    asks = request("a", "one", "e", tools=(LOOK,))
    chosen = []
    while (placement := way(machine, asks)) is not None:
        chosen.append((placement.kept.process, placement.how, placement.cost))
        placement.kept.busy = True
    unused = next(c.process for c in machine.alive if c.process.setup is None)
    assert [each[:2] for each in chosen] == [
        (first, "kept"),
        (third, "rewound"),
        (fourth, "rewound"),
        (second, "rewound"),
        (unused, "warm"),
    ]
    costs = [each[2] for each in chosen]
    assert costs == sorted(costs)


# -- parked --


def calls(*ids: str) -> bytes:
    blocks = [
        b"".join(cli.call_block(each, NAMES.upstream("look"), "{}", n))
        for n, each in enumerate(ids)
    ]
    return cli.requesting() + cli.opening() + b"".join(blocks) + cli.closing("tool_use")


def parked(*ids: str, **fields: Any) -> Machine:
    machine = Machine([calls(*ids)])
    machine.ask(request("a", tools=(LOOK,), **fields))
    return machine


def with_results(ids: tuple[str, ...], *last: Any, **fields: Any) -> Request:
    called = Message("assistant", tuple(ToolUse(each, "look", {}) for each in ids))
    asks = request("a", tools=(LOOK,), **fields)
    return evolve(asks, messages=(*asks.messages, called, Message("user", last)))


def result(call_id: str, text: str = "seen") -> ToolResult:
    return ToolResult(call_id, (Text(text),))


TWO = ("toolu_1", "toolu_2")


def test_results_go_to_the_process_that_is_parked_on_their_calls() -> None:
    placement = way(
        parked(*TWO), with_results(TWO, result("toolu2", "two"), result("toolu1", "one"))
    )
    assert placement is not None
    assert (placement.how, placement.cost) == ("parked", 0.0)
    # In the client's order, and under the ids that the process knows.
    assert placement.results == (result("toolu_2", "two"), result("toolu_1", "one"))


IMAGE = Image({"type": "base64", "media_type": "image/png", "data": "AAAA"})


@pytest.mark.parametrize(
    "last",
    [
        (Text("never mind"),),
        (result("toolu_1"),),
        (result("toolu_1"), result("toolu_2"), Text("and hurry")),
        (result("toolu_1"), result("toolu_3")),
        (result("toolu_1"), result("toolu_2"), result("toolu_3")),
        (result("toolu_1"), ToolResult("toolu_2", (Text("r"), IMAGE), is_error=True)),
    ],
)
def test_anything_but_all_results_word_for_word_is_replayed(last: Any) -> None:
    placement = way(parked(*TWO), with_results(TWO, *last))
    assert placement is not None
    assert (placement.how, placement.since, placement.results) == ("rewound", 0, ())


@pytest.mark.parametrize("change", [{"max_tokens": 7}, {"effort": "low"}])
def test_what_cannot_be_changed_while_parked(change: Any) -> None:
    machine = parked("toolu_1")
    placement = way(machine, with_results(("toolu_1",), result("toolu_1"), **change))
    assert placement is not None and placement.how == "rewound"
    machine = parked("toolu_1", **change)
    placement = way(machine, with_results(("toolu_1",), result("toolu_1"), **change))
    assert placement is not None and placement.how == "parked"


@pytest.mark.parametrize(("waited", "how"), [(PARK, "parked"), (PARK + 1, "rewound")])
def test_a_result_that_comes_too_late(waited: float, how: str) -> None:
    machine = parked("toolu_1")
    machine.clock.rightNow += waited  # the keeper has not looked yet
    placement = way(machine, with_results(("toolu_1",), result("toolu_1")))
    assert placement is not None and placement.how == how


def test_results_for_a_process_that_waits_for_none_are_replayed() -> None:
    machine = Machine([call(), said("seen")])
    asks = with_results(("toolu_1",), result("toolu_1"))
    machine.ask(request("a", tools=(LOOK,)))
    machine.ask(asks)
    placement = way(machine, asks)
    assert placement is not None
    assert (placement.how, placement.since) == ("rewound", 0)


# -- what is lost --


def test_what_is_lost_is_half_as_much_after_each_half_life() -> None:
    machine = holding("a", "one")
    only, now = alone(machine), machine.clock.seconds()
    at_once = loss(only, now)
    assert at_once == pytest.approx(REWIND + 2 * MESSAGE, abs=2)
    assert loss(only, now + HALF_LIFE) == pytest.approx(at_once / 2)
    assert loss(only, now + 10 * HALF_LIFE) == pytest.approx(at_once / 1024)
    assert loss(only, now, 2) == 0.0


def test_a_long_conversation_is_worth_more_than_a_short_one() -> None:
    short, long = alone(holding("a", "one")), alone(holding("a", "one" * 10_000))
    assert loss(long, 0.0) == pytest.approx(loss(short, 0.0) + CHARACTER * 3 * 9_999)
    assert least((long, short), 0.0) is short


def test_an_unused_one_is_taken_before_a_long_conversation_in_use_is_lost() -> None:
    machine = holding("a", "one" * 10_000)
    assert found(machine, "b").how == "warm"
    machine.clock.rightNow += 10 * HALF_LIFE
    assert found(machine, "b").how == "rewound"


def test_what_is_worth_less_than_an_unused_one_in_its_place() -> None:
    short, long = alone(holding("a", "one")), alone(holding("a", "one" * 10_000))
    assert worth_less((short, long), RECENT) is None  # whoever used it may be back at once
    assert worth_less((short, long), RECENT + 1) is short
    assert worth_less((long,), RECENT + 1) is None
    assert worth_less((long,), 10 * HALF_LIFE) is long
    unused = Machine().engine.keeper._kept.values()
    assert worth_less(unused, 1e6) is None
