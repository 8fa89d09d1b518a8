"""What ``claudemax doctor`` finds of ``--store``, with a real database."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from postgres import GUARDED, Postgres

from claudeproxy.command.case import Case
from claudeproxy.command.checks_store import store
from claudeproxy.command.findings import Finding
from claudeproxy.store.postgres import PostgreSQL


def check(home: Path, url: str) -> Finding:
    found = store(Case({"HOME": str(home), "CLAUDEMAX_STORE": url}))
    assert "secret" not in str(found)
    return found


def test_none_is_needed(tmp_path: Path) -> None:
    assert store(Case({"HOME": str(tmp_path)})).state == "ok"


def test_before_and_after_the_first_start(postgres_url: str, tmp_path: Path) -> None:
    found = check(tmp_path, postgres_url)
    assert (found.state, found.more["schema"]) == ("ok", 0)
    assert found.found.endswith("no tables yet")
    PostgreSQL(postgres_url)
    found = check(tmp_path, postgres_url)
    assert (found.state, found.more["schema"]) == ("ok", 1)
    assert found.found.endswith("tables of version 1")
    assert abs(found.more["clock_ahead"]) < 5


def test_later_tables(postgres: Postgres, postgres_url: str, tmp_path: Path) -> None:
    PostgreSQL(postgres_url)
    name = postgres_url.rpartition("/")[2]
    postgres.execute("INSERT INTO claudemax.schema_version VALUES (99)", name)
    found = check(tmp_path, postgres_url)
    assert found.state == "failed"
    assert "tables of version 99, this claudemax knows 1" in found.found
    assert "pip install" in found.remedy


def test_a_role_with_no_rights(postgres: Postgres, postgres_url: str, tmp_path: Path) -> None:
    name = postgres_url.rpartition("/")[2]
    postgres.execute("CREATE ROLE poor LOGIN", name)
    poor = postgres.url(name, "poor")
    found = check(tmp_path, poor)
    assert found.remedy == f'GRANT CREATE ON DATABASE "{name}" TO "poor"'
    PostgreSQL(postgres_url)
    found = check(tmp_path, poor)
    assert found.state == "failed"
    assert "permission denied for schema claudemax" in found.found
    postgres.execute("DROP ROLE poor", name)


def test_one_that_cannot_be_reached(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.url("postgres", GUARDED)
    found = check(tmp_path, url.replace(GUARDED, f"{GUARDED}:secret"))
    assert found.state == "failed"
    assert "password authentication failed" in found.found
    assert ":***@" in found.found
    postgres.stop()
    found = check(tmp_path, url)
    assert "Connection refused" in found.found
    assert "start the database" in found.remedy
    postgres.start()


@pytest.mark.parametrize("url", ["postgresql://a:secret%zz@h/d", "postgresql://h/d?secret=1"])
def test_what_is_no_url(tmp_path: Path, url: str) -> None:
    assert check(tmp_path, url).found == "--store is not a URL that libpq understands"


def test_without_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    found = check(tmp_path, "postgresql://h/d")
    assert found.found.startswith("--store needs what is not installed (")
    assert "[postgres]" in found.remedy
