"""Playing steps to a client: as a stream of server-sent events, or as one message."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any
from uuid import uuid4

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.internet.task import deferLater
from twisted.web.server import Request
from zope.interface import implementer

from claudeproxy.demo.fold import message
from claudeproxy.demo.steps import ApiError, Drop, Event, Hang, Header, Step, Wait

_BURST = 64 * 1024


async def stream(
    reactor: IReactorTime, request: Request, steps: Iterable[Step], headers: Iterable[Header] = ()
) -> None:
    """Write the events of the steps, all between two waits in one write (of 64 KiB at most).

    ``headers``: of the reply, unless it is an error. Obeys the client's backpressure, so `steps`
    may be endless. Cancelling ends it.
    """
    request_id = _identify(request)
    tap = _Tap()
    request.registerProducer(tap, True)
    burst = bytearray()
    started = False

    async def flush(seconds: float) -> None:
        request.write(bytes(burst))
        burst.clear()
        await deferLater(reactor, seconds)
        await tap.open()

    try:
        for step in steps:
            if isinstance(step, Header):
                request.setHeader(step.name, step.value)
            elif isinstance(step, Wait):
                await (flush(step.seconds) if started else deferLater(reactor, step.seconds))
            elif isinstance(step, ApiError) and not started:
                respond_error(request, step)
                return
            elif isinstance(step, (Drop, Hang)):
                if started:
                    await flush(0)
                await _end(request, step)
            else:
                if not started:
                    _set(request, headers)
                    request.setHeader("content-type", "text/event-stream; charset=utf-8")
                    request.setHeader("cache-control", "no-cache")
                    started = True
                burst += _sse(step.body(request_id) if isinstance(step, ApiError) else step)
                if len(burst) > _BURST:
                    await flush(0)
        request.write(bytes(burst))
    finally:
        if request.channel is not None:
            request.unregisterProducer()


async def play_complete(
    reactor: IReactorTime, request: Request, steps: Iterable[Step], headers: Iterable[Header] = ()
) -> None:
    """Write the message that the events of the steps add up to; ``headers`` as for ``stream``."""
    events: list[Event] = []
    for step in steps:
        if isinstance(step, Header):
            request.setHeader(step.name, step.value)
        elif isinstance(step, Wait):
            await deferLater(reactor, step.seconds)
        elif isinstance(step, ApiError):
            respond_error(request, step)
            return
        elif isinstance(step, (Drop, Hang)):
            await _end(request, step)
        else:
            events.append(step)
    _set(request, headers)
    respond(request, 200, message(events))


def _set(request: Request, headers: Iterable[Header]) -> None:
    for header in headers:
        request.setHeader(header.name, header.value)


def respond(request: Request, status: int, body: Mapping[str, Any]) -> None:
    """Write a JSON response."""
    _identify(request)
    data = json.dumps(body).encode()
    request.setResponseCode(status)
    request.setHeader("content-type", "application/json")
    request.setHeader("content-length", str(len(data)))
    request.write(data)


def respond_error(request: Request, error: ApiError) -> None:
    """Write an error in the API's shape, with its headers."""
    for name, value in error.headers:
        request.setHeader(name, value)
    respond(request, error.status, error.body(_identify(request)))


@implementer(IPushProducer)
class _Tap:
    """Shut while the client's socket takes no more bytes."""

    def __init__(self) -> None:
        self._opened: Deferred[None] | None = None

    async def open(self) -> None:
        """Wait until the client takes bytes."""
        if self._opened is not None:
            await self._opened

    def pauseProducing(self) -> None:
        self._opened = Deferred()

    def resumeProducing(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.callback(None)

    def stopProducing(self) -> None:
        """Nothing: klein cancels the handler when the client goes."""


async def _end(request: Request, step: Drop | Hang) -> None:
    if isinstance(step, Drop):
        request.channel.loseConnection()
    await Deferred()


def _sse(event: Event) -> bytes:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def _identify(request: Request) -> str:
    """The id of the response, in its headers, made when first asked for."""
    known: bytes | None = request.responseHeaders.getRawHeaders(b"request-id", [None])[0]
    if known is not None:
        return known.decode("ascii")
    request_id = f"req_{uuid4().hex}"
    request.setHeader("request-id", request_id)
    return request_id
