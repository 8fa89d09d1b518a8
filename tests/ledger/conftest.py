"""Each database, for tests of what is in them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from twisted.internet import reactor

from claudeproxy.store.database import Database
from claudeproxy.store.postgres import PostgreSQL


@pytest.fixture
def postgresql(postgres_url: str) -> Iterator[PostgreSQL]:
    opened = PostgreSQL(postgres_url)
    opened.open(reactor)
    yield opened
    opened.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Database:
    """The file of the module's fixture ``sqlite``, and PostgreSQL where it is installed."""
    made: Database = request.getfixturevalue(request.param)
    return made
