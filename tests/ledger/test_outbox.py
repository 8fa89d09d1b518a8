"""Turns on their way to a database that is lost, and of daemons that are killed."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from attrs import evolve
from harness import until
from postgres import Postgres
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail

from claudeproxy.ledger import outbox as module
from claudeproxy.ledger.ledger import Ledger
from claudeproxy.ledger.outbox import BATCH, Outbox
from claudeproxy.ledger.record import NODE_LOST, TurnRecord
from claudeproxy.ledger.shares import Plan
from claudeproxy.ledger.totals import Totals
from claudeproxy.messages import Usage
from claudeproxy.store.database import Database, StoreLost
from claudeproxy.store.postgres import PostgreSQL

NOON = datetime(2027, 1, 31, 12, 0, 30).timestamp()
PLAN = Plan(NOON, "me", {"five_hour": NOON + 100.0})


def turn(number: int, **more: Any) -> TurnRecord:
    return TurnRecord(
        time=NOON, request_id=f"req_{number}", key="a", dialect="chat", model="opus",
        placement="kept", usage=Usage(100, 50, 10_000, 20), windows_after={"five_hour": 0.2},
        **more,
    )  # fmt: skip


class Switched:
    """``database``, which fails as a lost one does: on order; ``unsure``: after it has done what
    was asked."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.lost = self.unsure = False
        self.asked = 0

    def run(self, work: Any, *args: Any) -> Deferred[Any]:
        self.asked += 1
        if self.lost:
            return fail(StoreLost("it is down"))
        done = self._database.run(work, *args)
        return done.addCallback(self._confirm)

    def _confirm(self, result: Any) -> Any:
        if self.unsure:
            raise StoreLost("it went down")
        return result


@pytest.fixture
def switched(database: Database) -> Switched:
    return Switched(database)


@pytest.fixture
def ledger(switched: Switched) -> Ledger:
    return Ledger(switched, lambda: NOON)  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "outbox.sqlite"


@pytest_twisted.async_yield_fixture
async def outbox(path: Path, ledger: Ledger) -> Any:
    made = Outbox(path, ledger)
    made.open(reactor)
    yield made
    await made.close()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(module, "RETRY", 0.01)
        yield


def rows(path: Path) -> list[tuple[str, bool]]:
    with closing(sqlite3.connect(path)) as other:
        return list(other.execute("SELECT request_id, plan IS NULL FROM waiting ORDER BY place"))


def locks(path: Path) -> int:
    return len(list(path.parent.glob("*.lock")))


@ensureDeferred
async def test_a_turn_is_sent_at_once_and_then_gone(
    outbox: Outbox, ledger: Ledger, path: Path
) -> None:
    outbox.began(turn(1, windows_before={"five_hour": 0.1}))
    await until(lambda: rows(path) == [("req_1", True)])
    assert outbox.waiting == 0
    record = turn(1, windows_before={"five_hour": 0.1}, status=200, list_price=None)
    outbox.add(record, PLAN)
    assert outbox.waiting == 1
    await until(lambda: outbox.waiting == 0)
    assert rows(path) == []
    assert await ledger.turn("req_1") == record
    used = ledger.counts.known["a"]
    assert used.count("day", NOON).tokens == 170
    assert used.share("me", "five_hour", NOON) == pytest.approx(0.1)
    assert path.stat().st_mode & 0o077 == 0


@ensureDeferred
async def test_while_the_database_is_lost_turns_wait_in_the_order_they_ended_in(
    outbox: Outbox, ledger: Ledger, switched: Switched, path: Path
) -> None:
    switched.lost = True
    for number in range(5):
        outbox.began(turn(number))
    for number in (3, 1, 4, 0):
        outbox.add(turn(number), PLAN)
    ended = [("req_3", False), ("req_1", False), ("req_4", False), ("req_0", False)]
    await until(lambda: rows(path) == [("req_2", True), *ended])
    assert outbox.waiting == 4
    switched.lost = False
    outbox.send()
    outbox.send()  # twice at once, they are sent once
    await until(lambda: outbox.waiting == 0)
    found = await ledger.latest(10)
    assert [record.request_id for record in found] == ["req_0", "req_4", "req_1", "req_3"]
    assert rows(path) == [("req_2", True)]
    assert Totals.of(await ledger.hours(0)).turns == 4


