"""Turns on their way to a ledger whose database may be lost: a file of this machine holds them.

A turn is noted when it begins, and told when it is over; its row goes once the database has it. A
daemon that was killed leaves rows behind, and the next one on this state directory tells them: of a
turn that had not ended, that its node was lost.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import asdict
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from claudeproxy._reactor import IDaemonReactor
from claudeproxy.messages import Usage
from claudeproxy.store.database import Cursor, StoreLost
from claudeproxy.store.sqlite import SQLite

from .ledger import Ledger
from .owners import Owners
from .record import NODE_LOST, TurnRecord
from .shares import Plan

MOST = 200_000
"""Turns that may wait, as many as a ledger keeps: about 200 MB. Further ones are lost."""

RETRY = 5.0
"""Seconds after which it is tried again to send, if nobody says before that the database is
back."""

LAST = 5.0
"""Seconds for which what waits is still sent when the daemon stops."""

BATCH = 20
"""Turns that are sent in one transaction, which keeps those of other nodes waiting."""

_CAUSE = "the daemon ended before the turn did"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS waiting (
    place INTEGER PRIMARY KEY, request_id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL,
    record TEXT NOT NULL, plan TEXT
);
CREATE INDEX IF NOT EXISTS waiting_by_owner ON waiting (owner, place);
"""


