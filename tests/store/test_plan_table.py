"""The states of plans, in SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import gatherResults

from claudeproxy.engine.merging import merge
from claudeproxy.engine.quota import Quota
from claudeproxy.messages import Failure, Kind
from claudeproxy.store.plan_table import PlanTable
from claudeproxy.store.sqlite import SQLite

SCHEMA = """
CREATE TABLE IF NOT EXISTS plan (
    account TEXT PRIMARY KEY, state TEXT NOT NULL, changed DOUBLE PRECISION NOT NULL
);
"""  # as the migrations of PostgreSQL make it


def greatest(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    return {name: max(a.get(name, 0), b.get(name, 0)) for name in {*a, *b}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "plan.sqlite"


@pytest.fixture
def table(path: Path) -> Iterator[PlanTable]:
    database = SQLite(path, lambda connection: connection.executescript(SCHEMA))
    database.open(reactor)
    yield PlanTable(database, lambda: 1000.0, greatest)
    database.close()


@ensureDeferred
async def test_states_are_kept_by_account(table: PlanTable) -> None:
    assert await table.load("mine") is None
    await table.save("mine", {"a": 1})
    await table.save("hers", {"a": 5})
    assert await table.load("mine") == {"a": 1}
    assert await table.load("hers") == {"a": 5}


@ensureDeferred
async def test_what_is_saved_is_merged_with_what_is_there(table: PlanTable, path: Path) -> None:
    await gatherResults([table.save("mine", {name: number}) for name, number in
                         [("a", 2), ("b", 1), ("a", 1), ("c", 7), ("b", 3)]])  # fmt: skip
    assert await table.load("mine") == {"a": 2, "b": 3, "c": 7}
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT account, changed FROM plan").fetchall() == [
            ("mine", 1000.0)
        ]


@ensureDeferred
async def test_the_states_of_two_quotas_are_read_by_a_third(path: Path) -> None:
    database = SQLite(path, lambda connection: connection.executescript(SCHEMA))
    database.open(reactor)
    table = PlanTable(database, lambda: 1000.0, merge)
    first, second, third = (Quota(lambda: 1000.0) for _ in range(3))
    first.close(Failure(Kind.PLAN_LIMIT, "", 429, retry_after=500.0, window="five_hour"))
    second.charges.charge("a")
    second.hear({"unifiedWindows": {"seven_day": {"utilization": 0.5, "resetsAt": 9000}}})
    for quota in (first, second, first):
        quota.login.account = "mine"
        await table.save("mine", quota.kept())
    third.restore(await table.load("mine") or {})
    database.close()
    assert third.closed() == {"five_hour": 1500.0}
    assert third.windows.shares(1000.0) == {"seven_day": 0.5}
    assert (third.charges.is_charged("a"), third.login.account) == (True, "mine")


@ensureDeferred
async def test_what_cannot_be_merged_changes_nothing(table: PlanTable) -> None:
    await table.save("mine", {"a": 1})
    with pytest.raises(TypeError):
        await table.save("mine", {"a": "x"})
    assert await table.load("mine") == {"a": 1}
