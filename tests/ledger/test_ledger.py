"""The ledger: its file, its bounds, and its sums."""

from __future__ import annotations

import shutil
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from clocks import SetClock
from pytest_twisted import ensureDeferred
from twisted.internet import reactor

from claudeproxy.ledger.file import sqlite_ledger
from claudeproxy.ledger.hours import MAX_NAMES, OTHERS, Hour
from claudeproxy.ledger.ledger import Ledger
from claudeproxy.ledger.record import PAID, PLAN, TurnRecord, client_name
from claudeproxy.ledger.shares import Plan
from claudeproxy.ledger.totals import Totals, by, by_session, day
from claudeproxy.ledger.turns import COLUMNS, ONLY, Report
from claudeproxy.messages import Usage
from claudeproxy.store.database import Database, StoreLost
from claudeproxy.store.sqlite import SQLite

HOUR = 3600
NOW = int(datetime(1970, 2, 11, 16).timestamp())


@pytest.fixture
def clock() -> SetClock:
    return SetClock(float(NOW))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ledger.sqlite"


@pytest.fixture
def sqlite(path: Path) -> Iterator[SQLite]:
    file = open_file(path)
    yield file
    file.close()


@pytest.fixture
def ledger(database: Database, clock: SetClock) -> Ledger:
    return Ledger(database, clock, max_turns=5, max_age=10 * HOUR)


@pytest.fixture
def in_file(sqlite: SQLite, clock: SetClock) -> Ledger:
    return Ledger(sqlite, clock)


def open_file(path: Path) -> SQLite:
    opened = sqlite_ledger(path)
    opened.open(reactor)
    return opened


FULL = TurnRecord(
    time=NOW - 10.5,
    request_id="req_1",
    key="laptop",
    dialect="chat",
    client="curl",
    model="opus",
    answered_by="claude-opus-4-5-20251101",
    placement="rewound",
    answers=2,
    usage=Usage(100_000, 1000, 10_000, 4000, 50, 1000),
    body_bytes=10,
    cli_bytes=20,
    reply_bytes=30,
    queue_ms=1.5,
    first_token_ms=250.25,
    total_ms=900.0,
    status=200,
    windows_before={"five_hour": 0.1},
    windows_after={"five_hour": 0.2, "seven_day": 0.1},
    paid_by=PLAN,
    list_price=0.7,
)
REFUSED = TurnRecord(
    time=NOW - 5, request_id="req_2", dialect="messages", model="opus", status=429,
    outcome="plan_limit", code="rate_limit_exceeded",
)  # fmt: skip


def turn(number: int, when: float = NOW, **more: object) -> TurnRecord:
    return evolve(FULL, request_id=f"req_{number}", time=when, **more)


@ensureDeferred
async def test_a_turn_comes_back_as_it_was(ledger: Ledger) -> None:
    for record in (FULL, REFUSED):
        await ledger.add(record)
    assert await ledger.turn("req_1") == FULL
    assert await ledger.turn("req_2") == REFUSED
    assert await ledger.turn("req_3") is None
    assert await ledger.latest(10) == [REFUSED, FULL]
    assert await ledger.latest(1) == [REFUSED]
    assert await ledger.latest(10, REFUSED.time) == [FULL]
    report = Report(FULL.time, FULL.key, FULL.windows_before, FULL.windows_after)
    assert await ledger.shares(0) == [report]
    assert await ledger.shares(NOW) == []


UNPRICED = {"answered_by": "x", "list_price": None}


@ensureDeferred
async def test_turns_that_failed_and_turns_that_were_paid(ledger: Ledger) -> None:
    left, paid = turn(3, NOW - 3, outcome="client left"), turn(4, NOW - 4, paid_by=PAID)
    broken = turn(5, NOW - 2, outcome="upstream", status=502, cause="it ended (exit 1)")
    for record in (FULL, REFUSED, left, paid, broken):
        await ledger.add(record)
    assert await ledger.latest(10, only="failed") == [broken, REFUSED]
    assert await ledger.latest(1, only="failed") == [broken]
    assert await ledger.latest(10, broken.time, "failed") == [REFUSED]
    assert await ledger.latest(10, only="paid") == [paid]


