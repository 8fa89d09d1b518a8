"""The ledger's file, and several databases of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from twisted.internet import reactor

from claudeproxy.ledger.file import sqlite_ledger
from claudeproxy.store.database import Database
from claudeproxy.store.postgres import PostgreSQL
from claudeproxy.store.sqlite import SQLite


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[SQLite]:
    file = sqlite_ledger(tmp_path / "ledger.sqlite")
    file.open(reactor)
    yield file
    file.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def make_database(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Callable[[], Database]]:
    """Makes databases of one file, or one server's, each with threads of its own."""
    opened: list[Database] = []
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else None

    def make() -> Database:
        made = sqlite_ledger(tmp_path / "ledger.sqlite") if url is None else PostgreSQL(url)
        made.open(reactor)
        opened.append(made)
        return made

    yield make
    for database in opened:
        database.close()
