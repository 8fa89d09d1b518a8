"""What nodes tell each other, over a real database."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from harness import until
from postgres import Postgres
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from claudeproxy.store.news import LONGEST, News
from claudeproxy.store.postgres import PostgreSQL


class Node:
    """``told``: what it has heard, and when it did and did not hear."""

    def __init__(self, url: str, name: str) -> None:
        self.database = PostgreSQL(url)
        self.database.open(reactor)
        self.news = News(reactor, self.database, name)
        self.told: list[Any] = []
        self.news.heard.append(lambda kind, what: self.told.append((kind, what)))
        self.news.on_lost.append(lambda: self.told.append("lost"))
        self.news.on_back.append(lambda: self.told.append("back"))
        self.news.start()


@pytest.fixture
def make(postgres_url: str) -> Iterator[Any]:
    nodes: list[Node] = []

    def one(name: str) -> Node:
        nodes.append(Node(postgres_url, name))
        return nodes[-1]

    yield one
    for node in nodes:
        if not node.news._stopped:
            node.news.stop()
        node.database.close()


async def listening(*nodes: Node) -> None:
    await until(lambda: all(node.told == ["back"] for node in nodes))
    for node in nodes:
        node.told.clear()


@ensureDeferred
async def test_others_hear_it_at_once(make: Any) -> None:
    a, b, c = make("a"), make("b"), make("c")
    await listening(a, b, c)
    what = {"text": "\0é😀'", "number": 1.5}
    a.news.tell("plan", what)
    await until(lambda: b.told and c.told)
    assert b.told == c.told == [("plan", what)]
    b.news.tell("other", {})
    await until(lambda: a.told and len(c.told) == 2)
    assert a.told == [("other", {})]
    assert b.told == [("plan", what)]


@pytest.mark.alone
@ensureDeferred
async def test_it_takes_a_moment(make: Any) -> None:
    a, b = make("a"), make("b")
    await listening(a, b)
    took = []
    for number in range(50):
        began = time.perf_counter()
        a.news.tell("x", {"n": number})
        await heard(b, number)
        took.append(time.perf_counter() - began)
    assert sorted(took)[25] < 0.05, took


async def heard(node: Node, number: int) -> None:
    if ("x", {"n": number}) in node.told:
        return
    done: Deferred[None] = Deferred()
    node.news.heard.append(lambda *_: done.callback(None))
    await done
    node.news.heard.pop()
    assert node.told[-1] == ("x", {"n": number})


@ensureDeferred
async def test_what_is_too_long_is_refused(make: Any) -> None:
    a, b = make("a"), make("b")
    await listening(a, b)
    room = LONGEST - len(json.dumps(["a", "x", {"t": ""}], separators=(",", ":")))
    a.news.tell("x", {"t": "x" * room})
    await until(lambda: b.told)
    with pytest.raises(ValueError, match=r"7901 bytes \(x\): at most 7900"):
        a.news.tell("x", {"t": "x" * (room + 1)})


@pytest.mark.parametrize("how", ["restart", "kill", "only the listener"])
@ensureDeferred
async def test_it_hears_again_after_a_loss(make: Any, postgres: Postgres, how: str) -> None:
    a, b = make("a"), make("b")
    await listening(a, b)
    if how == "restart":
        postgres.restart()
    elif how == "kill":
        postgres.kill()
        await until(lambda: a.told and b.told)
        assert a.told == b.told == ["lost"]
        a.news.tell("x", {})  # nobody hears it, and nothing is logged
        postgres.start()
    else:
        postgres.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
        )
    await until(lambda: a.told == b.told == ["lost", "back"])
    await until(lambda: a.database.lost_since is None)
    a.news.tell("y", {})
    await until(lambda: b.told[2:] == [("y", {})])


@pytest.mark.expected_errors
@ensureDeferred
async def test_what_is_not_understood_is_not_the_end(
    make: Any, postgres: Postgres, postgres_url: str, nothing_logged: list[str]
) -> None:
    a = make("a")
    await listening(a)
    for told in ("of another program", '["b", "x", {}]'):
        postgres.execute(f"NOTIFY claudemax, '{told}'", postgres_url.rpartition("/")[2])
    await until(lambda: a.told == [("x", {})])
    assert len(nothing_logged) == 1
    assert "of another program" not in nothing_logged[0]


@ensureDeferred
async def test_stopping_leaves_nothing(make: Any, postgres: Postgres) -> None:
    before = threading.active_count()
    a = make("a")
    await listening(a)
    began = time.perf_counter()
    a.news.stop()
    assert time.perf_counter() - began < 0.1
    assert a.news not in reactor.getReaders()  # type: ignore[attr-defined]
    listeners = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
    await until(lambda: postgres.execute(listeners) == "0")
    a.database.close()
    assert threading.active_count() == before
    make("b")
    # The fixture stops it while it has yet to connect.