@ensureDeferred
async def test_failed_and_paid_turns_are_found_by_an_index(in_file: Ledger) -> None:
    plans: list[str] = []

    def explain(cursor: Any) -> None:
        for only in ("failed", "paid"):
            wanted = f"SELECT * FROM turns WHERE {ONLY[only]} ORDER BY time DESC, id DESC LIMIT 5"
            cursor.execute(f"EXPLAIN QUERY PLAN {wanted}")
            plans.append(" ".join(str(row[3]) for row in cursor.fetchall()))

    await in_file._database.run(explain)
    assert "failed_turns" in plans[0] and "paid_turns" in plans[1]
    assert not any("TEMP B-TREE FOR ORDER BY" in plan for plan in plans), plans


@ensureDeferred
async def test_hours_told_apart_by_one_thing(ledger: Ledger) -> None:
    for number, more in enumerate(({}, {"client": "y"}, {"client": "y", "key": None})):
        await ledger.add(turn(number, **more))
    await ledger.add(evolve(REFUSED, request_id="refused", time=NOW - HOUR))
    all_of_it = Totals.of(await ledger.hours(0))
    for name in ("hour", "key", "model", "client"):
        rows = await ledger.hours(0, name)
        assert Totals.of(rows).turns == all_of_it.turns == 4
        assert Totals.of(rows).usage == all_of_it.usage
        others = {"hour": 0, "key": "", "model": "", "client": ""}
        del others[name]
        assert all(getattr(row, other) == nil for row in rows for other, nil in others.items())
    assert [row.hour for row in await ledger.hours(0, "hour")] == [NOW - HOUR, NOW]
    clients = [(row.client, row.turns) for row in await ledger.hours(0, "client")]
    assert clients[0] == ("y", 2) and len(clients) == 3
    assert [row.turns for row in await ledger.hours(NOW, "hour")] == [3]
    both = await ledger.hours(0, "key", "client")
    assert len({(row.key, row.client) for row in both}) == len(both) == 4
    assert {(row.hour, row.model) for row in both} == {(0, "")}


@ensureDeferred
async def test_a_turn_that_is_told_twice_is_added_once(ledger: Ledger) -> None:
    plan = Plan(NOW, "me", {"five_hour": NOW + 100.0})
    for _ in range(2):
        await ledger.put(FULL, plan)
        await ledger.put(evolve(FULL, total_ms=1.0), plan)
    assert await ledger.latest(10) == [FULL]
    assert Totals.of(await ledger.hours(0)).turns == 1
    await ledger.counts.read("me")
    used = ledger.counts.known["laptop"]
    assert used.count("day", NOW).tokens == 105_000
    assert used.share("me", "five_hour", NOW) == pytest.approx(0.1)


@ensureDeferred
async def test_a_file_that_has_a_turn_twice(path: Path, clock: SetClock) -> None:
    file = open_file(path)
    await Ledger(file, clock).add(FULL)
    file.close()
    columns = ", ".join(COLUMNS)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "DROP INDEX turns_of_requests; CREATE INDEX turns_by_request ON turns (request_id);"
            f"INSERT INTO turns ({columns}) SELECT {columns} FROM turns;"
        )
    file = open_file(path)
    opened = Ledger(file, clock)
    assert await opened.latest(10) == [FULL]
    await opened.put(FULL)
    assert await opened.latest(10) == [FULL]
    file.close()


@ensureDeferred
async def test_a_file_of_an_older_version(path: Path, clock: SetClock) -> None:
    """Its turns are still known, and new ones have what they had not."""
    file = open_file(path)
    await Ledger(file, clock).add(FULL)
    file.close()
    columns = ", ".join(name for name in COLUMNS if name != "cause")
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            f"CREATE TABLE kept AS SELECT {columns} FROM turns; DROP TABLE turns;"
            f"CREATE TABLE turns (id INTEGER PRIMARY KEY, {columns});"
            f"INSERT INTO turns ({columns}) SELECT {columns} FROM kept; DROP TABLE kept;"
        )
    file = open_file(path)
    opened = Ledger(file, clock)
    assert await opened.turn("req_1") == FULL
    broken = turn(5, outcome="upstream", cause="it ended")
    await opened.add(broken)
    assert await opened.turn("req_5") == broken
    file.close()


