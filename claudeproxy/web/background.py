"""Responses that run in the background: they go on without the client that has asked for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.server import Request

from claudeproxy.dialects.responses import Responses
from claudeproxy.dialects.responses_stream import ResponsesStream, unstored
from claudeproxy.messages import Event, Failure, Finished
from claudeproxy.store.responses import ResponseTable, Stored

from .access_log import Facts, facts
from .event_log import EventLog
from .handler import Asker, Keep, TurnHandler
from .json_replies import request_id
from .keeping import in_time
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
    """A background response. ``keep``: adds it to its conversation; ``release``: lets the next one
    of that begin.

    It has ``begun`` (fires) once it is stored, with whether it is. ``ended`` fires with the last
    of its events, which its ``log`` has once it is stored how it ended. ``there``: whether it is.
    """

    asker: Asker
    parsed: Responses
    stream: ResponsesStream
    keep: Keep | None
    release: Callable[[], object]
    log: EventLog = field(factory=EventLog)
    begun: Deferred[bool] = field(factory=Deferred)
    ended: Deferred[bytes] = field(factory=Deferred)
    there: bool = True
    cancelled: bool = False
    deleted: bool = False

    @property
    def response(self) -> Mapping[str, Any]:
        """The response so far."""
        response = self.stream.response
        return response if self.there else {**response, "store": False}

    def stored(self, events: bytes = b"") -> Stored:
        """What is to be stored of it now; ``events``: all of them, once it is over."""
        parsed, key = self.parsed, self.asker.told.key
        return Stored(self.stream.response, parsed.items, parsed.previous, key, events)


class Background:
    """The background responses of a daemon. There are no more of them than the engine has room for,
    and none takes longer than any other turn may."""

    log = Logger()

    def __init__(self, reactor: IReactorTime, handler: TurnHandler, store: ResponseTable) -> None:
        self._reactor = reactor
        self._handler = handler
        self._store = store
        self._responses: dict[str, Running] = {}

    def start(
        self, request: Request, parsed: Responses, keep: Keep | None, release: Callable[[], object]
    ) -> Running:
        """Ask for a response.

        :raises FailureError: when it is refused.
        """
        known = facts(request)
        told = Facts(began=known.began, body_bytes=known.body_bytes, key=known.key)
        asker = Asker(request_id(request), request.requestHeaders, told)
        running = Running(asker, parsed, parsed.stream(), keep, release)
        running.log.add(running.stream.queue())
        try:
            self._handler.ask(
                asker, "responses", parsed, lambda _, events: self._heard(running, events)
            )
        finally:
            for name, value in asker.left.items():
                request.setHeader(name.encode(), value.encode())
        known.outlived = True
        ident = str(running.stream.response["id"])
        self._responses[ident] = running
        ensureDeferred(self._live(ident, running, request.path)).addErrback(
            lambda why: self.log.failure("a background response broke", why)
        )
        return running

    def find(self, ident: str, key: str | None) -> Running | None:
        """A response that runs here, if the holder of ``key`` may see it."""
        running = self._responses.get(ident)
        theirs = running is not None and key in (None, running.asker.told.key)
        return running if theirs else None

    async def told(self, running: Running) -> Mapping[str, Any]:
        """The response so far; of one that has ended, once it is stored how."""
        if running.stream.ended:
            await running.log.whole()
        return running.response

    def cancel(self, running: Running) -> None:
        """End a response, unless it is over."""
        if not running.stream.ended:
            running.cancelled = True
            running.ended.callback(running.stream.cancel())
            group = running.asker.told.group
            assert group is not None
            group.cancel()

    async def delete(self, ident: str) -> None:
        """End a response, and forget it."""
        running = self._responses.pop(ident)
        running.deleted = True
        self.cancel(running)
        await running.log.whole()

    async def settled(self) -> None:
        """Those that have ended are stored, or cannot be."""
        for running in list(self._responses.values()):
            await self.told(running)

    def _heard(self, running: Running, events: list[Event]) -> None:
        if running.stream.ended:
            return
        told = running.asker.told
        told.heard(events, self._reactor.seconds())
        *most, end = events
        if isinstance(end, Failure):
            told.failure = end
        if not isinstance(end, (Finished, Failure)):
            running.log.add(running.stream.render(0, events))
            return
        running.log.add(running.stream.render(0, most))
        running.ended.callback(running.stream.render(0, [end]))

    async def _live(self, ident: str, running: Running, path: bytes) -> None:
        told, what = running.asker.told, "a background response"
        assert told.group is not None
        told.group.done.addBoth(lambda _: self.cancel(running))
        there = await in_time(self._reactor, self._store.begin(running.stored()), what)
        running.begun.callback(there)
        last = await running.ended
        if not running.deleted:
            stored = running.stored(b"".join([*running.log.events, last]))
            putting = in_time(self._reactor, self._store.put(stored), what)
            if running.keep is not None and stored.response["status"] in (
                "completed",
                "incomplete",
            ):
                await running.keep(running.stream.response)
            running.there = await putting
        running.release()
        running.log.add(last if running.there else unstored(last))
        running.log.end()
        self._forget(ident, running.there)
        await told.group.done
        told.placement = told.group.placement
        sent = sum(map(len, running.log.events))
        status = 200 if told.failure is None else told.failure.status
        self._handler.over(running.asker, b"POST", path, status, sent, left=running.cancelled)

    def _forget(self, ident: str, there: bool) -> None:
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
