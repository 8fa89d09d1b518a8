"""What only the way over HTTP can meet: bytes cut anywhere, and servers that are no daemon."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from programs import free_port_number
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol

from claudeproxy.cli.lines import LineTooLong
from claudeproxy.client import ClaudeError, Kind, over_http
from claudeproxy.client.event_stream import EventStream
from claudeproxy.client.failures import STATUSES

DATA = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n")).map(str.encode)
NOISE = st.sampled_from([b": keep-alive\n", b"event: ping\n", b"id: 7\n", b"retry\n", b"\n"])


@given(st.lists(st.tuples(NOISE, DATA)), st.sampled_from([b"\n", b"\r\n"]), st.data())
def test_events_come_out_however_their_bytes_are_cut(
    events: list[tuple[bytes, bytes]], end: bytes, data: Any
) -> None:
    stream = b"".join(noise + b"data: " + said + b"\n\n" for noise, said in events)
    stream = stream.replace(b"\n", end)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    reader, got = EventStream(), []
    for begin, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        got += reader.feed(stream[begin:stop])
    assert got == [said for _, said in events]


def test_data_of_several_lines_is_one() -> None:
    assert EventStream().feed(b"data:a\ndata: b\ndata\n\nevent: x\n\n") == [b"a\nb\n"]


def test_a_line_without_end_is_not_kept_for_ever() -> None:
    reader = EventStream()
    with pytest.raises(LineTooLong):
        for _ in range(66):
            reader.feed(b"x" * (1 << 20))


def test_every_kind_has_a_status() -> None:
    assert set(STATUSES) == set(Kind)


# -- servers that are no daemon --


class Says(Protocol):
    """Replies to whatever comes with ``reply``, and closes."""

    reply = b""
    asked = 0

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        Says.asked += 1
        self.transport.write(self.reply)
        self.transport.loseConnection()


@pytest_twisted.async_yield_fixture
async def serve() -> Any:
    """``await serve(reply)``: the URL of a server that says so, whatever it is asked."""
    ports: list[Any] = []

    async def listen(reply: bytes) -> str:
        factory = Factory.forProtocol(type("Says", (Says,), {"reply": reply}))
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
        ports.append(port)
        return f"http://127.0.0.1:{port.getHost().port}"

    yield listen
    for port in ports:
        await port.stopListening()


def reply(status: str, body: bytes, kind: str = "application/json", *more: str) -> bytes:
    head = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *more]
    return "\r\n".join([*head, "", ""]).encode() + body


STREAM = "text/event-stream; charset=utf-8"
BUSY = b'{"type":"error","error":{"type":"overloaded_error","message":"busy"}}'
BEGUN = b'data: {"type":"message_start","message":{"id":"m","model":"x","usage":{}}}\n\n'


@pytest.mark.parametrize(
    ("said", "kind", "spent", "after", "told"),
    [
        (reply("502 Bad Gateway", b"<html>", "text/html"), Kind.UPSTREAM, False, None, "answered"),
        (reply("301 Moved", b"", "x", "Location: /"), Kind.INVALID, False, None, "answered 301"),
        (reply("413 Too Large", b""), Kind.TOO_LARGE, False, None, "answered 413"),
        (reply("405 No", b""), Kind.INVALID, False, None, "answered 405"),
        (reply("529 Busy", BUSY), Kind.OVERLOADED, False, None, "busy"),
        (reply("429 No", b"[]", "x", "Retry-After: 7"), Kind.RATE_LIMIT, False, 7.0, "answered"),
        (reply("500 No", b"{}", "x", "X-Should-Retry: false"), Kind.UPSTREAM, True, None, ""),
        (reply("200 OK", b"<html>", "text/html"), Kind.UPSTREAM, True, None, "not a claudemax"),
        (reply("200 OK", b"[]"), Kind.UPSTREAM, True, None, "not a claudemax"),
        (reply("200 OK", b'{"content":[{}]}'), Kind.UPSTREAM, True, None, "not a claudemax"),
        (reply("200 OK", b"data: x\n\n", STREAM), Kind.UPSTREAM, True, None, "not a claudemax"),
        (reply("200 OK", b"", STREAM), Kind.UNAVAILABLE, True, None, "was lost before the end"),
        (reply("200 OK", BEGUN, STREAM), Kind.UNAVAILABLE, True, None, "was lost before the end"),
        (reply("200 OK", BEGUN, STREAM)[:-9], Kind.UNAVAILABLE, True, None, "was lost"),
        (reply("200 OK", b"data: " + BUSY + b"\n\n", STREAM), Kind.UPSTREAM, True, None, "busy"),
        (reply("200 OK", b'{"content":[]}')[:-1], Kind.UNAVAILABLE, True, None, "was lost"),
        (reply("503 No", BUSY)[:-1], Kind.UNAVAILABLE, True, None, "was lost"),
        (b"", Kind.UNAVAILABLE, True, None, "was lost before the end"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", Kind.UNAVAILABLE, True, None, "was lost before the end"),
    ],
)  # fmt: skip
@ensureDeferred
async def test_what_is_no_answer_is_told(
    serve: Callable[[bytes], Any], said: bytes, kind: Kind, spent: bool, after: Any, told: str
) -> None:
    claude = over_http(await serve(said))
    before = Says.asked
    for asked in (claude.ask("Hi"), _all(claude)):
        with pytest.raises(ClaudeError) as caught:
            await asked
        error = caught.value
        assert (error.kind, error.spent, error.retry_after) == (kind, spent, after)
        assert told in str(error)
        assert "\n" not in str(error)
    assert Says.asked == before + 2  # nothing is asked again


async def _all(claude: Any) -> None:
    async for _ in claude.stream("Hi"):
        pass


@ensureDeferred
async def test_where_nobody_listens() -> None:
    url = f"http://127.0.0.1:{free_port_number()}"
    with pytest.raises(ClaudeError, match="start one with `claudemax`") as caught:
        await over_http(url).ask("Hi")
    assert (caught.value.kind, caught.value.spent) == (Kind.UNAVAILABLE, False)
    assert url in str(caught.value)
    with pytest.raises(ClaudeError, match="no daemon can be reached"):
        await over_http("http://no.such.host.invalid").ask("Hi")


def test_importing_it_installs_no_reactor() -> None:
    """Programs choose theirs, before or after."""
    code = "import sys, claudeproxy.client; sys.exit('twisted.internet.reactor' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_url_that_is_none() -> None:
    with pytest.raises(ValueError, match="is not a URL"):
        over_http("localhost:3456")
