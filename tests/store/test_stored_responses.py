"""Stored responses: the file, its bounds, and chains."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from clocks import SetClock
from pytest_twisted import ensureDeferred
from twisted.internet import reactor

from claudeproxy.store.database import Database
from claudeproxy.store.responses import ResponseTable, Stored
from claudeproxy.store.sqlite import SQLite
from claudeproxy.store.store import Store, sqlite_store
from claudeproxy.store.tables import Bounds

BOUNDS = Bounds(max_age=100, max_bytes=1000, tidy=0)


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "responses.sqlite"


@pytest.fixture
def sqlite(path: Path) -> Iterator[SQLite]:
    opened = open_file(path)
    yield opened
    opened.close()


@pytest.fixture
def store(database: Database, clock: SetClock) -> ResponseTable:
    return Store(database, clock, BOUNDS).responses


@pytest.fixture
def in_file(sqlite: SQLite, clock: SetClock) -> ResponseTable:
    return Store(sqlite, clock, BOUNDS).responses


def open_file(path: Path) -> SQLite:
    opened = sqlite_store(path)
    opened.open(reactor)
    return opened


def stored(ident: str, previous: str | None = None, text: str = "x") -> Stored:
    items: list[dict[str, Any]] = [{"role": "user", "content": text}]
    return Stored({"id": ident, "output": [{"id": f"msg_{ident}"}]}, items, previous)


@ensureDeferred
async def test_put_get_delete(store: ResponseTable) -> None:
    assert await store.get("a") is None
    await store.put(stored("a"))
    assert await store.get("a") == stored("a")
    assert stored("a").output == [{"id": "msg_a"}]
    assert await store.delete("a")
    assert not await store.delete("a")
    assert await store.get("a") is None


@ensureDeferred
async def test_what_is_put_can_be_had_at_once(in_file: ResponseTable) -> None:
    putting = in_file.put(stored("a"))
    assert await in_file.get("a") == stored("a")
    await putting


@ensureDeferred
async def test_chains_are_told_from_the_beginning(store: ResponseTable) -> None:
    for ident, previous in (("a", None), ("b", "a"), ("c", "b"), ("d", "a")):
        await store.put(stored(ident, previous))
    assert [s.id for s in await store.chain("c") or ()] == ["a", "b", "c"]
    assert [s.id for s in await store.chain("d") or ()] == ["a", "d"]
    assert await store.chain("e") is None
    await store.delete("b")
    assert await store.chain("c") is None
    assert await store.get("c") is not None


@ensureDeferred
async def test_what_is_old_goes_and_what_is_used_stays(
    store: ResponseTable, clock: SetClock
) -> None:
    for ident, previous in (("a", None), ("b", "a"), ("old", None)):
        await store.put(stored(ident, previous))
    clock.now += 90
    await store.chain("b")
    clock.now += 90
    assert await store.get("old") is None
    await store.put(stored("new"))
    clock.now -= 90
    assert await store.get("old") is None
    assert [s.id for s in await store.chain("b") or ()] == ["a", "b"]


@ensureDeferred
async def test_what_is_too_much_goes_the_longest_unused_first(
    store: ResponseTable, clock: SetClock
) -> None:
    for ident in "abc":
        clock.now += 1
        await store.put(stored(ident, text="x" * 300))
    assert await store.get("a") is None
    assert await store.get("b") is not None
    await store.put(stored("huge", text="x" * 2000))
    assert await store.get("huge") is None
    assert await store.get("b") is not None


@ensureDeferred
async def test_the_file_is_private_and_outlives_the_store(
    in_file: ResponseTable, sqlite: SQLite, path: Path
) -> None:
    await in_file.put(stored("a", text="a secret"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    sqlite.close()
    file = open_file(path)
    again = Store(file, SetClock()).responses
    assert await again.get("a") == stored("a", text="a secret")
    await again.delete("a")
    file.close()
    assert b"a secret" not in path.read_bytes()


@pytest.mark.parametrize("how", ["no database", "cut"])
@ensureDeferred
async def test_a_broken_file_is_moved_aside(
    in_file: ResponseTable, sqlite: SQLite, path: Path, how: str
) -> None:
    for number in range(9):
        await in_file.put(stored(f"{number}", text="x" * 50))
    sqlite.close()
    broken = path.read_bytes()[:5000] if how == "cut" else b"what is this?" * 500
    path.write_bytes(broken)
    file = open_file(path)
    again = Store(file, SetClock()).responses
    assert await again.get("1") is None
    await again.put(stored("a"))
    assert await again.get("a") == stored("a")
    file.close()
    assert path.with_name("responses.sqlite.broken").read_bytes() == broken


def test_a_locked_file_is_left_where_it_is(
    sqlite: SQLite, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sqlite.close()
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, timeout=0.01))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("CREATE TABLE x (y)")
        other.execute("BEGIN EXCLUSIVE")
        sqlite_store(path)
    assert not path.with_name("responses.sqlite.broken").exists()


@ensureDeferred
async def test_what_has_begun_never_takes_the_place_of_its_end(store: ResponseTable) -> None:
    await store.put(stored("a", text="ended"))
    assert await store.begin(stored("a", text="begun"))
    assert await store.get("a") == stored("a", text="ended")


@ensureDeferred
async def test_it_is_tidied_now_and_then(database: Database, clock: SetClock) -> None:
    table = Store(database, clock, Bounds(max_age=100, max_bytes=300, tidy=60)).responses
    for ident in "abc":
        clock.now += 1
        await table.put(stored(ident, text="x" * 150))
    assert await table.get("a") is not None
    clock.now += 60
    await table.put(stored("d", text="x" * 150))
    assert [await table.get(ident) is not None for ident in "abcd"] == [False] * 3 + [True]


@ensureDeferred
async def test_a_response_is_its_keys(store: ResponseTable) -> None:
    await store.put(evolve(stored("a"), key="laptop"))
    await store.put(evolve(stored("b", "a"), key="laptop"))
    await store.put(stored("c"))
    for ident in "abc":
        assert await store.get(ident, "guest") is await store.chain(ident, "guest") is None
        assert not await store.delete(ident, "guest")
        assert await store.get(ident) is not None
    assert await store.get("a", "laptop") == evolve(stored("a"), key="laptop")
    assert len(await store.chain("b", "laptop") or ()) == 2
    assert await store.get("c", "laptop") is None
    assert await store.delete("b", "laptop")


@ensureDeferred
async def test_a_file_without_keys_is_read(path: Path, clock: SetClock) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as old:
        old.execute(
            "CREATE TABLE responses (id TEXT PRIMARY KEY, previous TEXT, response TEXT NOT NULL,"
            " input TEXT NOT NULL, size INTEGER NOT NULL, used REAL NOT NULL) WITHOUT ROWID"
        )
        old.execute(
            "INSERT INTO responses VALUES ('a', NULL, ?, '[]', 1, ?)", ('{"id": "a"}', clock())
        )
        old.commit()
    file = open_file(path)
    opened = Store(file, clock).responses
    assert (await opened.get("a")) == Stored({"id": "a"}, [])
    await opened.put(evolve(stored("b"), key="laptop"))
    assert await opened.get("b", "laptop") is not None
    file.close()