@ensureDeferred
async def test_those_that_have_waited_are_sent_together(
    outbox: Outbox, ledger: Ledger, switched: Switched, path: Path
) -> None:
    switched.lost = True
    for number in range(3 * BATCH):
        outbox.add(turn(number), PLAN)
    await until(lambda: len(rows(path)) == 3 * BATCH)
    switched.lost, switched.asked = False, 0
    outbox.send()
    await until(lambda: outbox.waiting == 0)
    assert switched.asked == 3
    assert len(await ledger.latest(100)) == 3 * BATCH
    assert Totals.of(await ledger.hours(0)).turns == 3 * BATCH


@ensureDeferred
async def test_it_is_tried_again_though_nobody_says_that_the_database_is_back(
    outbox: Outbox, ledger: Ledger, switched: Switched, soon: None
) -> None:
    switched.lost = True
    outbox.add(turn(1), PLAN)
    await until(lambda: switched.asked > 2)
    assert outbox.waiting == 1
    switched.lost = False
    await until(lambda: outbox.waiting == 0)
    assert await ledger.turn("req_1") == turn(1)


@ensureDeferred
async def test_a_turn_that_was_added_and_not_confirmed_counts_once(
    outbox: Outbox, ledger: Ledger, switched: Switched, soon: None
) -> None:
    switched.unsure = True
    outbox.add(turn(1), PLAN)
    await until(lambda: switched.asked > 2)
    switched.unsure = False
    await until(lambda: outbox.waiting == 0)
    assert await ledger.latest(10) == [turn(1)]
    assert Totals.of(await ledger.hours(0)).turns == 1
    await ledger.counts.read("me")
    assert ledger.counts.known["a"].count("day", NOON).tokens == 170


@pytest.mark.expected_errors
@ensureDeferred
async def test_a_turn_that_cannot_be_added_is_in_nobodys_way(
    outbox: Outbox, ledger: Ledger, nothing_logged: list[str]
) -> None:
    outbox.add(evolve(turn(1), dialect=None), PLAN)
    outbox.add(evolve(turn(2), time=1e30), PLAN)  # there is no such hour
    outbox.add(turn(3), PLAN)
    await until(lambda: outbox.waiting == 0)
    assert (await ledger.latest(10))[0] == turn(3)
    assert nothing_logged


@pytest.mark.expected_errors
@ensureDeferred
async def test_there_is_a_bound(
    path: Path, ledger: Ledger, switched: Switched, nothing_logged: list[str]
) -> None:
    switched.lost = True
    outbox = Outbox(path, ledger, most=3)
    outbox.open(reactor)
    for number in range(6):
        outbox.began(turn(number))
        outbox.add(turn(number), PLAN)
    await until(lambda: [name for name, _ in rows(path)] == ["req_0", "req_1", "req_2"])
    assert outbox.waiting == 3
    assert [line.partition(" ")[2] for line in nothing_logged] == [
        "turns wait for the database: further ones will not be in the ledger"
    ]
    switched.lost = False
    outbox.send()
    await until(lambda: outbox.waiting == 0)
    await until(lambda: len(nothing_logged) == 2)
    outbox.add(turn(7), PLAN)
    await outbox.close()
    found = await ledger.latest(10)
    assert [record.request_id for record in found] == ["req_7", "req_2", "req_1", "req_0"]


@pytest.mark.expected_errors
@ensureDeferred
async def test_where_nothing_can_be_noted_turns_are_told_without(
    outbox: Outbox, ledger: Ledger, path: Path, nothing_logged: list[str]
) -> None:
    await outbox._database.run(lambda cursor: cursor.execute("DROP TABLE waiting"))
    outbox.add(turn(1), PLAN)
    await until(lambda: "a" in ledger.counts.known)
    assert await ledger.turn("req_1") == turn(1)
    assert outbox.waiting == 0
    assert nothing_logged
    with closing(sqlite3.connect(path)) as other:
        module._prepare(other)


@ensureDeferred
async def test_what_waits_when_a_daemon_stops_is_sent_by_the_next(
    path: Path, ledger: Ledger, switched: Switched
) -> None:
    outbox = Outbox(path, ledger)
    outbox.open(reactor)
    outbox.add(turn(1), PLAN)
    await outbox.close()  # which waits for it
    assert await ledger.turn("req_1") == turn(1)
    outbox.open(reactor)
    switched.lost = True
    outbox.add(turn(2), PLAN)
    await outbox.close()
    assert rows(path) == [("req_2", False)]
    assert locks(path) == 0
    switched.lost = False
    outbox.open(reactor)
    await until(lambda: rows(path) == [])
    assert await ledger.turn("req_2") == turn(2)
    await outbox.close()


