"""The Responses API: the endpoints below ``/v1/responses``."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.web.server import Request

from claudeproxy.dialects import compaction, responses, responses_items
from claudeproxy.dialects.responses import Responses
from claudeproxy.dialects.responses_input import Past
from claudeproxy.engine.engine import Engine
from claudeproxy.messages import Failure, FailureError, Kind
from claudeproxy.store.responses import Stored
from claudeproxy.store.store import Store

from . import affinity, stored_responses
from .access_log import facts
from .background import Background
from .bodies import read_json
from .conversations import Conversing, Release
from .elsewhere import CANCEL, DELETE, Elsewhere
from .event_log import EventLog, Follower
from .fairness import TimeSlice, no_collector
from .handler import Keep, TurnHandler
from .json_replies import refuse, reply, request_id
from .responses_socket import ResponsesSocket
from .routing import below_v1, make_app, queried
from .storing import LOST, in_time

if TYPE_CHECKING:  # PostgreSQL is an extra
    from claudeproxy.store.shared import Shared

MAX_EVENT = 10**9 - 1
"""The largest number of an event that can be asked for."""

_app = make_app()
_ONE = "/responses/<ident>"


class ResponsesAPI:
    """The endpoints, over one engine. ``store``: ``None`` to keep nothing; ``shared``: what the
    node has together with others, ``None`` without any."""

    app = _app

    def __init__(
        self,
        reactor: IReactorTime,
        engine: Engine,
        handler: TurnHandler,
        store: Store | None,
        shared: Shared | None,
    ) -> None:
        self._reactor = reactor
        self._engine = engine
        self._handler = handler
        self._store = store
        if store is not None:
            leases = None if shared is None else shared.leases
            self._conversing = Conversing(reactor, store.conversations, leases)
            self._background = Background(reactor, handler, store.responses, shared)
            self._elsewhere = Elsewhere(reactor, store.responses, shared)

    @below_v1(_app, "/responses", "POST")
    async def create(self, request: Request) -> bytes:
        """A response: streamed, complete or in the background; stored unless that is not wanted or
        possible."""
        time_slice = TimeSlice(self._reactor)
        body, key = read_json(request), facts(request).key
        await time_slice.give_way()
        release = await self.begin(body, key)
        try:
            past = await self.past(body, key)
            parsed = self.read(body, request_id(request), past)
            await time_slice.give_way()
            if parsed.dropped:
                request.setHeader(b"x-claudemax-truncated", str(parsed.dropped).encode())
            keep = self.keep(parsed, key, release)
            if not parsed.background:
                return await self._handler.serve(request, "responses", parsed, keep)
            try:
                running = await self._background.start(request, parsed, keep, release)
            except FailureError as error:
                return refuse(request, error.failure, parsed.refusal)
            release = _nothing
        finally:
            release()
        ignored = (*parsed.ignored, *affinity.name(request), *running.ignored)
        response = running.response
        if not await running.begun:
            ignored, response = (*ignored, "store"), {**response, "store": False}
        if ignored:
            request.setHeader(b"x-claudemax-ignored", ", ".join(ignored).encode())
        if parsed.request.stream:
            return await Follower(self._reactor, request, running.log, 0).serve()
        return reply(request, response)

    async def settled(self) -> None:
        """All that has ended is stored, or cannot be."""
        if self._store is not None:
            await self._background.settled()

    def socket(self, request: Request) -> None:
        """Responses over a WebSocket, as long as ``request`` is open."""
        closed = self._engine.admission.closed
        if closed is not None:
            request.write(refuse(request, closed))
            request.finish()
            return
        ignored = affinity.name(request)
        if ignored:
            request.setHeader(b"x-claudemax-ignored", ", ".join(ignored).encode())
        ResponsesSocket(self._reactor, request, self._handler, self).open()

    async def begin(self, body: Any, key: str | None) -> Release:
        """A response begins; its end is to be called.

        :raises FailureError: 409, when another one of its conversation has not ended.
        """
        conversation = responses.references(body).conversation
        if conversation is None or self._store is None:
            return _nothing
        return await self._conversing.begin(conversation, key)

    async def past(self, body: Any, key: str | None) -> Past | None:
        """What is stored of what a body refers to. ``None`` without a store, and while that does
        not answer.

        :raises FailureError: 503, when the body needs one that does not answer.
        """
        wanted = responses.references(body)
        if self._store is None or not self._store.lost:
            return await stored_responses.past(self._store, wanted, key)
        if wanted:
            raise FailureError(LOST)
        return None

    def read(self, body: Any, request_id: str, past: Past | None) -> Responses:
        """A body, read.

        :raises FailureError: 400 with the path of the field at fault.
        """
        ident, now = request_id.removeprefix("req_"), _now()
        with no_collector():
            return responses.read(body, ident, now, past, _now, self._context)

    def keep(self, parsed: Responses, key: str | None, release: Release) -> Keep | None:
        """What keeps the response, in the store and its conversation; ``None`` if nothing does.
        ``release``: from :meth:`begin`."""
        store, conversation = self._store, parsed.conversation
        if store is None or not (parsed.keep or conversation):
            return None

        async def keep(response: dict[str, Any]) -> tuple[str, ...]:
            waiting = {}
            if parsed.keep and not parsed.background:
                stored = Stored(response, parsed.items, parsed.previous, key)
                waiting["store"] = in_time(self._reactor, store.responses.put(stored), "a response")
            if conversation:
                waiting["conversation"] = self._conversing.keep(
                    conversation, response, parsed.items, key, release
                )
            lost = tuple([name for name, there in waiting.items() if not await there])
            if "store" in lost:
                parsed.envelope.forget()
            return lost

        return keep

    @below_v1(_app, "/responses/compact", "POST")
    async def compact(self, request: Request) -> bytes:
        """A summary of a conversation, by the model that is named."""
        body, key = read_json(request), facts(request).key
        past = await self.past(body, key)
        ident = request_id(request).removeprefix("req_")
        parsed = compaction.read(body, ident, _now(), past)
        return await self._handler.serve(request, "responses", parsed)

    @below_v1(_app, "/responses/input_tokens", "POST")
    async def count(self, request: Request) -> bytes:
        """An estimate: see :func:`~claudeproxy.dialects.responses.count`."""
        body, key = read_json(request), facts(request).key
        past = await self.past(body, key)
        model, tokens = responses.count(body, past)
        try:
            if model is not None:
                self._engine.catalogue.resolve(model)
        except FailureError as error:
            return refuse(request, error.failure, responses.refusal)
        request.setHeader(b"x-claudemax-estimate", b"true")
        return reply(request, {"object": "response.input_tokens", "input_tokens": tokens})

    # -- stored ones, and those that run --

    @below_v1(_app, _ONE, "GET")
    async def retrieve(self, request: Request, ident: str) -> bytes:
        """A response, or the events that have made it."""
        query, key = queried(request), facts(request).key
        first = _first(query)
        running = None if self._store is None else self._background.find(ident, key)
        if running is not None:
            if first is None:
                return reply(request, await self._background.told(running))
            return await Follower(self._reactor, request, running.log, first).serve()
        found = await self._stored(ident, key)
        if first is None:
            return reply(request, found.response)
        if not found.running:
            log = EventLog(await self._elsewhere.events(found), ended=True)
            return await Follower(self._reactor, request, log, first).serve()
        log = EventLog()
        filling = ensureDeferred(self._elsewhere.fill(log, ident, key))
        filling.addErrback(lambda why: why.trap(CancelledError))
        try:
            return await Follower(self._reactor, request, log, first).serve()
        finally:
            filling.cancel()

    @below_v1(_app, f"{_ONE}/cancel", "POST")
    async def cancel(self, request: Request, ident: str) -> bytes:
        """End a background response. One that is over is told as it is."""
        key = facts(request).key
        running = None if self._store is None else self._background.find(ident, key)
        if running is not None:
            self._background.cancel(running)
            return reply(request, await self._background.told(running))
        found = await self._stored(ident, key)
        if not found.response.get("background"):
            why = f"the response {ident[:100]!r} does not run in the background"
            raise FailureError.invalid(why, "response_id")
        if found.running:
            found = self._found(await self._elsewhere.ask(CANCEL, ident, key), ident)
        return reply(request, found.response)

    @below_v1(_app, f"{_ONE}/input_items", "GET")
    async def input_items(self, request: Request, ident: str) -> bytes:
        """The input of a stored response, including the responses before it."""
        items = await stored_responses.input_items(self._store, ident, facts(request).key)
        if items is None:
            raise self._not_found(ident)
        return reply(request, responses_items.page(items, queried(request)))

    @below_v1(_app, _ONE, "DELETE")
    async def delete(self, request: Request, ident: str) -> bytes:
        """Delete a stored response. One that runs is ended."""
        key = facts(request).key
        running = None if self._store is None else self._background.find(ident, key)
        if running is not None:
            await self._background.delete(running)
            return _deleted(request, ident)
        found: Stored | None = await self._stored(ident, key)
        if found is not None and found.running:
            found = await self._elsewhere.ask(DELETE, ident, key)
        if found is not None and self._store is not None:
            await self._store.responses.delete(ident, key)
        return _deleted(request, ident)

    async def _stored(self, ident: str, key: str | None) -> Stored:
        """One that does not run here."""
        there = self._store is not None
        return self._found(await self._elsewhere.get(ident, key) if there else None, ident)

    def _found(self, found: Stored | None, ident: str) -> Stored:
        if found is None:
            raise self._not_found(ident)
        return found

    def _not_found(self, ident: str) -> FailureError:
        why = "" if self._store else " This server runs with --no-store."
        message = f"Response with id {ident[:100]!r} not found.{why}"
        return FailureError(Failure(Kind.NOT_FOUND, message, 404))

    def _context(self, model: str) -> int:
        """The tokens that a model reads; of one that does not exist, the engine will tell."""
        known = self._engine.catalogue
        try:
            return known.context_tokens(known.resolve(model))
        except FailureError:
            return sys.maxsize


def _first(query: Mapping[str, str]) -> int | None:
    """The number of the first event that is wanted; ``None`` if events are not."""
    wanted, after = query.get("stream", "false").lower(), query.get("starting_after")
    if wanted not in ("true", "false"):
        raise FailureError.invalid("stream: must be true or false", "stream")
    if after is not None and not re.fullmatch(r"[0-9]{1,9}", after, re.ASCII):
        raise FailureError.invalid(
            "starting_after: must be the sequence number of an event", "starting_after"
        )
    if wanted == "false":
        return None
    return 0 if after is None else int(after) + 1


def _deleted(request: Request, ident: str) -> bytes:
    return reply(request, {"id": ident, "object": "response", "deleted": True})


def _nothing() -> Deferred[None]:
    """There is nothing to release."""
    return succeed(None)


def _now() -> int:
    return int(time.time())