@ensureDeferred
async def test_hours_are_sums(ledger: Ledger) -> None:
    for number, more in enumerate(({}, {"paid_by": PAID}, UNPRICED, {"client": "y"})):
        await ledger.add(turn(number, **more))
    await ledger.add(evolve(REFUSED, request_id="refused", time=NOW - HOUR))
    hours = await ledger.hours(NOW - HOUR)
    assert [row.hour for row in hours] == [NOW - HOUR, NOW, NOW, NOW]
    assert await ledger.hours(NOW) == hours[1:]
    total = Totals.of(hours)
    assert (total.turns, total.failed, total.paid, total.unpriced) == (5, 1, 1, 1)
    assert total.list_price == pytest.approx(3 * 0.7)
    assert total.saved == pytest.approx(2 * 0.7)
    assert total.usage == Usage(400_000, 4000, 40_000, 16_000, 200, 4000)
    assert total.cache_share == pytest.approx(40_000 / 456_000) == 0.0877192982
    told = total.as_dict()
    assert (told["cache_write_5m_tokens"], told["cache_write_1h_tokens"]) == (12_000, 4000)
    models = {name: sums.turns for name, sums in by(hours, lambda row: row.model).items()}
    assert models == {"opus": 1, "claude-opus-4-5-20251101": 3, "x": 1}
    assert {(row.key, row.client): row.turns for row in hours if row.model == "opus"} == {
        ("", ""): 1
    }
    assert sum(sums.turns for sums in by(hours, day).values()) == 5


@ensureDeferred
async def test_sessions_of_five_hours(ledger: Ledger) -> None:
    first = NOW - 9 * HOUR
    for number, hours in enumerate((0, 4, 5, 9)):
        await ledger.add(turn(number, first + hours * HOUR + 60))
    sessions = by_session(await ledger.hours(0))
    assert {start: sums.turns for start, sums in sessions.items()} == {
        first: 2,
        first + 5 * HOUR: 2,
    }
    assert by_session([]) == {}