@ensureDeferred
async def test_daemons_that_run_keep_what_is_theirs(
    path: Path, ledger: Ledger, switched: Switched
) -> None:
    first, second = Outbox(path, ledger), Outbox(path, ledger)
    first.open(reactor)
    switched.lost = True
    first.began(turn(1))
    first.add(turn(2), PLAN)
    await until(lambda: len(rows(path)) == 2)
    switched.lost = False
    second.open(reactor)
    second.add(turn(3), PLAN)
    await second.close()
    assert rows(path) == [("req_1", True), ("req_2", False)]
    assert [record.request_id for record in await ledger.latest(10)] == ["req_3"]
    assert locks(path) == 1
    await first.close()


# In the place of a daemon: it notes turns, and its database is lost.
_NODE = """
import sys
from pathlib import Path
from twisted.internet import reactor
from twisted.internet.defer import fail
from test_outbox import PLAN, turn
from claudeproxy.ledger.ledger import Ledger
from claudeproxy.ledger.outbox import BATCH, Outbox
from claudeproxy.store.database import StoreLost

class Lost:
    def run(self, *_):
        return fail(StoreLost("it is down"))

outbox = Outbox(Path(sys.argv[1]), Ledger(Lost()))
outbox.open(reactor)
outbox.began(turn(1))
outbox.began(turn(2))
outbox.add(turn(2), PLAN)
outbox._database.run(lambda _: None).addCallback(lambda _: print("noted", flush=True))
reactor.run()
"""


@ensureDeferred
async def test_a_daemon_that_is_killed_tells_its_turns_when_it_is_started_again(
    path: Path, ledger: Ledger
) -> None:
    tests = Path(__file__).parent
    places = [str(tests), str(tests.parent), *sys.path]
    nodes = [
        subprocess.Popen(
            [sys.executable, "-c", _NODE, str(path.parent.parent / name / path.name)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(places)},
            stdout=subprocess.PIPE,
        )
        for name in ("state", "other")
    ]
    try:
        for node in nodes:
            assert node.stdout is not None and node.stdout.readline() == b"noted\n"
        outbox = Outbox(path, ledger)
        outbox.open(reactor)
        await outbox.close()
        assert rows(path) == [("req_1", True), ("req_2", False)]  # the node lives
        nodes[0].send_signal(signal.SIGKILL)
        nodes[0].wait()
        assert locks(path) == 1
        outbox.open(reactor)
        await until(lambda: rows(path) == [])
        assert await ledger.turn("req_2") == turn(2)
        lost = await ledger.turn("req_1")
        assert lost is not None
        assert (lost.outcome, lost.status, lost.key) == (NODE_LOST, None, "a")
        assert lost.time == NOON
        assert [one.request_id for one in await ledger.latest(9, only="failed")] == ["req_1"]
        assert locks(path) == 1
        await outbox.close()
    finally:
        for node in nodes:
            node.kill()
            node.wait()
            assert node.stdout is not None
            node.stdout.close()


@pytest.mark.alone
@ensureDeferred
async def test_a_server_that_is_killed_and_started_again(
    path: Path, postgresql: PostgreSQL, postgres: Postgres
) -> None:
    ledger = Ledger(postgresql, lambda: NOON)
    outbox = Outbox(path, ledger)
    postgresql.on_back.append(outbox.send)
    outbox.open(reactor)
    for number in range(30):
        outbox.began(turn(number))
        outbox.add(turn(number), PLAN)
    postgres.kill()
    for number in range(30, 60):
        outbox.add(turn(number), PLAN)
    await until(lambda: postgresql.lost_since is not None)
    await until(lambda: outbox._sending is None)
    assert outbox.waiting >= 30
    await until(lambda: len(rows(path)) == outbox.waiting)
    postgres.start()
    await until(lambda: outbox.waiting == 0, 15)
    assert {one.request_id for one in await ledger.latest(99)} == {f"req_{n}" for n in range(60)}
    assert Totals.of(await ledger.hours(0)).turns == 60
    await ledger.counts.read("me")
    assert ledger.counts.known["a"].count("day", NOON).tokens == 60 * 170
    await outbox.close()
