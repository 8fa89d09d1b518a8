"""A check of what ``--store`` names."""

from __future__ import annotations

import time
from typing import Any

from claudeproxy._installed import installer
from claudeproxy._values import without_password

from .case import Case
from .findings import Finding, failed, ok, warning

OLDEST = 13
"""The oldest PostgreSQL that claudemax is tested with."""

APART = 5.0
"""Seconds between two clocks beyond what the network can account for."""


def store(case: Case) -> Finding:
    """Whether the database can be used: its version, its tables, its clock. Nothing is changed."""
    url = case.settings.store
    if url is None:
        return ok("none: what is stored is in files of this user")
    try:
        import psycopg

        from claudeproxy.store.connection import connect, parameters, reason
    except ImportError as error:
        return failed(f"--store needs what is not installed ({error})", installer().add_postgres)
    shown = without_password(url)
    try:
        connection = connect(parameters(url, "claudemax doctor"))
        with connection, connection.cursor() as cursor:
            return _usable(cursor, shown)
    except psycopg.ProgrammingError as error:
        if error.diag.message_primary:  # of the server: what the role may not do
            return failed(f"{shown}: {reason(error)}", "grant it to the role")
        return failed(
            "--store is not a URL that libpq understands", "write %25 for %, %40 for an @"
        )
    except psycopg.Error as error:
        return failed(
            f"{shown}: {reason(error)}",
            "start the database, or correct --store, PGPASSWORD or ~/.pgpass; meanwhile the daemon"
            " serves what needs no store",
        )


def _usable(cursor: Any, shown: str) -> Finding:
    from claudeproxy.store.migrations import scripts, version

    before = time.time()
    cursor.execute(
        "SELECT current_setting('server_version_num')::integer / 10000, current_setting("
        "'server_version'), extract(epoch FROM clock_timestamp())::double precision,"
        " current_database(), current_user, has_database_privilege(current_database(), 'CREATE')"
    )
    major, full, clock, database, user, may_create = cursor.fetchone()
    apart = clock - (before + time.time()) / 2
    more = {"version": full, "schema": version(cursor), "clock_ahead": round(apart, 3)}
    latest = max(number for number, _ in scripts())
    if major < OLDEST:
        return failed(f"{shown}: PostgreSQL {full}", f"update it to {OLDEST} or newer", **more)
    if more["schema"] > latest:
        tables = f"tables of version {more['schema']}, this claudemax knows {latest}"
        return failed(f"{shown}: {tables}", installer().update, **more)
    if more["schema"] == 0 and not may_create:
        return failed(
            f"{shown}: no tables yet, and {user} may not make any",
            f'GRANT CREATE ON DATABASE "{database}" TO "{user}"',
            **more,
        )
    if abs(apart) > APART:
        return warning(
            f"{shown}: its clock and ours are {abs(apart):.0f} s apart",
            "set both by NTP: the nodes' clocks decide how old what is stored is",
            **more,
        )
    made = f"tables of version {more['schema']}" if more["schema"] else "no tables yet"
    return ok(f"{shown}: PostgreSQL {full}, {made}", **more)
