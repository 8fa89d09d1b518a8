"""PostgreSQL that stops, is killed, hangs, comes back, or was never there."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import psycopg
import pytest
from harness import until
from postgres import GUARDED, Postgres
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import gatherResults

from claudeproxy.store import connection as module
from claudeproxy.store.completions import StoredCompletion
from claudeproxy.store.connection import translated
from claudeproxy.store.database import Cursor, StoreLost
from claudeproxy.store.postgres import CONNECTIONS, PostgreSQL
from claudeproxy.store.store import Store

AT_ONCE = 0.5
"""Seconds: a moment, on a machine that is busy with other tests."""


def ask(cursor: Cursor) -> int:
    cursor.execute("SELECT 7")
    found: int = cursor.fetchone()[0]
    return found


def slow(cursor: Cursor, seconds: float) -> None:
    cursor.execute("SELECT pg_sleep(:seconds)", {"seconds": seconds})


async def lost(database: PostgreSQL, call: Callable[..., Any] = ask, *args: Any) -> str:
    with pytest.raises(StoreLost) as caught:
        await database.run(call, *args)
    return str(caught.value)


def noted(database: PostgreSQL) -> list[str]:
    told: list[str] = []
    database.on_lost.append(lambda: told.append(f"lost {threading.current_thread().name}"))
    database.on_back.append(lambda: told.append(f"back {threading.current_thread().name}"))
    return told


HERE = threading.current_thread().name


@pytest.mark.parametrize("how", ["fast", "immediate", "kill"])
@ensureDeferred
async def test_it_is_lost_and_comes_back(
    postgresql: PostgreSQL, postgres: Postgres, how: str
) -> None:
    told = noted(postgresql)
    assert await postgresql.run(ask) == 7
    if how == "kill":
        postgres.kill()
    else:
        postgres.stop(how)
    before = time.time()
    await lost(postgresql)
    assert time.time() - before < AT_ONCE
    assert postgresql.lost_since == pytest.approx(before, abs=AT_ONCE)
    assert told == [f"lost {HERE}"]
    assert "Connection refused" in await lost(postgresql)
    postgres.start()
    await until(lambda: postgresql.lost_since is None, 10)
    assert told == [f"lost {HERE}", f"back {HERE}"]
    assert await postgresql.run(ask) == 7


@ensureDeferred
async def test_a_restart_in_between_is_not_noticed(
    postgresql: PostgreSQL, postgres: Postgres
) -> None:
    told = noted(postgresql)
    await gatherResults([postgresql.run(slow, 0.1) for _ in range(CONNECTIONS)])
    postgres.restart("immediate")
    assert await gatherResults([postgresql.run(ask) for _ in range(9)]) == [7] * 9
    assert told == []


@ensureDeferred
async def test_calls_under_way_fail_and_those_after_them_too(
    postgresql: PostgreSQL, postgres: Postgres
) -> None:
    calls = [postgresql.run(slow, 60) for _ in range(CONNECTIONS)]
    waiting = [postgresql.run(ask) for _ in range(20)]
    outcomes: list[Any] = []
    for call in (*calls, *waiting):
        call.addBoth(outcomes.append)
    await until(lambda: postgres.execute(SLEEPING) == "4")
    postgres.kill()
    await until(lambda: len(outcomes) == 24, 5)
    assert all(outcome.check(StoreLost) for outcome in outcomes)
    postgres.start()
    await until(lambda: postgresql.lost_since is None, 10)


SLEEPING = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(%'"


@ensureDeferred
async def test_a_call_that_takes_too_long_loses_nothing(
    postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "statement timeout" in await lost(postgresql, slow, 60)
    assert postgresql.lost_since is None
    assert await postgresql.run(ask) == 7


@contextmanager
def hanging(postgres: Postgres) -> Iterator[None]:
    """All its processes stopped: connections stay open, and nothing answers."""
    processes = [psutil.Process(postgres.pid)]
    processes += processes[0].children(recursive=True)
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            process.send_signal(signal.SIGCONT)


@pytest.mark.alone
@ensureDeferred
async def test_a_server_that_hangs_is_lost(postgresql: PostgreSQL, postgres: Postgres) -> None:
    assert await postgresql.run(ask) == 7
    with hanging(postgres):
        before = time.monotonic()
        assert "said nothing" in await lost(postgresql)
        assert time.monotonic() - before < module.SILENCE + 1
        before = time.monotonic()
        await lost(postgresql)
        assert time.monotonic() - before < AT_ONCE
    await until(lambda: postgresql.lost_since is None, 10)
    assert await postgresql.run(ask) == 7


@ensureDeferred
async def test_one_that_is_not_there_yet(postgres: Postgres, postgres_url: str) -> None:
    postgres.stop()
    database = PostgreSQL(postgres_url)
    told = noted(database)
    database.open(reactor)
    try:
        assert "Connection refused" in await lost(database)
        postgres.start()
        await until(lambda: database.lost_since is None, 10)
        assert told == [f"back {HERE}"]
        assert await database.run(ask) == 7
    finally:
        database.close()


@ensureDeferred
async def test_closing_while_it_is_lost_leaves_no_thread(
    postgres: Postgres, postgres_url: str
) -> None:
    before = threading.active_count()
    database = PostgreSQL(postgres_url)
    database.open(reactor)
    await database.run(ask)
    postgres.stop()
    await lost(database)
    database.close()
    assert threading.active_count() == before
    postgres.start()


def test_a_wrong_password_is_told_and_the_right_one_is_not(
    postgres: Postgres, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = postgres_url.rpartition("/")[2]
    monkeypatch.setenv("PGPASSWORD", "wrong one")
    database = PostgreSQL(postgres.url(name, GUARDED))
    assert "password authentication failed" in database.why_lost
    assert "wrong one" not in database.why_lost
    assert "does not exist" in PostgreSQL(postgres.url("nowhere")).why_lost


@ensureDeferred
async def test_serialization_failures_are_tried_again(postgresql: PostgreSQL) -> None:
    tries = []

    def clash(cursor: Cursor) -> int:
        tries.append(1)
        if len(tries) < 3:
            raise psycopg.errors.SerializationFailure("clash")
        return ask(cursor)

    assert await postgresql.run(clash) == 7
    assert len(tries) == 3


@ensureDeferred
async def test_deadlocks_are_tried_again(postgresql: PostgreSQL) -> None:
    await postgresql.run(_make_rows)
    both = threading.Barrier(2)

    def change(cursor: Cursor, *names: str) -> None:
        for name in names:
            cursor.execute("UPDATE hours SET turns = turns + 1 WHERE key = :name", {"name": name})
            if not both.broken:
                try:
                    both.wait(1)
                    both.abort()
                except threading.BrokenBarrierError:
                    pass

    await gatherResults([postgresql.run(change, "a", "b"), postgresql.run(change, "b", "a")])

    def read(cursor: Cursor) -> list[Any]:
        cursor.execute("SELECT turns FROM hours")
        return cursor.fetchall()

    assert await postgresql.run(read) == [(2,), (2,)]


def _make_rows(cursor: Cursor) -> None:
    cursor.executemany(
        "INSERT INTO hours VALUES (0, :key, '', '', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)",
        [{"key": "a"}, {"key": "b"}],
    )


@ensureDeferred
async def test_what_fails_is_undone(postgresql: PostgreSQL) -> None:
    def fail(cursor: Cursor) -> None:
        _make_rows(cursor)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await postgresql.run(fail)

    def count(cursor: Cursor) -> int:
        cursor.execute("SELECT count(*) FROM hours")
        found: int = cursor.fetchone()[0]
        return found

    assert await postgresql.run(count) == 0


@ensureDeferred
async def test_a_connection_that_ends_while_committing(
    postgresql: PostgreSQL, postgres: Postgres
) -> None:
    """Whether it is done is not known: the call fails."""

    def commit_late(cursor: Cursor) -> None:
        _make_rows(cursor)
        cursor.execute("SELECT pg_backend_pid()")
        postgres.execute(f"SELECT pg_terminate_backend({cursor.fetchone()[0]})")

    await lost(postgresql, commit_late)
    await until(lambda: postgresql.lost_since is None, 5)


@ensureDeferred
async def test_a_standby_is_left(postgresql: PostgreSQL) -> None:
    """What was the primary takes no rows any more: the connection is not used again."""

    def demoted(cursor: Cursor) -> None:
        cursor.execute("SET LOCAL transaction_read_only TO on")
        _make_rows(cursor)

    assert "read-only" in await lost(postgresql, demoted)
    await until(lambda: postgresql.lost_since is None, 5)


@ensureDeferred
async def test_the_log_of_the_server_has_no_content(
    postgresql: PostgreSQL, postgres: Postgres
) -> None:
    put = StoredCompletion({"id": "a", "model": "m"}, {}, [{"content": "what was said"}])
    table = Store(postgresql).completions
    await table.put(put, None)
    with pytest.raises(psycopg.errors.UniqueViolation) as caught:
        await table.put(put, None)
    assert "was said" not in str(caught.value)
    log = postgres.log.read_text()
    assert "INSERT INTO completions" in log
    assert "was said" not in log


def test_parameters_are_translated_and_casts_are_not() -> None:
    assert translated("SELECT :a::jsonb, :b_2 LIKE '%x'") == (
        b"SELECT %(a)s::jsonb, %(b_2)s LIKE '%%x'"
    )
