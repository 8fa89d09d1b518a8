"""What keys have used: counted exactly, whoever counts beside."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import pytest
from attrs import evolve
from clocks import SetClock
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred as run
from twisted.internet.defer import gatherResults

from claudeproxy.ledger.counts import Count, Counts, Taken, Used, in_memory
from claudeproxy.ledger.ledger import Ledger
from claudeproxy.ledger.record import TurnRecord
from claudeproxy.ledger.shares import Plan
from claudeproxy.messages import Usage
from claudeproxy.store.database import Database

NOON = datetime(2027, 1, 31, 12, 0, 30).timestamp()
MINUTE = NOON - 30
TURN = TurnRecord(
    time=NOON, request_id="req_1", key="a", dialect="chat", model="opus", placement="kept",
    usage=Usage(100, 50, 10_000, 20),
)  # fmt: skip


@pytest.fixture
def time() -> SetClock:
    return SetClock(NOON)


@pytest.fixture
def counts(database: Database, time: SetClock) -> Counts:
    return Counts(database, time)


def fewer_than(most: int) -> Callable[[Used], bool]:
    return lambda used: used.count("day", NOON).requests < most


def anything(_: Used) -> bool:
    return True


@ensureDeferred
async def test_many_who_take_at_once_get_exactly_what_there_is(
    make_database: Callable[[], Database], time: SetClock
) -> None:
    """Each database has threads of its own, as daemons have."""
    takers = [Counts(make_database(), time) for _ in range(4)]
    asked = [taker.take("a", "", fewer_than(25)) for _ in range(20) for taker in takers]
    others = [taker.take("b", "", fewer_than(1)) for taker in takers]
    taken: list[Taken] = await gatherResults(asked)
    assert sum(one.counted for one in taken) == 25
    assert sorted(one.used.count("day", NOON).requests for one in taken if one.counted) == [
        *range(1, 26)
    ]
    assert {one.used.count("day", NOON).requests for one in taken if not one.counted} == {25}
    assert sum(one.counted for one in await gatherResults(others)) == 1


@ensureDeferred
async def test_some_give_back_while_others_take_and_turns_end(
    make_database: Callable[[], Database], time: SetClock
) -> None:
    ledgers = [Ledger(make_database(), time) for _ in range(3)]
    plan = Plan(NOON, "me", {"five_hour": NOON + 100.0})

    async def serve(ledger: Ledger, number: int) -> None:
        taken = await ledger.counts.take("a", "me", anything)
        if number % 3 == 0:
            await ledger.counts.give_back("a", taken)
            return
        await ledger.put(evolve(TURN, request_id=f"req_{number}"), plan)
        await ledgers[number % 2].put(evolve(TURN, request_id=f"req_{number}"), plan)

    await gatherResults([run(serve(ledgers[n % 3], n)) for n in range(60)])
    await ledgers[0].counts.read("me")
    assert ledgers[0].counts.known["a"].counts == {
        "min": Count(MINUTE, 40, 40 * 170),
        "day": Count(NOON - 12 * 3600 - 30, 40, 40 * 170),
    }
    assert len(await ledgers[0].latest(100)) == 40


@ensureDeferred
async def test_a_request_that_does_not_fit_changes_nothing(counts: Counts) -> None:
    taken = await counts.take("a", "", anything)
    refused = await counts.take("a", "", lambda _: False)
    assert (taken.counted, refused.counted) == (True, False)
    assert refused.used == taken.used == counts.known["a"]
    counts.known.clear()
    await counts.read("")
    assert counts.known["a"] == taken.used


@ensureDeferred
async def test_what_is_given_back_is_of_the_period_it_was_taken_in(
    counts: Counts, time: SetClock
) -> None:
    first = await counts.take("a", "", anything)
    time.now += 60
    second = await counts.take("a", "", anything)
    await counts.give_back("a", first)
    for _ in range(2):
        assert counts.known["a"].count("min", time.now) == Count(MINUTE + 60, 1)
        assert counts.known["a"].count("day", time.now).requests == 1
        await counts.read("")
    await counts.give_back("a", second)
    assert counts.known["a"].count("min", time.now).requests == 0


@ensureDeferred
async def test_clocks_of_two_machines_differ(database: Database, time: SetClock) -> None:
    """A minute that has begun on one of them is not begun again by the other."""
    ahead = SetClock(NOON)
    ahead.now = NOON + 31
    one, other = Counts(database, time), Counts(database, ahead)
    await other.take("a", "", anything)
    taken = await one.take("a", "", anything)
    assert taken.used.count("min", NOON) == Count(MINUTE + 60, 2)
    assert (await other.take("a", "", anything)).used.count("min", ahead.now).requests == 3


@ensureDeferred
async def test_a_clock_that_was_wrong_bars_nobody_for_years(counts: Counts, time: SetClock) -> None:
    time.now = NOON + 400 * 86_400
    await counts.take("a", "", anything)
    time.now = NOON
    await counts.add(TURN, Plan(NOON))
    taken = await counts.take("a", "", fewer_than(1))
    assert taken.counted
    assert taken.used.count("min", NOON) == Count(MINUTE, 1)


@ensureDeferred
async def test_tokens_of_a_turn_that_is_told_late_are_of_its_own_period(
    counts: Counts, time: SetClock
) -> None:
    time.now = NOON + 180
    await counts.take("a", "", anything)
    await counts.add(TURN, Plan(NOON))
    used = counts.known["a"]
    assert used.count("min", time.now) == Count(MINUTE + 180, 1, 0)
    assert used.count("day", time.now).tokens == 170
    await counts.add(TURN, Plan(NOON + 180))
    assert counts.known["a"].count("min", time.now).tokens == 170


@ensureDeferred
async def test_in_memory_nothing_is_left(time: SetClock) -> None:
    database = in_memory()
    for _ in range(2):
        database.open(reactor)
        counts = Counts(database, time)
        assert (await counts.take("a", "", fewer_than(1))).counted
        assert not (await counts.take("a", "", fewer_than(1))).counted
        database.close()
