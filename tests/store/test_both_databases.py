"""SQLite and PostgreSQL answer the same calls alike."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from attrs import evolve
from pytest_twisted import ensureDeferred
from twisted.internet import reactor

from claudeproxy.ledger.file import sqlite_ledger
from claudeproxy.ledger.ledger import Ledger
from claudeproxy.ledger.record import PAID, PLAN, TurnRecord
from claudeproxy.messages import Usage
from claudeproxy.store.completions import StoredCompletion, Wanted
from claudeproxy.store.conversations import Conversation
from claudeproxy.store.postgres import PostgreSQL
from claudeproxy.store.responses import Stored
from claudeproxy.store.store import Store, sqlite_store
from claudeproxy.store.tables import Bounds

IDS = "abcde"
KEYS = (None, "mine", "his")
TEXTS = ("", "x" * 100, "x" * 450, "it's 100% :name ::text", "\0 \\u0000 \\\\", "é😀\n")
"""Some of which fill a table."""

Call = Callable[[Store], Any]


def a_call(random: Random) -> Call:
    """One of all that can be asked of a store."""
    ident, key = random.choice(IDS), random.choice(KEYS)
    text, other = random.choice(TEXTS), random.choice(TEXTS)
    previous = random.choice([None, *(before for before in IDS if before < ident)])
    items = [{"id": random.choice("123") + text, "text": text}]
    metadata = {random.choice(TEXTS): random.choice(TEXTS) for _ in range(2)}
    wanted = Wanted(
        random.randint(1, 3),
        random.random() < 0.5,
        random.choice([None, *IDS]),
        random.choice([None, "m", "n"]),
        random.choice([{}, {text: other}, {text: text}]),
    )
    made = StoredCompletion(
        {"id": ident, "model": random.choice("mn")}, metadata, [{"content": text}]
    )
    stored = Stored({"id": ident, "output": []}, items, previous, key, text.encode())
    return random.choice(
        [
            lambda store: store.responses.put(stored),
            lambda store: store.responses.put(stored),
            lambda store: store.responses.get(ident, key),
            lambda store: store.responses.events(ident),
            lambda store: store.responses.chain(ident, key),
            lambda store: store.responses.delete(ident, key),
            lambda store: store.conversations.create(Conversation(ident, 5, metadata), items, key),
            lambda store: store.conversations.get(ident, key),
            lambda store: store.conversations.update(ident, metadata, key),
            lambda store: store.conversations.delete(ident, key),
            lambda store: store.conversations.items(ident, key),
            lambda store: store.conversations.add(ident, items, key),
            lambda store: store.conversations.remove(ident, items[0]["id"], key),
            lambda store: store.completions.put(made, key),
            lambda store: store.completions.put(made, key),
            lambda store: store.completions.find(wanted, key),
            lambda store: store.completions.find(evolve(wanted, after=None), key),
            lambda store: store.completions.update(ident, metadata, key),
            lambda store: store.completions.delete(ident, key),
        ]
    )


async def outcome(call: Call, on: Store) -> Any:
    try:
        return await call(on)
    except Exception as error:  # both refuse what is there already
        assert type(error).__name__ in ("IntegrityError", "UniqueViolation"), error
        return "refused"


@pytest.mark.parametrize("seed", range(8))
@ensureDeferred
async def test_stores_alike(postgresql: PostgreSQL, tmp_path: Any, seed: int) -> None:
    random, now = Random(seed), [1000.0]
    file = sqlite_store(tmp_path / "store.sqlite")
    file.open(reactor)
    try:
        bounds = Bounds(max_age=100, max_bytes=1500)
        stores = [Store(database, lambda: now[0], bounds) for database in (file, postgresql)]
        for _ in range(150):
            now[0] += random.choice([0.25, 1, 5])
            call = a_call(random)
            one, other = [await outcome(call, store) for store in stores]
            assert one == other
    finally:
        file.close()


def a_turn(random: Random, number: int, now: float) -> TurnRecord:
    shares = random.choice([{}, {"five_hour": random.random()}])
    return TurnRecord(
        time=now - random.random() * 9000,
        request_id=f"req_{number}",
        key=random.choice(KEYS),
        dialect="chat",
        client=random.choice(["", "it's 100% :name ::text", "é😀"]),
        model=random.choice("mn"),
        answered_by=random.choice([None, "claude-m"]),
        placement=random.choice(["", "warm"]),
        usage=Usage(*(random.randrange(2**40) for _ in range(6))),
        first_token_ms=random.choice([None, random.random()]),
        status=random.choice([None, 200]),
        outcome=random.choice(["ok", "client left", "upstream"]),
        cause=random.choice([None, "why"]),
        windows_before=shares,
        windows_after=shares,
        paid_by=random.choice([None, PLAN, PAID]),
        list_price=random.choice([None, 0.25, 1.5]),
    )


@pytest.mark.parametrize("seed", range(3))
@ensureDeferred
async def test_ledgers_alike(postgresql: PostgreSQL, tmp_path: Any, seed: int) -> None:
    random, now = Random(seed), 1_000_000.0
    file = sqlite_ledger(tmp_path / "ledger.sqlite")
    file.open(reactor)
    try:
        ledgers = [
            Ledger(database, lambda: now, max_turns=30, max_age=100_000)
            for database in (file, postgresql)
        ]
        for number in range(50):
            now += random.choice([1, 600, 4000])
            turn = a_turn(random, number, now)
            for ledger in ledgers:
                await ledger.add(turn)
            since = now - random.random() * 30_000
            by = random.sample(["hour", "key", "model", "client"], random.randint(0, 4))
            only = random.choice([None, "failed", "paid"])
            asked: list[tuple[Any, ...]] = [
                ("turn", f"req_{random.randrange(50)}"),
                ("latest", 7, since + 9000, only),
                ("shares", since),
                ("hours", since, *by),
            ]
            for name, *args in asked:
                one, other = [await getattr(ledger, name)(*args) for ledger in ledgers]
                if name == "hours":  # within an hour, and with as many turns, no order is promised
                    one, other = sorted(one, key=repr), sorted(other, key=repr)
                assert one == other
    finally:
        file.close()
