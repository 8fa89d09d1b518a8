"""The ledger: its file, its bounds, and its sums."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from attrs import evolve
from pytest_twisted import ensureDeferred
from twisted.internet import reactor

from claudeproxy.ledger.ledger import Ledger, Report
from claudeproxy.ledger.record import PAID, PLAN, TurnRecord, client_name
from claudeproxy.ledger.totals import Totals, by, by_session, day
from claudeproxy.messages import Usage

HOUR = 3600
NOW = 1000 * HOUR


class Clock:
    now = float(NOW)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path, clock: Clock) -> Iterator[Ledger]:
    opened = Ledger(path, clock, max_turns=5, max_age=10 * HOUR)
    opened.open(reactor)
    yield opened
    opened.close()


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
)
REFUSED = TurnRecord(
    time=NOW - 5, request_id="req_2", dialect="messages", model="opus", status=429,
    outcome="plan_limit", code="rate_limit_exceeded",
)  # fmt: skip


def turn(number: int, time: float = NOW, **more: object) -> TurnRecord:
    return evolve(FULL, request_id=f"req_{number}", time=time, **more)


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
    assert await ledger.spent_by_keys(0) == {"laptop": (1, 105_000)}
    assert await ledger.spent_by_keys(NOW) == {}


@ensureDeferred
async def test_hours_are_sums(ledger: Ledger) -> None:
    for number, more in enumerate(({}, {"paid_by": PAID}, {"answered_by": "x"}, {"client": "y"})):
        await ledger.add(turn(number, **more))
    await ledger.add(evolve(REFUSED, time=NOW - HOUR))
    hours = await ledger.hours(NOW - HOUR)
    assert [row.hour for row in hours] == [NOW - HOUR, NOW, NOW, NOW]
    assert await ledger.hours(NOW) == hours[1:]
    price = FULL.list_price
    assert price is not None and price > 0
    total = Totals.of(hours)
    assert (total.turns, total.failed, total.paid, total.unpriced) == (5, 1, 1, 1)
    assert total.list_price == pytest.approx(3 * price)
    assert total.saved == pytest.approx(2 * price)
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


@ensureDeferred
async def test_turns_are_bounded_and_their_sums_outlive_them(ledger: Ledger) -> None:
    for number in range(7):
        await ledger.add(turn(number))
    assert [record.request_id for record in await ledger.latest(10)] == [
        f"req_{number}" for number in (6, 5, 4, 3, 2)
    ]
    assert Totals.of(await ledger.hours(0)).turns == 7


@ensureDeferred
async def test_what_is_old_goes(ledger: Ledger, clock: Clock) -> None:
    await ledger.add(turn(1))
    clock.now += 12 * HOUR
    await ledger.add(turn(2, clock.now))
    assert [record.request_id for record in await ledger.latest(10)] == ["req_2"]
    assert Totals.of(await ledger.hours(0)).turns == 1


@ensureDeferred
async def test_it_outlives_a_daemon_that_is_killed(ledger: Ledger, path: Path) -> None:
    await ledger.add(FULL)
    with closing(sqlite3.connect(path)) as other:  # the first has not closed the file
        assert other.execute("SELECT count(*) FROM turns").fetchone() == (1,)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@ensureDeferred
async def test_a_broken_file_is_moved_aside(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"SQLite format 3\0" + b"rubbish" * 1000)
    path.with_name("ledger.sqlite-wal").write_bytes(b"rubbish")
    made = Ledger(path, Clock())
    made.open(reactor)
    await made.add(FULL)
    assert await made.latest(10) == [FULL]
    made.close()
    assert path.with_name("ledger.sqlite.broken").exists()


@pytest.mark.expected_errors
@ensureDeferred
async def test_a_turn_that_cannot_be_added_fails_nobody(
    ledger: Ledger, path: Path, nothing_logged: list[str]
) -> None:
    with closing(sqlite3.connect(path)) as other:
        await ledger.latest(1)
        other.execute("DROP TABLE turns")
    await ledger.add(FULL)
    assert len(nothing_logged) == 1


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