@pytest.fixture
def in_india(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Kolkata")
        time.tzset()
        yield
    time.tzset()


@ensureDeferred
async def test_days_begin_at_midnight_where_hours_begin_at_half_past(
    ledger: Ledger, clock: SetClock, in_india: None
) -> None:
    midnight = datetime(2027, 1, 31).timestamp()
    clock.now = midnight
    for number, seconds in enumerate((-1, 0, 1799, 3599, 3600)):
        await ledger.add(turn(number, midnight + seconds))
    hours = await ledger.hours(midnight)
    assert [(row.hour - midnight, row.turns) for row in hours] == [(0, 3), (3600, 1)]
    assert {day(row) for row in hours} == {"2027-01-31"}


@ensureDeferred
async def test_turns_are_bounded_and_their_sums_outlive_them(ledger: Ledger) -> None:
    for number in range(7):
        await ledger.add(turn(number))
    assert [record.request_id for record in await ledger.latest(10)] == [
        f"req_{number}" for number in (6, 5, 4, 3, 2)
    ]
    assert Totals.of(await ledger.hours(0)).turns == 7


@ensureDeferred
async def test_a_client_of_many_names_makes_no_endless_hour(ledger: Ledger) -> None:
    for number in range(MAX_NAMES + 3):
        await ledger.add(turn(number, client=f"client{number}", answered_by=f"claude-{number}"))
        await ledger.add(turn(1000 + number, key="desk"))
    hours = await ledger.hours(0)
    assert Totals.of(hours).turns == 2 * (MAX_NAMES + 3)
    by_key = by(hours, lambda row: (row.key, row.client == row.model == OTHERS))
    assert {group: sums.turns for group, sums in by_key.items()} == {
        ("laptop", False): MAX_NAMES, ("laptop", True): 3, ("desk", False): MAX_NAMES + 3,
    }  # fmt: skip
    await ledger.add(turn(2000, client="client5", answered_by="claude-5"))
    assert {row.turns for row in await ledger.hours(0) if row.client == "client5"} == {2}


@ensureDeferred
async def test_what_is_old_goes(ledger: Ledger, clock: SetClock) -> None:
    await ledger.add(turn(1))
    clock.now += 12 * HOUR
    await ledger.add(turn(2, clock.now))
    assert [record.request_id for record in await ledger.latest(10)] == ["req_2"]
    assert Totals.of(await ledger.hours(0)).turns == 1


@ensureDeferred
async def test_it_outlives_a_daemon_that_is_killed(in_file: Ledger, path: Path) -> None:
    await in_file.add(FULL)
    with closing(sqlite3.connect(path)) as other:  # the first has not closed the file
        assert other.execute("SELECT count(*) FROM turns").fetchone() == (1,)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@ensureDeferred
async def test_a_broken_file_is_moved_aside(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"SQLite format 3\0" + b"rubbish" * 1000)
    path.with_name("ledger.sqlite-wal").write_bytes(b"rubbish")
    file = open_file(path)
    made = Ledger(file, SetClock(float(NOW)))
    await made.add(FULL)
    assert await made.latest(10) == [FULL]
    file.close()
    assert path.with_name("ledger.sqlite.broken").exists()


@pytest.mark.expected_errors
@ensureDeferred
async def test_a_turn_that_cannot_be_added_fails_nobody(
    in_file: Ledger, path: Path, nothing_logged: list[str]
) -> None:
    with closing(sqlite3.connect(path)) as other:
        await in_file.latest(1)
        other.execute("DROP TABLE turns")
    await in_file.add(FULL)
    assert len(nothing_logged) == 1


@pytest.mark.expected_errors
@ensureDeferred
async def test_a_full_disk(in_file: Ledger, nothing_logged: list[str]) -> None:
    def no_more(cursor: Any) -> None:
        cursor.execute("PRAGMA max_page_count = 1")  # no more than there are

    await in_file._database.run(no_more)
    added = 0
    while not nothing_logged:
        await in_file.add(turn(added))
        added += 1
    assert nothing_logged == ["a turn is not in the ledger: {why}"]
    with pytest.raises(StoreLost, match="database or disk is full"):
        await in_file.put(turn(added))
    assert len(await in_file.latest(added)) == added - 1
    nothing_logged.clear()


@ensureDeferred
async def test_a_file_that_cannot_be_opened(in_file: Ledger, path: Path) -> None:
    shutil.rmtree(path.parent)
    with pytest.raises(StoreLost, match="unable to open database file"):
        await in_file.latest(1)


@pytest.mark.parametrize(
    ("user_agent", "name"),
    [
        (b"OpenAI/Python 1.99.1", "OpenAI/Python"),
        (b"AsyncAnthropic/Python 0.70", "AsyncAnthropic/Python"),
        (b"curl/8.5.0", "curl"),
        (b"claude-cli/2.1.332 (external, cli)", "claude-cli"),
        (b"ai/5.0 runtime/node", "ai"),
        (b"Tool/v2.0", "Tool"),
        (b"\x1b[31mX", "?[31mX"),
        (b"\xffX/1", "\ufffdX"),
        (b"x" * 100, "x" * 64),
        (b"", ""),
        (None, ""),
    ],
)
def test_the_name_of_a_client(user_agent: bytes | None, name: str) -> None:
    assert client_name(user_agent) == name


@pytest.mark.alone
def test_years_are_added_up_at_once() -> None:
    """The reactor waits meanwhile: it had been 7 s, for each session looked through all of them."""
    row = Hour(
        hour=0, key="", model="", client="", turns=1, failed=0, paid=0, unpriced=0, list_price=0.5,
        saved=0.0, usage=Usage(1, 1),
    )  # fmt: skip
    hours = [evolve(row, hour=hour * HOUR) for hour in range(9600) for _ in range(3)]
    began = time.perf_counter()
    sessions = by_session(hours)
    assert time.perf_counter() - began < 0.75
    assert len(sessions) == 1920
    assert {sums.turns for sums in sessions.values()} == {15}
