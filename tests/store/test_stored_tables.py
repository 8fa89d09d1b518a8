"""Conversations and chat completions in the store: bounds, order, and whose they are."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from clocks import SetClock
from harness import in_thread, until
from postgres import Postgres
from pytest_twisted import ensureDeferred
from twisted.internet import reactor

from claudeproxy.store.completions import StoredCompletion, Wanted
from claudeproxy.store.conversations import Conversation
from claudeproxy.store.database import Cursor, Database
from claudeproxy.store.postgres import PostgreSQL
from claudeproxy.store.responses import Stored
from claudeproxy.store.sqlite import SQLite
from claudeproxy.store.store import Store, sqlite_store
from claudeproxy.store.tables import Bounds


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "responses.sqlite"


@pytest.fixture
def sqlite(path: Path) -> Iterator[SQLite]:
    file = sqlite_store(path)
    file.open(reactor)
    yield file
    file.close()


@pytest.fixture
def store(database: Database, clock: SetClock) -> Store:
    return Store(database, clock, Bounds(max_age=100, max_bytes=1000, tidy=0))


async def count(database: Database, table: str) -> int:
    def counted(cursor: Cursor) -> Any:
        cursor.execute(f"SELECT count(*) FROM {table}")
        return cursor.fetchone()[0]

    found: int = await database.run(counted)
    return found


def item(ident: str, text: str = "x") -> dict[str, Any]:
    return {"id": ident, "content": text}


async def begin(store: Store, ident: str, *items: Any, key: str | None = None) -> bool:
    made = Conversation(ident, 5, {"a": "b"})
    there: bool = await store.conversations.create(made, items, key)
    return there


def completion(ident: str, text: str = "x") -> StoredCompletion:
    return StoredCompletion({"id": ident, "model": "m"}, {}, [{"content": text}])


@ensureDeferred
async def test_items_keep_their_order(store: Store, database: Database) -> None:
    table = store.conversations
    assert await begin(store, "c", item("1"), item("2"))
    assert await table.add("c", [item("3")], None)
    assert await table.remove("c", "2", None)
    assert not await table.remove("c", "2", None)
    assert await table.add("c", [item("4")], None)
    assert [one["id"] for one in await table.items("c", None) or ()] == ["1", "3", "4"]
    assert await table.delete("c", None)
    assert await table.items("c", None) is None
    assert await count(database, "items") == 0


@ensureDeferred
async def test_a_conversation_that_is_full(store: Store, database: Database) -> None:
    assert not await begin(store, "huge", item("1", "x" * 2000))
    assert await store.conversations.get("huge", None) is None
    assert await begin(store, "c", item("1", "x" * 500))
    assert await store.conversations.add("c", [item("2", "x" * 500)], None) is False
    assert await store.conversations.remove("c", "1", None)
    assert await store.conversations.add("c", [item("2", "x" * 500)], None)
    assert await store.conversations.add("nowhere", [item("3")], None) is None
    assert await count(database, "items") == 1


@ensureDeferred
async def test_what_is_old_or_too_much_goes_with_its_items(
    store: Store, database: Database, clock: SetClock
) -> None:
    for ident in ("a", "b"):
        assert await begin(store, ident, item("1", "x" * 400))
        clock.now += 1
    await store.conversations.items("a", None)
    clock.now += 1
    assert await begin(store, "c", item("1", "x" * 400))
    assert await store.conversations.get("b", None) is None
    assert await store.conversations.get("a", None) is not None
    assert await count(database, "items") == 2
    clock.now += 101
    assert await store.conversations.get("a", None) is None
    assert await begin(store, "d")
    assert await count(database, "conversations") == 1
    assert await count(database, "items") == 0


@ensureDeferred
async def test_metadata_counts(store: Store) -> None:
    assert await begin(store, "c")
    large = {"a": "x" * 900}
    assert await store.conversations.update("c", large, None) == Conversation("c", 5, large)
    assert await store.conversations.add("c", [item("1", "x" * 100)], None) is False
    await store.conversations.update("c", {}, None)
    assert await store.conversations.add("c", [item("1", "x" * 100)], None)


@ensureDeferred
async def test_a_conversation_and_its_key(store: Store) -> None:
    assert await begin(store, "c", key="mine")
    table = store.conversations
    for key, there in (("mine", True), ("guest", False), (None, True)):
        assert (await table.get("c", key) is not None) == there
        assert (await table.items("c", key) is not None) == there
        assert bool(await table.add("c", [item(f"{key}")], key)) == there
    assert not await table.delete("c", "guest")


@pytest.mark.parametrize("what", ["add", "update", "remove"])
@ensureDeferred
async def test_what_another_node_deletes_meanwhile(
    postgresql: PostgreSQL, postgres: Postgres, what: str
) -> None:
    conversations = Store(postgresql).conversations
    await conversations.create(Conversation("conv_1", 1, {}), [item("a"), item("b")], None)
    calls = {
        "add": lambda: conversations.add("conv_1", [item("c")], None),
        "update": lambda: conversations.update("conv_1", {"x": "y"}, None),
        "remove": lambda: conversations.remove("conv_1", "a", None),
    }
    deleting, others = threading.Event(), threading.Event()

    def delete(cursor: Any) -> None:
        where = "items WHERE id = 'a'" if what == "remove" else "conversations"
        cursor.execute(f"DELETE FROM {where}")
        deleting.set()
        assert others.wait(5)

    deleted = postgresql.run(delete)
    await in_thread(deleting.wait)
    found = calls[what]()
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    await until(lambda: postgres.execute(waiting) == "1")
    others.set()
    await deleted
    assert not await found


@ensureDeferred
async def test_completions_in_order(store: Store, clock: SetClock) -> None:
    table = store.completions
    for ident in ("z", "a", "m"):
        await table.put(completion(ident), None)
    found = await table.find(Wanted(2, after="z"), None)
    assert [one.id for one in found or ()] == ["a", "m"]
    found = await table.find(Wanted(9, ascending=False), None)
    assert [one.id for one in found or ()] == ["m", "a", "z"]
    assert await table.find(Wanted(9, after="nowhere"), None) is None
    clock.now += 1
    await table.put(completion("huge", "x" * 2000), None)
    await table.put(completion("large", "x" * 940), None)
    found = await table.find(Wanted(9), None)
    assert [one.id for one in found or ()] == ["large"]
    clock.now += 101
    assert await table.find(Wanted(9), None) == []
    assert await table.get("large", None) is None


@ensureDeferred
async def test_the_events_of_a_response_go_with_it(store: Store, database: Database) -> None:
    made = Stored({"id": "a", "output": []}, [], events=b"one")
    assert await store.responses.put(made)
    assert await store.responses.put(Stored({"id": "a", "output": []}, [], events=b"two"))
    assert await store.responses.events("a") == b"two"
    assert await store.responses.events("b") == b""
    assert await store.responses.delete("a")
    assert await count(database, "events") == 0


@ensureDeferred
async def test_a_file_of_before(path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as old:
        old.execute(
            "CREATE TABLE responses (id TEXT PRIMARY KEY, previous TEXT, response TEXT NOT NULL,"
            " input TEXT NOT NULL, size INTEGER NOT NULL, used REAL NOT NULL) WITHOUT ROWID"
        )
        old.execute("""INSERT INTO responses VALUES ('a', NULL, '{"output": []}', '[]', 9, 1e12)""")
        old.commit()
    file = sqlite_store(path)
    file.open(reactor)
    store = Store(file)
    assert (await store.responses.get("a")) is not None
    assert await store.responses.get("a", "mine") is None
    assert await begin(store, "c", item("1"))
    file.close()
