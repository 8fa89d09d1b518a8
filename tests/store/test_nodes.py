"""Nodes that are alive, and the leases that they have, on a real database."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from attrs import frozen
from harness import until
from postgres import Postgres
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.task import Clock

from claudeproxy.store.connection import SILENCE
from claudeproxy.store.database import Cursor, StoreLost
from claudeproxy.store.leases import Leases
from claudeproxy.store.nodes import BEAT, DEAD, Nodes
from claudeproxy.store.postgres import PostgreSQL


@frozen
class Node:
    clock: Clock
    database: PostgreSQL
    nodes: Nodes
    leases: Leases

    async def beat(self) -> None:
        await self.nodes.beat()


@pytest.fixture
def make(postgres_url: str) -> Iterator[Any]:
    databases: list[PostgreSQL] = []

    def one(name: str) -> Node:
        database, clock = PostgreSQL(postgres_url), Clock()
        database.open(reactor)
        databases.append(database)
        nodes = Nodes(clock, database, name)
        return Node(clock, database, nodes, Leases(nodes, database))

    yield one
    for database in databases:
        database.close()


@pytest.fixture
def age(postgres: Postgres, postgres_url: str) -> Any:
    """Make a node's last heartbeat as old as so many seconds."""

    def older(node: str, seconds: float) -> None:
        postgres.execute(
            f"UPDATE claudemax.nodes SET seen = now() - interval '{seconds} s' WHERE id = '{node}'",
            postgres_url.rpartition("/")[2],
        )

    return older


@ensureDeferred
async def test_nodes_know_each_other(make: Any, age: Any) -> None:
    a, b = make("a"), make("b")
    for node in (a, b, a):
        await node.beat()
    assert a.nodes.alive == b.nodes.alive == ["a", "b"]
    age("b", DEAD + 1)
    await a.beat()
    assert a.nodes.alive == ["a"]
    age("b", 100_000)
    await a.beat()
    assert "b" not in await rows(a, "id", "nodes")


async def rows(node: Node, column: str, table: str) -> list[Any]:
    def read(cursor: Any) -> list[Any]:
        cursor.execute(f"SELECT {column} FROM {table} ORDER BY 1")
        return [value for (value,) in cursor.fetchall()]

    found: list[Any] = await node.database.run(read)
    return found


@ensureDeferred
async def test_hearts_beat_by_the_clock_until_the_node_leaves(make: Any, age: Any) -> None:
    a, b = make("a"), make("b")
    a.nodes.start()
    await until(lambda: a.nodes.alive == ["a"])
    await b.beat()
    a.clock.advance(BEAT)
    await until(lambda: a.nodes.alive == ["a", "b"])
    assert await a.leases.take(["x"]) == set()
    await a.nodes.stop()
    assert a.clock.getDelayedCalls() == []
    await b.beat()
    assert b.nodes.alive == ["b"]
    assert await b.leases.take(["x"]) == set()


@ensureDeferred
async def test_one_node_has_a_lease(make: Any) -> None:
    a, b = make("a"), make("b")
    assert await a.leases.take(["x", "y"]) == set()
    assert await b.leases.take(["z", "y", "x"]) == {"x", "y"}
    assert b.leases.held == set()
    assert await a.leases.take(["z", "x"]) == set()  # what was its own still is
    assert a.leases.held == {"x", "y", "z"}
    await a.leases.release(["x", "z"])
    assert a.leases.held == {"y"}
    assert await b.leases.take(["x", "z"]) == set()
    assert await a.leases.take(["x"]) == {"x"}
    assert await a.leases.take(["y"]) == set()


@ensureDeferred
async def test_of_many_at_once_one_gets_it(make: Any) -> None:
    nodes = [make(f"{number}") for number in range(4)]
    for _ in range(5):
        asked = [node.leases.take(["y", "x"]) for node in nodes]
        answers = await gatherResults(asked)
        assert sorted(map(len, answers)) == [0, 2, 2, 2]
        winner = nodes[answers.index(set())]
        await winner.leases.release(["x", "y"])


@ensureDeferred
async def test_the_leases_of_a_dead_node_are_free(make: Any, age: Any) -> None:
    a, b = make("a"), make("b")
    assert await a.leases.take(["x"]) == set()
    age("a", DEAD - 5)
    assert await b.leases.take(["x"]) == {"x"}
    age("a", DEAD + 1)
    assert await b.leases.take(["x"]) == set()


@ensureDeferred
async def test_a_node_that_was_thought_dead_has_nothing(make: Any, age: Any) -> None:
    a, b = make("a"), make("b")
    assert await a.leases.take(["x", "y"]) == set()
    age("a", DEAD + 1)
    assert await b.leases.take(["x"]) == set()
    assert a.leases.held == {"x", "y"}
    await a.beat()
    assert a.leases.held == set()
    assert await b.leases.take(["y"]) == set()
    age("a", DEAD + 1)
    assert await a.leases.take(["z", "x"]) == {"x"}
    assert await a.leases.take(["z"]) == set()
    assert a.leases.held == {"z"}


@ensureDeferred
async def test_it_does_not_believe_in_leases_while_the_database_is_lost(
    make: Any, postgres: Postgres
) -> None:
    a = make("a")
    assert await a.leases.take(["x"]) == set()
    postgres.stop()
    await a.beat()
    with pytest.raises(StoreLost):
        await a.leases.take(["y"])
    a.clock.advance(DEAD - 1)
    assert a.leases.held == {"x"}
    a.clock.advance(1)
    assert a.leases.held == set()
    postgres.start()


@ensureDeferred
async def test_a_lease_that_is_taken_with_the_first_heartbeat_stays(make: Any) -> None:
    for number in range(20):
        node = make(f"n{number}")
        beats = [node.nodes.beat() for _ in range(3)]
        assert await node.leases.take([f"lease {number}"]) == set()
        await gatherResults(beats)
        assert f"lease {number}" in await rows(node, "name", "leases")
        node.database.close()


@ensureDeferred
async def test_what_could_not_be_released_is_later(make: Any, postgres: Postgres) -> None:
    a, b = make("a"), make("b")
    a.nodes.start()
    assert await a.leases.take(["x", "y"]) == set()
    postgres.stop()
    await a.leases.release(["x"])
    postgres.start()
    await until(lambda: a.database.lost_since is None)
    await until(lambda: not a.leases._left_over)
    assert await rows(a, "name", "leases") == ["y"]
    await until(lambda: b.database.lost_since is None)
    assert await b.leases.take(["x"]) == set()
    await a.nodes.stop()


@pytest.mark.alone
@ensureDeferred
async def test_a_node_that_vanishes_in_the_middle_keeps_nothing(make: Any) -> None:
    a, b = make("a"), make("b")
    await a.leases.take(["x"])
    gone = threading.Event()

    def vanish(cursor: Cursor) -> None:
        cursor.execute("LOCK TABLE leases IN SHARE ROW EXCLUSIVE MODE")
        gone.wait(60)

    vanished = a.database.run(vanish)
    taken: list[set[str]] = []

    async def take() -> None:
        with suppress(StoreLost):
            taken.append(await b.leases.take(["y"]))

    deadline = time.monotonic() + 3 * SILENCE
    while not taken and time.monotonic() < deadline:
        await take()
    gone.set()
    assert taken == [set()]
    with pytest.raises(StoreLost):
        await vanished


@pytest.mark.expected_errors
@ensureDeferred
async def test_an_observer_that_fails_does_not_end_the_heartbeats(make: Any) -> None:
    a = make("a")
    a.nodes.on_beat.append(lambda: 1 / 0)
    await a.beat()
    assert a.nodes.alive == ["a"]
