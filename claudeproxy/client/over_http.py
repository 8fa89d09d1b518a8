"""Claude through a daemon somewhere else: the Messages API over HTTP."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from attrs import evolve
from treq.client import HTTPClient
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure as Reason
from twisted.web.client import RequestTransmissionFailed, ResponseDone, ResponseFailed
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent

from claudeproxy.cli.lines import LineTooLong
from claudeproxy.cli.names import ToolNames
from claudeproxy.cli.wire import MessageReader
from claudeproxy.messages import Event, Failure, Started

from . import failures
from .agent import make_agent
from .buffer import Buffer, Source
from .claude import Claude
from .event_stream import EventStream


def over_http(
    url: str = "http://127.0.0.1:3456",
    key: str | None = None,
    name: str = "claudemax-python",
    agent: IAgent | None = None,
) -> Claude:
    """Claude through the daemon at ``url``, with ``/v1`` behind it or without. It may be mounted
    below a path.

    ``key``: one of its ``--api-key-file``. ``name``: of the program, for the daemon's ledger.
    ``agent``: what connects, where that is through a proxy or a unix socket.

    There is no time limit besides the daemon's own: ``claude.ask(...).addTimeout(60, reactor)``.

    :raises ValueError: for a URL that is not one.
    """
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{url!r} is not a URL such as http://127.0.0.1:3456")
    if agent is None:
        from twisted.internet import reactor

        agent = make_agent(reactor)
    return OverHTTP(HTTPClient(agent), url.rstrip("/").removesuffix("/v1"), key, name)


class OverHTTP(Claude):
    """See :func:`over_http`."""

    def __init__(self, http: HTTPClient, url: str, key: str | None, name: str) -> None:
        self._http = http
        self._url = url
        self._headers = Headers({"content-type": ["application/json"], "user-agent": [name]})
        if key is not None:
            self._headers.setRawHeaders("x-api-key", [key])

    def _begin(self, asked: Mapping[str, Any], buffer: Buffer) -> Source:
        data = json.dumps(asked).encode()

        def post() -> Deferred[Any]:
            return self._http.post(
                f"{self._url}/v1/messages",
                data=data,
                headers=self._headers,
                unbuffered=True,
                allow_redirects=False,  # which would make a GET of it, and tell the key elsewhere
            )

        return _Exchange(self._url, post, buffer)


class _Exchange:
    """One request and its reply."""

    log = Logger()

    def __init__(self, url: str, post: Callable[[], Deferred[Any]], buffer: Buffer) -> None:
        self._url = url
        self._buffer = buffer
        self._body: _Body | None = None
        self._model: str | None = None
        self._stopped = False
        self._reader = MessageReader(ToolNames.of((), plain=True))
        self._events = EventStream()
        self._running = ensureDeferred(self._run(post))
        self._running.addErrback(self._broke)

    # -- Source --

    def pause(self) -> None:
        if self._body is not None:
            self._body.pause()

    def resume(self) -> None:
        if self._body is not None:
            self._body.resume()

    def stop(self) -> None:
        self._stopped = True
        self._running.cancel()

    # --

    async def _run(self, post: Callable[[], Deferred[Any]]) -> None:
        try:
            await self._exchange(post)
        except (ConnectError, DNSLookupError) as error:
            self._fail(failures.unreachable(self._url, error))
        except (ResponseFailed, RequestTransmissionFailed) as error:
            self._fail(failures.broken_off(self._url, error.reasons[0].value))
        if not self._buffer.ended:
            self._fail(failures.broken_off(self._url))

    async def _exchange(self, post: Callable[[], Deferred[Any]]) -> None:
        response = await post()

        def header(name: str) -> str | None:
            values: list[str] | None = response.headers.getRawHeaders(name)
            return values[0] if values else None

        self._model = header("x-claudemax-model")
        if response.code != 200:
            whole = await self._read(response)
            self._fail(failures.refusal(self._url, response.code, whole, header))
        elif (header("content-type") or "").startswith("text/event-stream"):
            await self._read(response, self._streamed)
        else:
            self._whole(await self._read(response))

    async def _read(self, response: Any, receive: Callable[[bytes], object] | None = None) -> bytes:
        """The body, which goes to ``receive`` instead if there is one."""
        parts: list[bytes] = []
        self._body = _Body(receive or parts.append)
        response.deliverBody(self._body)
        await self._body.done
        return b"".join(parts)

    def _streamed(self, data: bytes) -> None:
        burst: list[Event] = []
        try:
            for one in self._events.feed(data):
                burst += self._event(json.loads(one))
        except (ValueError, LookupError, TypeError, LineTooLong):
            burst.append(failures.no_daemon(self._url))
        self._buffer.events(burst)

    def _whole(self, data: bytes) -> None:
        burst: list[Event] = []
        try:
            for one in _as_stream(json.loads(data)):
                burst += self._event(one)
        except (ValueError, LookupError, TypeError, AttributeError):
            burst.append(failures.no_daemon(self._url))
        self._buffer.events(burst)

    def _event(self, event: Mapping[str, Any]) -> list[Event]:
        if event["type"] == "error":
            return [failures.in_mid_stream(event["error"])]
        if event["type"] == "message_stop":
            return [self._reader.finished()]
        return [self._named(one) for one in self._reader.event(event)]

    def _named(self, event: Event) -> Event:
        """With the model that has answered; the API tells the one that was asked."""
        if isinstance(event, Started) and self._model is not None:
            return evolve(event, model=self._model)
        return event

    def _fail(self, failure: Failure) -> None:
        self._buffer.events([failure])

    def _broke(self, why: Reason) -> None:
        if not self._stopped:  # otherwise it is one of the ways in which requests tell that
            self.log.failure("a reply broke", why)
            self._fail(failures.no_daemon(self._url))


class _Body(Protocol):
    """Receives a body, and stops it when :attr:`done` is cancelled."""

    transport: Any

    def __init__(self, receive: Callable[[bytes], object]) -> None:
        self._receive = receive
        self.done: Deferred[None] = Deferred(self._stop)
        """Fires at its end, or fails with :class:`ResponseFailed`."""

    def dataReceived(self, data: bytes) -> None:
        if not self.done.called:
            self._receive(data)

    def connectionLost(self, reason: Reason = connectionDone) -> None:
        if self.done.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):  # the latter: of unknown length
            self.done.callback(None)
        else:
            self.done.errback(reason)

    def pause(self) -> None:
        self.transport.pauseProducing()

    def resume(self) -> None:
        self.transport.resumeProducing()

    def _stop(self, done: Deferred[None]) -> None:
        self.transport.resumeProducing()  # TLS says goodbye first
        self.transport.loseConnection()


def _as_stream(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A message that came whole, as the events of one that is streamed."""
    yield {"type": "message_start", "message": message}
    for index, block in enumerate(message["content"]):
        yield {"type": "content_block_start", "index": index, "content_block": block}
        if block["type"] == "tool_use":
            delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    yield {"type": "message_delta", "delta": message, "usage": message["usage"]}
    yield {"type": "message_stop"}
