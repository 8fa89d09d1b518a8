"""The PostgreSQL that tests get is a real one."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import postgres as module
import psutil
import pytest
from postgres import GUARDED, PASSWORD, Postgres, throw_away


def test_each_test_gets_an_empty_database_of_its_own(postgres: Postgres, postgres_url: str) -> None:
    other = postgres.create_database()
    mine, others = (url.rpartition("/")[2] for url in (postgres_url, other))
    postgres.execute("CREATE TABLE t (a integer); INSERT INTO t VALUES (7)", mine)
    assert postgres.execute("SELECT a FROM t", mine) == "7"
    assert postgres.execute("SELECT count(*) FROM pg_tables WHERE tablename = 't'", others) == "0"
    postgres.drop_database(other)
    assert postgres.execute(f"SELECT count(*) FROM pg_database WHERE datname = '{others}'") == "0"


@pytest.mark.parametrize("how", ["smart", "fast", "immediate", "kill"])
def test_it_comes_back_where_it_was_with_what_it_had(postgres: Postgres, how: str) -> None:
    url = postgres.create_database()
    name = url.rpartition("/")[2]
    postgres.execute("CREATE TABLE t (a integer); CHECKPOINT; INSERT INTO t VALUES (7)", name)
    before = psutil.Process(postgres.pid)
    family = [before, *before.children(recursive=True)]
    assert len(family) > 1
    if how == "kill":
        postgres.kill()
    else:
        postgres.stop(how)
    assert not postgres.running
    assert not psutil.wait_procs(family, 10)[1]
    with pytest.raises(AssertionError, match="Connection refused"):
        postgres.execute("SELECT 1")
    postgres.start()
    assert postgres.url(name) == url
    assert postgres.execute("SELECT a FROM t", name) == "7"
    assert postgres.pid != before.pid
    postgres.drop_database(url)


def test_a_restart_ends_sessions(postgres: Postgres) -> None:
    before = postgres.execute("SELECT pg_postmaster_start_time()")
    postgres.restart()
    assert postgres.execute("SELECT pg_postmaster_start_time()") > before


def test_it_is_gone_after(postgres: Postgres) -> None:
    with throw_away() as other:
        assert other.port != postgres.port
        process, directory = psutil.Process(other.pid), other.socket_directory
        family = [process, *process.children(recursive=True)]
        assert (directory / f".s.PGSQL.{other.port}").is_socket()
        assert process.uids().real != 0
    assert not directory.exists()
    assert not psutil.wait_procs(family, 10)[1]
    with pytest.raises(ZeroDivisionError), throw_away() as failed:
        directory = failed.socket_directory
        raise ZeroDivisionError
    assert not directory.exists()


def test_one_role_needs_its_password(postgres: Postgres) -> None:
    psql = [postgres._programs / "psql", "-XAtwc", "SELECT 7", postgres.url(user=GUARDED)]
    environ = {"PATH": os.environ["PATH"]}
    without = subprocess.run(psql, env=environ, capture_output=True, text=True, check=False)
    assert "no password supplied" in without.stderr
    told = {**environ, "PGPASSWORD": PASSWORD}
    ran = subprocess.run(psql, env=told, capture_output=True, text=True, check=True)
    assert ran.stdout == "7\n"


def test_it_says_why_there_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(module, "PLACES", (str(tmp_path / "*"),))
    assert module.missing() == "PostgreSQL is not installed"
