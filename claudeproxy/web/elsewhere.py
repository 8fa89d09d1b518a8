"""Responses that are stored as running, and do not run here: another node runs them, or they are
lost with the one that did."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from claudeproxy.dialects.responses_replay import replay
from claudeproxy.messages import Failure, FailureError, Kind
from claudeproxy.store.database import StoreLost
from claudeproxy.store.responses import ResponseTable, Stored

from .event_log import EventLog

if TYPE_CHECKING:  # PostgreSQL is an extra
    from claudeproxy.store.shared import Shared

OVER, CANCEL, DELETE = "response.over", "response.cancel", "response.delete"
"""What nodes tell each other of a response (``id``): it is over; whoever runs it is to end it; and
to delete it, too."""

POLL = 1.0
"""Seconds after which the store is asked again: news may be lost."""

PATIENCE = 5.0
"""Seconds in which another node must have ended a response."""

GRACE = 10.0
"""Seconds after a loss of the store in which no response is taken for lost: its node has yet to say
that it is alive."""

LOST = {
    "code": "server_error",
    "message": "the daemon that ran this response has ended, or could not store how it ended",
}
"""The error of a response that is stored as running, and does not run."""


class Elsewhere:
    """The stored responses, those that seem to run looked into. ``shared``: ``None`` where no other
    node can run one."""

    def __init__(self, reactor: IReactorTime, table: ResponseTable, shared: Shared | None) -> None:
        self._reactor = reactor
        self._table = table
        self._shared = shared
        self._waiting: dict[Deferred[None], str] = {}
        self._doubt = 0.0
        if shared is not None:
            shared.news.heard.append(self._heard)
            shared.database.on_back.append(self._back)

    async def get(self, ident: str, key: str | None) -> Stored | None:
        """A response by its id; one that is lost is told as failed."""
        found = await self._table.get(ident, key)
        if found is None or not found.running or await self._runs(found):
            return found
        again = await self._table.get(ident, key)  # its node may have ended meanwhile, as it should
        if again is None or not again.running:
            return again
        return evolve(again, response={**again.response, "status": "failed", "error": LOST})

    async def events(self, found: Stored) -> bytes:
        """The events of a response that is over."""
        return await self._table.events(found.id) or replay(found.response)

    async def fill(self, log: EventLog, ident: str, key: str | None) -> None:
        """Fill ``log`` with the events of a response once it is over, however long the store is
        lost meanwhile. One that is deleted has none."""
        try:
            while not log.ended:
                with suppress(StoreLost):
                    found = await self.get(ident, key)
                    if found is None or not found.running:
                        log.add(b"" if found is None else await self.events(found))
                        return
                await self._news_of(ident)
        finally:
            log.end()

    async def ask(self, kind: str, ident: str, key: str | None) -> Stored | None:
        """A response, once the node that runs it has ended it; ``None`` if it is deleted. ``kind``:
        :data:`CANCEL` or :data:`DELETE`.

        :raises FailureError: 503, when that node does not.
        """
        assert self._shared is not None
        deadline = self._reactor.seconds() + PATIENCE
        while self._reactor.seconds() < deadline:
            self._shared.news.tell(kind, {"id": ident})
            await self._news_of(ident)
            found = await self.get(ident, key)
            if found is None or not found.running:
                return found
        why = "the node that runs this response does not answer"
        raise FailureError(
            Failure(Kind.UNAVAILABLE, why, 503, retry_after=POLL, code="node_unreachable")
        )

    async def _runs(self, found: Stored) -> bool:
        shared = self._shared
        if shared is None or found.node is None or found.node == shared.nodes.node:
            return False
        return self._reactor.seconds() < self._doubt or await shared.nodes.is_alive(found.node)

    async def _news_of(self, ident: str) -> None:
        """Wait until the response is told to be over, for a moment only."""
        told: Deferred[None] = Deferred()
        self._waiting[told] = ident
        told.addTimeout(POLL, self._reactor, lambda *_: None)
        try:
            await told
        finally:
            del self._waiting[told]

    def _heard(self, kind: str, what: dict[str, Any]) -> None:
        if kind == OVER:
            for told in [told for told, ident in self._waiting.items() if ident == what["id"]]:
                told.callback(None)

    def _back(self) -> None:
        self._doubt = self._reactor.seconds() + GRACE
