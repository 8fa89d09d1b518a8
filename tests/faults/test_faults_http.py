"""Clients that do not speak HTTP as they should: raw sockets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from harness import Daemon, start_daemon, stop_daemon, until
from matrix import all_is_well, cases, fault
from pytest_twisted import ensureDeferred
from raw import BODY, connect, head, post, sized
from twisted.internet import defer, reactor
from twisted.internet.task import deferLater

from claudeproxy.testing import fake_cli, journal
from claudeproxy.web import site

CHUNKED = b"Transfer-Encoding: chunked"
AS_CHUNKS = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
SMUGGLED = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def double(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    home = tmp_path_factory.mktemp("double")
    starting = start_daemon(home, claude=fake_cli(home / "cli"), max_body=1_000_000)
    daemon = pytest_twisted.blockon(defer.ensureDeferred(starting))
    yield daemon
    pytest_twisted.blockon(defer.ensureDeferred(stop_daemon(daemon)))


def turns(daemon: Daemon) -> int:
    """How many questions have reached a CLI."""
    return journal(daemon.api.cli.executable).count("turn")


@cases(
    "client",
    ("sends both lengths", "400, closed", head(sized(), CHUNKED) + AS_CHUNKS + SMUGGLED),
    ("sends both lengths, chunked first", "400, closed",
     head(CHUNKED, sized()) + AS_CHUNKS + SMUGGLED),
    ("sends two lengths", "400, closed", head(b"Content-Length: 0", sized()) + BODY + SMUGGLED),
    ("sends the same length twice", "400, closed", head(sized(), sized()) + BODY),
    ("sends a list of lengths", "400, closed", head(b"Content-Length: 61, 61") + BODY),
    ("sends a length with a sign", "400, closed", head(b"Content-Length: +61") + BODY),
    ("sends a negative length", "400, closed", head(b"Content-Length: -1") + BODY),
    ("sends a hexadecimal length", "400, closed", head(b"Content-Length: 0x3d") + BODY),
    ("sends a length of digits that are no ASCII", "400, closed",
     head("Content-Length: ٦١".encode()) + BODY),
    ("sends an empty length", "400, closed", head(b"Content-Length:") + BODY + SMUGGLED),
    ("sends an unknown transfer encoding", "400, closed",
     head(b"Transfer-Encoding: xchunked") + AS_CHUNKS),
    ("sends chunked and identity", "400, closed",
     head(b"Transfer-Encoding: chunked, identity") + AS_CHUNKS),
    ("sends chunked twice", "400, closed",
     head(b"Transfer-Encoding: chunked, chunked") + AS_CHUNKS),
    ("sends two transfer encodings", "400, closed",
     head(CHUNKED, b"Transfer-Encoding: identity") + AS_CHUNKS),
    ("sends a chunk size that is no number", "400, closed",
     head(CHUNKED) + b"zz\r\nx\r\n0\r\n\r\n"),
    ("sends a negative chunk size", "400, closed", head(CHUNKED) + b"-1\r\nx\r\n0\r\n\r\n"),
    ("sends a chunk size with 0x", "400, closed", head(CHUNKED) + b"0x3d\r\n" + BODY),
    ("sends an endless chunk size", "400, closed", head(CHUNKED) + b"1" * 5000),
    ("sends a chunk longer than its size", "400, closed",
     head(CHUNKED) + b"1\r\nxyz\r\n0\r\n\r\n"),
    ("sends a chunk extension with a newline", "400, closed",
     head(CHUNKED) + b"3d;a=\n\r\n" + BODY + b"\r\n0\r\n\r\n"),
    ("folds a header line", "400, closed", head(b"X-A: a\r\n  folded", sized()) + BODY),
    ("folds the length", "400, closed", head(b"Content-Length:\r\n 61") + BODY),
    ("sends a space before the colon", "400, closed", head(b"Content-Length : 61") + BODY),
    ("sends a header without a name", "400, closed", head(b": x", sized()) + BODY),
    ("sends a header without a colon", "400, closed", head(b"nonsense", sized()) + BODY),
    ("sends NUL in a header", "400, closed", head(b"X-A: a\0b", sized()) + BODY),
    ("sends CR in a header", "400, closed", head(b"X-A: a\rContent-Length: 0", sized()) + BODY),
    ("sends LF in a header", "400, closed", head(b"X-A: a\nContent-Length: 0", sized()) + BODY),
    ("sends NUL in the request line", "400, closed",
     b"GET /\0 HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    ("sends a request line of one word", "400, closed", b"nonsense\r\n\r\n"),
    ("sends a request line of four words", "400, closed", b"GET / x HTTP/1.1\r\n\r\n"),
    ("speaks HTTP/2", "400, closed", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ("speaks TLS", "400, closed", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
    ("sends a request line of 1 MB", "400, closed",
     b"GET /" + b"x" * 1_000_000 + b" HTTP/1.1\r\n\r\n"),
    ("sends a header of 1 MB", "400, closed", head(b"X-A: " + b"x" * 1_000_000)),
    ("sends 10,000 headers", "400, closed", head(*[b"X-A: x"] * 10_000)),
    ("sends a path that is no UTF-8", "400, closed",
     b"GET /v1/models/%ff HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    ("sends headers that are no text", "403, closed",
     b"GET /health HTTP/1.1\r\nHost: \xff\r\nOrigin: \xff\r\nAuthorization: \xff\r\n\r\n", 403),
    ("names a user in its target", "403, closed",
     b"GET http://localhost:x@evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 403),
    ("names a host in its target and none in its head", "403, closed",
     b"GET http://localhost/health HTTP/1.1\r\n\r\n", 403),
    ("names another host in its target", "403, closed",
     b"GET http://evil.example/health HTTP/1.1\r\nHost: localhost\r\n\r\n", 403),
    ("sends no host", "403, closed", b"GET /health HTTP/1.1\r\n\r\n", 403),
    ("sends a host that ends in two dots", "403, closed",
     b"GET /health HTTP/1.1\r\nHost: localhost..\r\n\r\n", 403),
    ("sends an asterisk for a target", "400, closed",
     b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    ("asks for a tunnel", "400, closed",
     b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    ("sends two hosts", "403, closed",
     b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", 403),
    ("declares more than the limit", "413 before the body, closed",
     head(b"Content-Length: 1000001"), 413),
    ("declares a length of 5,000 digits", "400, closed",
     head(b"Content-Length: " + b"9" * 5000)),
    ("sends chunks past the limit", "413, closed",
     head(CHUNKED) + b"fffff\r\n" + b"x" * 0xFFFFF, 413),
    ("expects 100-continue with too large a body", "413 and no 100, closed",
     head(b"Content-Length: 1000001", b"Expect: 100-continue"), 413),
)  # fmt: skip
@ensureDeferred
async def test_the_request_is_refused(
    double: Daemon, monkeypatch: pytest.MonkeyPatch, case: Any
) -> None:
    """At once, with one reply, and nothing of it reaches a route."""
    monkeypatch.setattr(site, "LINGER_SECONDS", 0.05)
    data, status = case if len(case) == 2 else (case[0], 400)
    asked, others = turns(double), set(double.api.site.channels)
    client = await connect(double.port[0])
    client.write(data)
    await client.closed()
    assert client.statuses == [status], client.got[:300]
    assert b'{"error":{"message":' in client.got
    assert turns(double) == asked
    assert double.api.site.channels <= others
    await all_is_well(double)


@fault("client", "ends its lines with LF alone", "408 at the head's deadline, closed")
@ensureDeferred
async def test_bare_newlines(double: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "HEADER_SECONDS", 0.3)
    monkeypatch.setattr(site, "LINGER_SECONDS", 0.05)
    client = await connect(double.port[0])
    client.write(b"GET /health HTTP/1.1\nHost: localhost\n\n")
    await client.closed()
    assert client.statuses == [408], client.got
    await all_is_well(double)


@cases(
    "client",
    ("connects and is silent", "closed at the idle deadline", b"", []),
    ("sends half a request line, then is silent", "408 at the head's deadline, closed",
     b"POST /v1", [408]),
    ("sends half a head, then is silent", "408 at the head's deadline, closed",
     head(sized())[:-4], [408]),
    ("sends half a body, then is silent", "408 at the body's deadline, closed",
     post()[:-5], [408]),
    ("sends half a chunk, then is silent", "408 at the body's deadline, closed",
     head(CHUNKED) + AS_CHUNKS[:20], [408]),
    ("never ends its chunks", "408 at the body's deadline, closed",
     head(CHUNKED) + AS_CHUNKS[:-5], [408]),
)  # fmt: skip
@ensureDeferred
async def test_silence(double: Daemon, monkeypatch: pytest.MonkeyPatch, case: Any) -> None:
    data, statuses = case
    _soon(double, monkeypatch)
    client = await connect(double.port[0])
    client.write(data)
    await client.closed(2.0)
    assert client.statuses == statuses, client.got
    await all_is_well(double)


@cases(
    "client",
    ("sends its head a byte at a time", "408 at the head's deadline, whatever comes", 0),
    ("sends its body a byte at a time", "408 at the body's deadline, whatever comes",
     len(head(sized()))),
)  # fmt: skip
@ensureDeferred
async def test_slowness(double: Daemon, monkeypatch: pytest.MonkeyPatch, case: Any) -> None:
    _soon(double, monkeypatch)
    client = await connect(double.port[0])
    data, at = post(), case[0]
    client.write(data[:at])
    while not client.statuses:
        assert at < len(data), "it was waited for to the end"
        client.write(data[at : at + 1])
        at += 1
        await deferLater(reactor, 0.03, lambda: None)
    assert client.statuses == [408]
    await client.closed(2.0)
    await all_is_well(double)


def _soon(double: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "HEADER_SECONDS", 0.3)
    monkeypatch.setattr(site, "BODY_SECONDS", 0.3)
    monkeypatch.setattr(double.api.site, "timeOut", 0.3)
    monkeypatch.setattr(site, "LINGER_SECONDS", 0.05)


@fault("client", "leaves in mid-body", "the request is dropped")
@ensureDeferred
async def test_it_leaves_in_mid_body(double: Daemon) -> None:
    asked, others = turns(double), set(double.api.site.channels)
    client = await connect(double.port[0])
    client.write(post()[:-5])
    await until(lambda: double.api.site.channels - others)
    client.transport.abortConnection()
    await until(lambda: not double.api.site.channels - others)
    assert turns(double) == asked
    await all_is_well(double)


@fault("client", "sends requests without waiting", "answered one by one, in order")
@ensureDeferred
async def test_pipelined(double: Daemon) -> None:
    client = await connect(double.port[0])
    bodies = [BODY.replace(b'"x"', b'"number %d"' % number) for number in range(5)]
    client.write(b"".join(post(body) for body in bodies))
    await until(lambda: client.got.count(b"You said") == 5)
    assert client.statuses == [200] * 5
    places = [client.got.index(b"You said: number %d" % number) for number in range(5)]
    assert places == sorted(places)
    client.transport.loseConnection()
    await all_is_well(double)


@fault("client", "floods the connection while it waits for its reply", "it is not read on")
@ensureDeferred
async def test_a_flood_behind_a_request(double: Daemon) -> None:
    others = set(double.api.site.channels)
    client = await connect(double.port[0])
    client.write(post(BODY.replace(b'"x"', b'"x[[question sleep 1]]"')) + b"x" * 50_000_000)
    await until(lambda: double.api.engine.admission.running)
    (channel,) = double.api.site.channels - others
    await client.replied()
    assert sum(map(len, channel._dataBuffer)) < 1_000_000
    client.transport.abortConnection()
    await until(lambda: channel not in double.api.site.channels)
    await all_is_well(double)


@fault("client", "sends garbage behind its request", "the reply, then 400, closed")
@ensureDeferred
async def test_garbage_behind_a_request(double: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "LINGER_SECONDS", 0.05)
    client = await connect(double.port[0])
    client.write(post() + b"nonsense\r\n\r\n")
    await client.closed()
    assert client.statuses == [200, 400]
    await all_is_well(double)


@fault("client", "sends its target with scheme and host, as to a proxy", "answered")
@ensureDeferred
async def test_absolute_targets(double: Daemon) -> None:
    client = await connect(double.port[0])
    for target in (b"http://localhost/health", b"HTTP://127.0.0.1:3456/v1/models?x=1"):
        client.write(b"GET " + target + b" HTTP/1.1\r\nHost: ignored.example\r\n\r\n")
    client.write(b"GET http://localhost?x HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await client.replied(3)
    assert client.statuses == [200, 200, 200]
    client.transport.loseConnection()
    await all_is_well(double)


@fault("client", "opens 300 connections", "they are closed when idle; others are served")
@ensureDeferred
async def test_many_connections(double: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    _soon(double, monkeypatch)
    clients = [await connect(double.port[0]) for _ in range(300)]
    for client in clients:
        await client.closed()
    await all_is_well(double)


@fault("client", "sends 100-continue", "100, then the reply")
@ensureDeferred
async def test_continue(double: Daemon, tmp_path: Path) -> None:
    client = await connect(double.port[0])
    client.write(head(sized(), b"Expect: 100-continue"))
    await client.replied()
    client.write(BODY)
    await client.replied(2)
    assert client.statuses == [100, 200]
    client.transport.loseConnection()
    await all_is_well(double)
