"""The tables in PostgreSQL, and their versions."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from harness import until
from postgres import Postgres
from pytest_twisted import ensureDeferred
from twisted.internet import reactor

from claudeproxy.ledger import hours, turns
from claudeproxy.store import migrations
from claudeproxy.store.database import StoreLost
from claudeproxy.store.migrations import NewerSchema
from claudeproxy.store.postgres import PostgreSQL


def name(url: str) -> str:
    return url.rpartition("/")[2]


def columns(postgres: Postgres, url: str, table: str) -> set[str]:
    asked = f"SELECT column_name FROM information_schema.columns WHERE table_name = '{table}'"
    return set(postgres.execute(asked, name(url)).splitlines())


def test_nodes_that_start_together_make_them_once(postgres: Postgres, postgres_url: str) -> None:
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(PostgreSQL, [postgres_url] * 8))
    assert [database.why_lost for database in made] == [""] * 8
    assert postgres.execute("SELECT version FROM claudemax.schema_version", name(postgres_url)) == (
        "1"
    )
    others = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
    assert postgres.execute(others, name(postgres_url)) == "0"


def test_the_scripts_are_numbered() -> None:
    numbers = [number for number, _ in migrations.scripts()]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) == len(list((Path(migrations.__file__).parent / "migrations").iterdir()))


def test_what_the_ledger_keeps_has_a_column(postgres: Postgres, postgres_url: str) -> None:
    PostgreSQL(postgres_url)
    assert columns(postgres, postgres_url, "turns") == {"id", *turns.COLUMNS}
    assert columns(postgres, postgres_url, "hours") >= set(hours.SUMS)


def test_a_newer_schema_is_refused(postgres: Postgres, postgres_url: str) -> None:
    PostgreSQL(postgres_url)
    postgres.execute("INSERT INTO claudemax.schema_version VALUES (99)", name(postgres_url))
    with pytest.raises(NewerSchema, match="have version 99, and this claudemax knows 1: update it"):
        PostgreSQL(postgres_url)


@ensureDeferred
async def test_one_that_is_migrated_while_it_is_lost(postgres: Postgres, postgres_url: str) -> None:
    database = PostgreSQL(postgres_url)
    database.open(reactor)
    try:
        postgres.execute("INSERT INTO claudemax.schema_version VALUES (99)", name(postgres_url))
        assert await database.run(lambda cursor: 7) == 7
        postgres.stop()
        with pytest.raises(StoreLost):
            await database.run(lambda cursor: 7)
        postgres.start()
        await until(lambda: "version 99" in database.why_lost)
        with pytest.raises(StoreLost):
            await database.run(lambda cursor: 7)
    finally:
        database.close()


def test_a_migration_that_fails_leaves_nothing(
    postgres: Postgres, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = list(migrations.scripts())
    monkeypatch.setattr(migrations, "scripts", lambda: [*good, (2, "CREATE TABLE x (y nonsense)")])
    assert "nonsense" in PostgreSQL(postgres_url).why_lost
    asked = "SELECT count(*) FROM pg_namespace WHERE nspname = 'claudemax'"
    assert postgres.execute(asked, name(postgres_url)) == "0"
    monkeypatch.setattr(migrations, "scripts", lambda: [*good, (2, "CREATE TABLE x (y integer)")])
    PostgreSQL(postgres_url)
    assert columns(postgres, postgres_url, "x") == {"y"}


def test_a_role_that_may_only_use_them(postgres: Postgres, postgres_url: str) -> None:
    PostgreSQL(postgres_url)
    postgres.execute(
        "CREATE ROLE modest LOGIN; GRANT USAGE ON SCHEMA claudemax TO modest;"
        " GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA claudemax TO modest",
        name(postgres_url),
    )
    assert PostgreSQL(postgres.url(name(postgres_url), "modest")).why_lost == ""
    assert "permission denied" in PostgreSQL(postgres.url("postgres", "modest")).why_lost
    postgres.execute("DROP OWNED BY modest; DROP ROLE modest", name(postgres_url))
