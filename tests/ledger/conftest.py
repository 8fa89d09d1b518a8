"""Databases to count in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet import reactor

from claudeproxy.ledger.ledger import sqlite_ledger
from claudeproxy.store.sqlite import SQLite


@pytest.fixture
def counting(tmp_path: Path) -> Iterator[SQLite]:
    file = sqlite_ledger(tmp_path / "ledger.sqlite")
    file.open(reactor)
    yield file
    file.close()
