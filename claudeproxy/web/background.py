"""Responses that run in the background: they go on without the client that has asked for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.web.server import Request

from claudeproxy.dialects.responses import Responses
from claudeproxy.dialects.responses_stream import ResponsesStream
from claudeproxy.messages import Event, Failure
from claudeproxy.store.responses import ResponseTable, Stored

from .access_log import Facts, facts
from .event_log import EventLog
from .handler import Asker, TurnHandler
from .json_replies import request_id
from .stored_responses import RUNNING

UNSTORED = 16
"""Responses that are over and could not be stored: so many are kept in memory."""

LOST = {
    "code": "server_error",
    "message": "the daemon that ran this response has ended, or could not store how it ended",
}
"""The error of a response that is stored as running, and does not run."""


@define(eq=False)
class Running:
    """A background response. ``over``: called with it when it is."""

    asker: Asker
    parsed: Responses
    stream: ResponsesStream
    over: Callable[[dict[str, Any]], object]
    log: EventLog = field(factory=EventLog)
    cancelled: bool = False
    deleted: bool = False

    def stored(self) -> Stored:
        """What is to be stored of it now."""
        parsed, events = self.parsed, b"".join(self.log.events) if self.stream.ended else b""
        key = self.asker.told.key
        return Stored(self.stream.response, parsed.items, parsed.previous, key, events)


class Background:
    """The background responses of a daemon. There are no more of them than the engine has room for,
    and none takes longer than any other turn may."""

    def __init__(self, reactor: IReactorTime, handler: TurnHandler, store: ResponseTable) -> None:
        self._reactor = reactor
        self._handler = handler
        self._store = store
        self._responses: dict[str, Running] = {}

    async def start(
        self, request: Request, parsed: Responses, over: Callable[[dict[str, Any]], object]
    ) -> Running:
        """Ask for a response.

        :raises FailureError: when it is refused.
        """
        known = facts(request)
        told = Facts(began=known.began, body_bytes=known.body_bytes, key=known.key)
        asker = Asker(request_id(request), request.requestHeaders, told)
        running = Running(asker, parsed, parsed.stream(), over)
        running.log.add(running.stream.queue())
        try:
            group = await self._handler.ask(
                asker, "responses", parsed, lambda _, events: self._heard(running, events)
            )
        finally:
            for name, value in asker.left.items():
                request.setHeader(name.encode(), value.encode())
        known.outlived = True
        ident = str(running.stream.response["id"])
        self._responses[ident] = running
        self._store.put(running.stored())
        group.done.addBoth(lambda _: self._over(ident, running, request.path))
        return running

    def find(self, ident: str, key: str | None) -> Running | None:
        """A response that runs here, if the holder of ``key`` may see it."""
        running = self._responses.get(ident)
        theirs = running is not None and key in (None, running.asker.told.key)
        return running if theirs else None

    def cancel(self, running: Running) -> None:
        """End a response, unless it is over."""
        if not running.stream.ended:
            running.cancelled = True
            running.log.add(running.stream.cancel())
            group = running.asker.told.group
            assert group is not None
            group.cancel()

    def delete(self, ident: str) -> None:
        """End a response, and forget it."""
        running = self._responses.pop(ident)
        running.deleted = True
        self.cancel(running)

    def _heard(self, running: Running, events: list[Event]) -> None:
        if running.stream.ended:
            return
        told = running.asker.told
        told.heard(events, self._reactor.seconds())
        if isinstance(events[-1], Failure):
            told.failure = events[-1]
        running.log.add(running.stream.render(0, events))

    def _over(self, ident: str, running: Running, path: bytes) -> None:
        told = running.asker.told
        assert told.group is not None
        told.placement = told.group.placement
        if not running.stream.ended:
            self.cancel(running)
        sent = sum(map(len, running.log.events))
        status = 200 if told.failure is None else told.failure.status
        self._handler.over(running.asker, b"POST", path, status, sent, left=running.cancelled)
        if not running.deleted:
            self._store.put(running.stored()).addCallback(self._stored, ident)
        running.over(running.stream.response)
        running.log.end()

    def _stored(self, there: bool, ident: str) -> None:
        if there:
            self._responses.pop(ident, None)
        over = [name for name, one in self._responses.items() if one.log.ended]
        for name in over[:-UNSTORED]:
            del self._responses[name]


def as_told(response: Mapping[str, Any]) -> Mapping[str, Any]:
    """A stored ``response`` that does not run here: one that seems to run is lost."""
    if response["status"] not in RUNNING:
        return response
    return {**response, "status": "failed", "error": LOST}
