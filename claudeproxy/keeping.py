"""Where things are kept that outlive a turn: in files, or with other nodes in one PostgreSQL."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from claudeproxy._installed import installer
from claudeproxy._reactor import IDaemonReactor
from claudeproxy._values import without_password
from claudeproxy.cluster.plan import SharedPlan
from claudeproxy.engine.merging import merge
from claudeproxy.engine.quota import Quota
from claudeproxy.ledger.counts import Counts, Turns, in_memory
from claudeproxy.ledger.file import sqlite_ledger
from claudeproxy.ledger.ledger import Ledger
from claudeproxy.ledger.outbox import Outbox
from claudeproxy.ledger.record import TurnRecord
from claudeproxy.options import ConfigError, Settings
from claudeproxy.state import ELSEWHERE, ledger_file, outbox_file, responses_file
from claudeproxy.store.database import Database
from claudeproxy.store.plan_table import PlanTable
from claudeproxy.store.sqlite import SQLite
from claudeproxy.store.store import Store, sqlite_store
from claudeproxy.web.pages import StoreState

if TYPE_CHECKING:
    from claudeproxy.store.postgres import PostgreSQL

_Made = TypeVar("_Made")


class Files:
    """Two files of this user; the node is alone."""

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        """:raises ConfigError: when one of them cannot be made."""
        self._databases: list[Database] = []
        self.store: Store | None = None
        self.ledger: Ledger | None = None
        self.over: Turns
        if not settings.no_store:
            file = self._make(sqlite_store, responses_file(environ), "--no-store")
            self.store = Store(file)
        if not settings.no_ledger:
            file = self._make(sqlite_ledger, ledger_file(environ), "--no-ledger")
            self.ledger = Ledger(file)
            self.counts, self.over = self.ledger.counts, self.ledger.add
        else:
            memory = in_memory()
            self._databases.append(memory)
            self.counts = Counts(memory)
            self.over = self.counts.add

    def _make(self, make: Callable[[Path], SQLite], path: Path, without: str) -> Database:
        database = _made(make, path, f"{ELSEWHERE}, or {without}")
        self._databases.append(database)
        return database

    def began(self, record: TurnRecord) -> None:
        """A turn begins: nothing is known of it yet that is worth a row."""

    def start(self, reactor: IDaemonReactor) -> None:
        """Get ready for calls."""
        for database in self._databases:
            database.open(reactor)

    async def stop(self) -> None:
        """Let go of everything, after the last call."""
        for database in self._databases:
            database.close()

    def share(self, quota: Quota) -> None:
        """Nobody else uses the plan by way of this daemon."""

    def state(self) -> StoreState:
        """What ``/health`` tells of it."""
        return StoreState("none" if self.store is None and self.ledger is None else "sqlite")


class Shared:
    """The PostgreSQL of ``--store``, and the other nodes that use it. ``node``: the id of this
    one."""

    def __init__(
        self, reactor: IDaemonReactor, settings: Settings, environ: Mapping[str, str], node: str
    ) -> None:
        """:raises ConfigError: when it cannot be used, and that will not change by itself."""
        assert settings.store is not None
        self.database = connected(settings.store, f"claudemax {node}")
        from claudeproxy.store.leases import Leases
        from claudeproxy.store.news import News
        from claudeproxy.store.nodes import Nodes

        self._reactor = reactor
        self._plan: SharedPlan | None = None
        self.nodes = Nodes(reactor, self.database, node)
        self.leases = Leases(self.nodes, self.database)
        self.news = News(reactor, self.database, node)
        self.store = None if settings.no_store else Store(self.database)
        self.ledger: Ledger | None = None
        self._outbox: Outbox | None = None
        if settings.no_ledger:
            self.counts = Counts(self.database)
            self.over: Turns = self.counts.add
        else:
            ledger = self.ledger = Ledger(self.database)
            outbox = _made(lambda path: Outbox(path, ledger), outbox_file(environ), ELSEWHERE)
            self.database.on_back.append(outbox.send)
            self._outbox, self.counts, self.over = outbox, ledger.counts, outbox.add

    def began(self, record: TurnRecord) -> None:
        """A turn begins."""
        if self._outbox is not None:
            self._outbox.began(record)

    def start(self, reactor: IDaemonReactor) -> None:
        """Be a node among the others."""
        self.database.open(reactor)
        if self._outbox is not None:
            self._outbox.open(reactor)
        self.news.start()
        self.nodes.start()

    async def stop(self) -> None:
        """Leave the others, and let go of everything, after the last call."""
        if self._plan is not None:
            self.news.on_back.remove(self._plan.back)
            await self._plan.stop()
        self.news.stop()
        if self._outbox is not None:
            await self._outbox.close()
        await self.nodes.stop()
        self.database.close()

    def share(self, quota: Quota) -> None:
        """Make the plan one with that of the other nodes; call it once started."""
        states = PlanTable(self.database, time.time, merge)
        self._plan = SharedPlan(self._reactor, quota, self.news, states, self.leases)
        self.news.on_back.append(self._plan.back)
        self._plan.start()

    def state(self) -> StoreState:
        """What ``/health`` tells of it."""
        others = () if self._plan is None else self._plan.other_accounts
        waiting = 0 if self._outbox is None else self._outbox.waiting
        lost = self.database.lost_since
        return StoreState("postgresql", lost, self.nodes.alive, others, waiting)


def _made(make: Callable[[Path], _Made], path: Path, remedy: str) -> _Made:
    try:
        return make(path)
    except (OSError, sqlite3.Error) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"cannot make {path}: {why} ({remedy})") from None


def connected(url: str, name: str) -> PostgreSQL:
    """The database of ``--store``, lost or not; ``name``: what the server calls this client.

    :raises ConfigError: when ``url`` is none, the driver is not installed, or the tables are of a
        later version.
    """
    try:
        # Only where it is asked for: it is an extra.
        import psycopg

        from claudeproxy.store.migrations import NewerSchema
        from claudeproxy.store.postgres import PostgreSQL
    except ImportError as error:
        why = f"--store needs what is not installed ({error}): {installer().add_postgres}"
        raise ConfigError(why) from None
    try:
        return PostgreSQL(url, name)
    except NewerSchema as error:
        raise ConfigError(f"--store {without_password(url)}: {error}") from None
    except psycopg.ProgrammingError:  # its text may quote the password
        raise ConfigError(
            "--store: is no URL that PostgreSQL's client understands: see its parameters, and write"
            " %25 for a percent sign and %40 for an @ of the password"
        ) from None