class Outbox:
    """Takes turns for ``ledger``. Several daemons may share the file at ``path``."""

    log = Logger()

    def __init__(self, path: Path, ledger: Ledger, most: int = MOST) -> None:
        """:raises OSError, sqlite3.Error: when the file cannot be created."""
        self._ledger = ledger
        self._most = most
        self._database = SQLite(path, _prepare)
        self._owners = Owners(path)
        self._reactor: Any = None
        self._sending: Deferred[None] | None = None
        self._retry: IDelayedCall | None = None
        self._closes_at: float | None = None
        self._lost = 0
        self.waiting = 0
        """Turns that are over, and not yet in the ledger's database."""

    def open(self, reactor: IDaemonReactor) -> None:
        """Take turns from now on, after those that daemons have left which run no more."""
        self._reactor, self._closes_at = reactor, None
        self._owners.enter()
        self._database.open(reactor)
        adopted = self._database.run(self._adopt)
        adopted.addCallback(self._adopted)
        adopted.addErrback(lambda why: self.log.failure("turns of before are not told", why))

    async def close(self) -> None:
        """Send what waits, unless the database is lost or takes long, and let go of the file."""
        self._closes_at = self._reactor.seconds() + LAST
        self._stop_retrying()
        await self._database.run(_nothing)  # whatever was to be noted is noted by then
        if self.waiting:
            self.send()
        if self._sending is not None:
            await self._sending
        self._database.close()
        self._owners.leave()

    def began(self, record: TurnRecord) -> None:
        """A turn begins. ``record``: what is known so far."""
        noted = self._database.run(self._write, record, None)
        noted.addErrback(lambda why: self.log.failure("the begin of a turn is not noted", why))

    def add(self, record: TurnRecord, plan: Plan) -> None:
        """A turn is over. ``plan``: as known then."""
        if self.waiting >= self._most:
            self._drop(record)
            return
        self.waiting += 1
        written = self._database.run(self._write, record, plan)

        def failed(why: Any) -> None:
            self.waiting -= 1
            self.log.failure("a turn that is over is not noted on disk", why)
            self._ledger.add(record, plan)

        written.addCallbacks(lambda _: self.send(), failed)

    def send(self) -> None:
        """Send what waits: the database may be back."""
        if self._sending is None:
            self._stop_retrying()
            self._sending = ensureDeferred(self._send())
            self._sending.addErrback(lambda why: self.log.failure("turns cannot be sent", why))
            self._sending.addCallback(self._sent_all)

    def _sent_all(self, _: object) -> None:
        self._sending = None
        if self.waiting and self._closes_at is None:
            self._retry = self._reactor.callLater(RETRY, self.send)

    async def _send(self) -> None:
        while rows := await self._database.run(self._oldest):
            if self._closes_at is not None and self._reactor.seconds() >= self._closes_at:
                return
            turns = [(_record(record), Plan(**json.loads(plan))) for _, record, plan in rows]
            try:
                await self._put(turns)
            except StoreLost:
                return
            await self._database.run(_forget, [place for place, _, _ in rows])
            self.waiting -= len(rows)
        if self._lost:
            self.log.error("{lost} turns are not in the ledger", lost=self._lost)
            self._lost = 0

    async def _put(self, turns: Sequence[tuple[TurnRecord, Plan]]) -> None:
        try:
            await self._ledger.put_all(turns)
        except StoreLost:
            raise
        except Exception:
            if len(turns) == 1:
                self.log.failure("a turn is not in the ledger")
                return
            for turn in turns:  # one that cannot be added is in the way of the others
                await self._put([turn])

    def _drop(self, record: TurnRecord) -> None:
        if not self._lost:
            why = "{most} turns wait for the database: further ones will not be in the ledger"
            self.log.error(why, most=self._most)
        self._lost += 1
        gone = self._database.run(_forget_request, record.request_id)
        gone.addErrback(lambda why: self.log.failure("a turn cannot be forgotten", why))

    def _adopted(self, waiting: int) -> None:
        self.waiting += waiting
        if waiting:
            self.send()

    def _stop_retrying(self) -> None:
        if self._retry is not None and self._retry.active():
            self._retry.cancel()

    # -- in the thread --

    def _write(self, cursor: Cursor, record: TurnRecord, plan: Plan | None) -> None:
        _forget_request(cursor, record.request_id)  # its place is among those that are over
        cursor.execute(
            "INSERT INTO waiting (request_id, owner, record, plan)"
            " VALUES (:request, :owner, :record, :plan)",
            {
                "request": record.request_id,
                "owner": self._owners.me,
                "record": json.dumps(asdict(record)),
                "plan": None if plan is None else json.dumps(asdict(plan)),
            },
        )

    def _oldest(self, cursor: Cursor) -> list[tuple[int, str, str]]:
        cursor.execute(
            "SELECT place, record, plan FROM waiting WHERE owner = :owner AND plan IS NOT NULL"
            f" ORDER BY place LIMIT {BATCH}",
            {"owner": self._owners.me},
        )
        return cursor.fetchall()

    def _adopt(self, cursor: Cursor) -> int:
        """Take over what daemons have left that run no more; how many turns."""
        cursor.execute("DELETE FROM waiting WHERE place < 0")  # others that adopt wait for this
        cursor.execute("SELECT DISTINCT owner FROM waiting")
        adopted = 0
        for (owner,) in cursor.fetchall():
            with self._owners.gone(owner) as gone:
                if not gone:
                    continue
                about = {"me": self._owners.me, "owner": owner}
                cursor.execute(
                    "SELECT place, record FROM waiting WHERE owner = :owner AND plan IS NULL", about
                )
                for place, text in cursor.fetchall():
                    record = {**json.loads(text), "outcome": NODE_LOST, "cause": _CAUSE}
                    cursor.execute(
                        "UPDATE waiting SET record = :record, plan = :plan WHERE place = :place",
                        {
                            "record": json.dumps(record),
                            "plan": json.dumps(asdict(Plan(record["time"]))),
                            "place": place,
                        },
                    )
                cursor.execute("UPDATE waiting SET owner = :me WHERE owner = :owner", about)
                adopted += cursor.rowcount
        return adopted


def _prepare(connection: sqlite3.Connection) -> None:
    # As with the ledger's file: rows survive a crash of the daemon, without a wait for the disk.
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.executescript(_SCHEMA)


def _forget(cursor: Cursor, places: Sequence[int]) -> None:
    cursor.executemany(
        "DELETE FROM waiting WHERE place = :place", [{"place": place} for place in places]
    )


def _forget_request(cursor: Cursor, request_id: str) -> None:
    cursor.execute("DELETE FROM waiting WHERE request_id = :request", {"request": request_id})


def _nothing(_: Cursor) -> None:
    """There is nothing to do."""


def _record(text: str) -> TurnRecord:
    told = json.loads(text)
    return TurnRecord(**{**told, "usage": Usage(**told["usage"])})
