"""Responses over a WebSocket: one turn after another, and the last one is remembered."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Awaitable
from typing import Any, Protocol
from uuid import uuid4

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.server import Request

from claudeproxy.dialects.responses import Responses, refusal
from claudeproxy.dialects.responses_input import Item, Past
from claudeproxy.dialects.responses_replay import replay
from claudeproxy.engine.engine import TurnGroup
from claudeproxy.messages import Event, Failure, FailureError, Finished, Kind
from claudeproxy.store.database import StoreLost

from .access_log import Facts
from .bodies import parse_json
from .conversations import Release
from .fairness import TimeSlice
from .handler import Asker, Keep, TurnHandler
from .json_replies import Collected, failure_headers
from .refused import field_names
from .storing import LOST
from .websocket import AWAY, WebSocket

LIFETIME = 3600.0
"""Seconds for which a connection may be used, as at OpenAI."""

WAITING = 4
"""Messages that may wait for the turn before them."""

_METHOD = b"WS"
"""What the access log has in place of a method."""


class API(Protocol):
    """What is needed of the Responses API; see there."""

    async def begin(self, body: Any, key: str | None) -> Release:
        """A response begins."""

    def past(self, body: Any, key: str | None) -> Awaitable[Past | None]:
        """What is stored of what a body refers to."""

    def read(self, body: Any, request_id: str, past: Past | None) -> Responses:
        """A body, read."""

    def keep(self, parsed: Responses, key: str | None, release: Release) -> Keep | None:
        """What keeps the response."""


@frozen
class Last:
    """The last response of a connection, and all items up to its end. ``size``: bytes of them."""

    ident: str
    items: tuple[Item, ...]
    size: int


class ResponsesSocket:
    """A connection and its turns."""

    log = Logger()

    def __init__(
        self, reactor: IReactorTime, request: Request, handler: TurnHandler, api: API
    ) -> None:
        self._reactor = reactor
        self._request = request
        self._handler = handler
        self._api = api
        self._socket = WebSocket(reactor, request)
        self._opened = reactor.seconds()
        self._last: Last | None = None
        self._waiting: deque[str] = deque()
        self._turn: Deferred[None] | None = None
        self._group: TurnGroup | None = None
        self._paused = False
        self._closing: str | None = None

    def open(self) -> None:
        """Accept."""
        self._socket.open(self)

    # -- Listener --

    def heard(self, text: str) -> None:
        """A message, which asks for a turn."""
        if self._turn is None:
            self._begin(text)
        elif len(self._waiting) < WAITING:
            self._waiting.append(text)
        else:
            why = f"{WAITING} messages wait already: there is one turn at a time"
            self._refuse(Failure(Kind.RATE_LIMIT, why, 429, code="websocket_queue_full"))

    def pause(self) -> None:
        """The client does not read."""
        self._paused = True
        if self._group is not None:
            self._group.pause()

    def resume(self) -> None:
        """The client reads again."""
        self._paused = False
        if self._group is not None:
            self._group.resume()

    def drain(self) -> None:
        """The daemon stops: no turn but the running one."""
        self._closing = "the daemon is stopping"
        self._waiting.clear()
        if self._turn is None:
            self._socket.close(AWAY, self._closing)

    def lost(self) -> None:
        """The client has left, or the connection is closed."""
        self._waiting.clear()
        if self._turn is not None:
            self._turn.cancel()

    # -- turns --

    def _begin(self, text: str) -> None:
        told = Facts(began=self._reactor.seconds(), body_bytes=len(text.encode()))
        asker = Asker(f"req_{uuid4().hex}", self._request.requestHeaders, told)
        self._turn = ensureDeferred(self._serve(asker, text))
        self._turn.addErrback(self._broke)
        self._turn.addBoth(lambda _: self._ended())

    def _ended(self) -> None:
        self._turn = None
        if self._closing is not None:
            self._socket.close(AWAY, self._closing)
        elif self._waiting:
            self._begin(self._waiting.popleft())

    def _broke(self, why: Any) -> None:
        if not why.check(CancelledError):
            self.log.failure("a turn broke", why)
            self._refuse(Failure(Kind.UPSTREAM, "the daemon failed; its log says why", 500))

    async def _serve(self, asker: Asker, text: str) -> None:
        told, before = asker.told, self._socket.sent
        left = refused = False
        status, previous = 200, None
        release: Release | None = None
        try:
            time_slice = TimeSlice(self._reactor)
            body = self._body(asker, text)
            await time_slice.give_way()
            previous = body.get("previous_response_id")
            release = await self._api.begin(body, told.key)
            parsed = self._api.read(body, asker.ident, await self._past(body, told.key))
            await time_slice.give_way()
            if parsed.background:
                raise FailureError.invalid("background: not over a WebSocket", "background")
            keep = self._api.keep(parsed, told.key, release)
            if body.get("generate") is False:
                if keep is not None:
                    await keep(parsed.envelope.response("completed"))
                response: dict[str, Any] | None = parsed.envelope.response("completed")
                self._send(replay(parsed.envelope.response("completed")))
            else:
                response = await self._answer(asker, parsed, keep)
            if response is not None:
                self._remember(parsed, response)
        except (FailureError, StoreLost) as error:
            told.failure = error.failure if isinstance(error, FailureError) else LOST
            refused = True
            self._refuse(told.failure)
        except CancelledError:
            left = True
            raise
        finally:
            if release is not None:
                release()
            if told.failure is not None:
                status = refusal(told.failure)[0]
                if self._last is not None and self._last.ident == previous:
                    self._last = None
            path, sent = self._request.path, self._socket.sent - before
            self._handler.over(asker, _METHOD, path, status, sent, left=left, refused=refused)

    def _body(self, asker: Asker, text: str) -> dict[str, Any]:
        """The body that a message holds.

        :raises FailureError: when there is none, or the sender is not let in any more.
        """
        if self._reactor.seconds() - self._opened > LIFETIME:
            why = "a connection may be used for 60 minutes: open another one"
            code = "websocket_connection_limit_reached"
            self._closing = why
            raise FailureError(Failure(Kind.INVALID, why, 400, code=code))
        asker.told.key = self._handler.admitted(self._request)
        body = parse_json(text.encode())
        if not isinstance(body, dict):
            raise FailureError.invalid("a message must be an object")
        asker.told.fields = field_names(body)
        kind = body.pop("type", None)
        if kind != "response.create":
            raise FailureError.invalid("type: must be response.create", "type")
        # Those are of HTTP.
        return {**body, "stream": True, "stream_options": None}

    async def _past(self, body: dict[str, Any], key: str | None) -> Past | None:
        last = self._last
        if last is None or body.get("previous_response_id") != last.ident:
            return await self._api.past(body, key)
        past = await self._api.past({**body, "previous_response_id": None}, key)
        known = {item["id"]: item for item in last.items if "id" in item}
        if past is None:
            return Past(last.items, known, stores=False)
        return Past(last.items, {**past.items, **known})

    def _remember(self, parsed: Responses, response: dict[str, Any]) -> None:
        last, said = self._last, [*parsed.items, *response["output"]]
        before = last if last is not None and last.ident == parsed.previous else None
        size = len(json.dumps(said)) + (before.size if before is not None else 0)
        history = (*parsed.history, *said)
        self._last = None
        if size <= self._handler.max_body:
            self._last = Last(str(response["id"]), history, size)

    async def _answer(
        self, asker: Asker, parsed: Responses, keep: Keep | None
    ) -> dict[str, Any] | None:
        """The response, once it is kept and all of it is sent; ``None`` if it has failed.

        :raises FailureError: when it has failed before anything was sent.
        """
        stream, told, collected = parsed.stream(), asker.told, Collected(1)
        end: list[Event] = []

        def sink(_: int, events: list[Event]) -> None:
            told.heard(events, self._reactor.seconds())
            if not (isinstance(events[-1], Failure) and stream.status == "queued"):
                last = isinstance(events[-1], Finished)
                end[:] = events[-1:] if last else []
                self._send(stream.render(0, events[:-1] if last else events))
            collected.events(0, events)

        group = await self._handler.ask(asker, "responses", parsed, sink)
        self._group = group
        if self._paused:
            group.pause()
        try:
            await collected.done
        finally:
            self._group = None
            group.cancel()
            told.placement, told.failure = group.placement, collected.failure
        if told.failure is not None:
            if stream.status == "queued":
                raise FailureError(told.failure)
            return None
        if keep is not None:
            await keep(parsed.complete(collected.answers()))
        self._send(stream.render(0, end))
        return stream.response

    def _send(self, events: bytes) -> None:
        for event in events.decode().split("\n\n"):
            data = event.partition("data: ")[2]
            # After `response.failed` a stream over HTTP has an error, too. Here that would be read
            # as of the turn that comes next.
            if data and not event.startswith("event: error\n"):
                self._socket.send(data)

    def _refuse(self, failure: Failure) -> None:
        status, body = refusal(failure)
        error = body["error"]
        told = {"type": "error", "status": status}
        headers = failure_headers(failure)
        if headers:
            told["headers"] = headers
        error["code"] = error["code"] or error["type"]
        self._socket.send(json.dumps({**told, **body}))
