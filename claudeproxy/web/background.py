"""Responses that run in the background: they go on without the client that has asked for them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from attrs import define, evolve, field
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure as Reason
from twisted.web.server import Request

from claudeproxy.dialects.responses import Responses
from claudeproxy.dialects.responses_stream import ResponsesStream, unstored
from claudeproxy.messages import Event, Failure, Finished
from claudeproxy.store.database import StoreLost
from claudeproxy.store.responses import ResponseTable, Stored

from .access_log import Facts, facts
from .conversations import Release
from .elsewhere import CANCEL, DELETE, OVER
from .event_log import EventLog
from .handler import Asker, Keep, TurnHandler
from .json_replies import request_id
from .storing import in_time

if TYPE_CHECKING:  # PostgreSQL is an extra
    from claudeproxy.store.shared import Shared

UNSTORED = 16
"""How many responses that are over, but could not be stored, are kept in memory."""


@define(eq=False)
class Running:
    """A background response. ``keep`` adds it to its conversation; ``release`` lets the next
    response of that conversation begin.

    ``begun`` fires once its beginning has been put into the store, with whether that worked.
    ``ended`` fires with its last event, which goes into ``log`` only after the store has been told
    of the end. ``there``: whether the store has it.
    """

    asker: Asker
    parsed: Responses
    stream: ResponsesStream
    keep: Keep | None
    release: Release
    log: EventLog = field(factory=EventLog)
    begun: Deferred[bool] = field(factory=Deferred)
    ended: Deferred[bytes] = field(factory=Deferred)
    there: bool = True
    cancelled: bool = False
    deleted: bool = False

    @property
    def ignored(self) -> tuple[str, ...]:
        """Fields of the request that its model cannot honour."""
        group = self.asker.told.group
        return () if group is None else group.ignored

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
    """The background responses of a daemon. The engine's limits hold for them as for other turns:
    how many there may be, and how long each may take."""

    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        handler: TurnHandler,
        store: ResponseTable,
        shared: Shared | None,
    ) -> None:
        """``shared``: how this node and others talk to each other; ``None`` if there are none."""
        self._reactor = reactor
        self._handler = handler
        self._store = store
        self._shared = shared
        self._responses: dict[str, Running] = {}
        if shared is not None:
            shared.news.heard.append(self._asked)
            shared.nodes.on_beat.append(self._store_again)

    async def start(
        self, request: Request, parsed: Responses, keep: Keep | None, release: Release
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
            await self._handler.ask(
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
        """The response so far. If it has ended, this waits until the store has been told."""
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

    async def delete(self, running: Running) -> None:
        """End a response, and delete it."""
        ident = str(running.stream.response["id"])
        running.deleted = True
        self.cancel(running)
        await running.log.whole()
        await self._store.delete(ident)
        self._forget(ident, True)
        self._tell_over(ident)

    async def settled(self) -> None:
        """Wait until those that have ended are stored, or cannot be."""
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
        node = None if self._shared is None else self._shared.nodes.node
        begun = evolve(running.stored(), node=node)
        running.begun.callback(await in_time(self._reactor, self._store.begin(begun), what))
        last = await running.ended
        if not running.deleted:
            whole = running.stored(b"".join([*running.log.events, last]))
            putting = in_time(self._reactor, self._store.put(whole), what)
            if running.keep is not None and running.stream.status in ("completed", "incomplete"):
                await running.keep(running.stream.response)
            running.there = await putting
        await running.release()
        running.log.add(last if running.there else unstored(last))
        running.log.end()
        if not running.deleted:
            self._forget(ident, running.there)
            self._tell_over(ident)
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

    # -- other nodes --

    def _asked(self, kind: str, what: dict[str, Any]) -> None:
        running = self._responses.get(what.get("id", ""))
        if running is not None and kind == CANCEL:
            self.cancel(running)
        elif running is not None and kind == DELETE:
            ensureDeferred(self.delete(running)).addErrback(self._failed)

    def _failed(self, why: Reason) -> None:
        if not why.check(StoreLost):  # otherwise it is tried again once the store is back
            self.log.failure("a background response was not deleted or stored", why)

    def _tell_over(self, ident: str) -> None:
        if self._shared is not None:
            self._shared.news.tell(OVER, {"id": ident})

    def _store_again(self) -> None:
        """The store answers again: store what could not be stored before. Until then, other nodes
        believe that it still runs."""
        for ident, running in list(self._responses.items()):
            ensureDeferred(self._again(ident, running)).addErrback(self._failed)

    async def _again(self, ident: str, running: Running) -> None:
        if running.deleted:
            await self.delete(running)
        elif running.log.ended:
            whole = running.stored(b"".join(running.log.events))
            with suppress(Exception):  # it is in the log already, and is tried again
                self._forget(ident, await self._store.put(whole))
                self._tell_over(ident)
