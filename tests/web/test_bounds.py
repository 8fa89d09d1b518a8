"""What is bounded before a route is asked: values, connections, bodies; and where bodies are."""

from __future__ import annotations

import gc
import json
import os
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import treq
from harness import Daemon, until
from hypothesis import given
from hypothesis import strategies as st
from pytest_twisted import ensureDeferred
from raw import connect
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred as ensure
from twisted.internet.task import Clock
from twisted.web.resource import Resource
from twisted.web.server import Site

from claudeproxy.messages import MAX_VALUES, FailureError, too_many, values
from claudeproxy.web import fairness
from claudeproxy.web.bodies import read_json
from claudeproxy.web.fairness import BREAK, LONG, TimeSlice, no_collector
from claudeproxy.web.requests import InMemoryRequest

CHAT = "/v1/chat/completions"
HELLO = {"model": "haiku", "messages": [{"role": "user", "content": "Hello"}]}

# -- values --

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='a",[{}]:\\é\n') | st.just("\\"),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(alphabet='k",[{\\'), inner),
    max_leaves=30,
)


def begun(value: Any) -> int:
    """The commas and opening brackets that spell ``value``."""
    if isinstance(value, dict):
        return 1 + max(0, len(value) - 1) + sum(map(begun, value.values()))
    if isinstance(value, list):
        return 1 + max(0, len(value) - 1) + sum(map(begun, value))
    return 0


@given(JSON, st.booleans())
def test_values_are_counted_outside_of_strings(value: Any, ascii_only: bool) -> None:
    assert values(json.dumps(value, ensure_ascii=ascii_only).encode()) == begun(value) + 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"[" + b"0," * (MAX_VALUES - 2) + b"0]", False),
        (b"[" + b"0," * MAX_VALUES + b"0]", True),
        (b"[" * MAX_VALUES, False),
        (b"[" * (MAX_VALUES + 1), True),
        (b'{"a":{}}' * MAX_VALUES, True),
        (b'"' + b"[{," * MAX_VALUES + b'"', False),
        (b'"\\"' + b"[{," * MAX_VALUES + b'"', False),
        (b'"\\\\"' + b"[{," * MAX_VALUES, True),
        (b'"",' * (3 * MAX_VALUES), True),
        (b'"\\\\",' * (3 * MAX_VALUES), True),
    ],
)
def test_too_many_values(text: bytes, expected: bool) -> None:
    assert too_many(text) is expected


class Posted:
    """As much of a request as the reader of bodies asks for."""

    def __init__(self, body: bytes) -> None:
        self.content = BytesIO(body)


def test_a_body_is_read_once_and_let_go() -> None:
    request = Posted(b'{"a": [1, 2.5, null]}')
    assert read_json(request) == {"a": [1, 2.5, None]}  # type: ignore[arg-type]
    assert request.content.read() == b""


@pytest.mark.parametrize(
    "body", [b"5", b"[" * 100 + b"]" * 100, b'{"a":' * 100 + b"1" + b"}" * 100]
)
def test_a_body_of_as_many_levels_as_there_may_be(body: bytes) -> None:
    assert read_json(Posted(body)) == json.loads(body)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"a":' * 101 + b"1" + b"}" * 101, 400),
        (b"[" + b"0," * MAX_VALUES + b"0]", 413),
        (b"[" * 101 + b"]" * 101, 400),
        (b"[" * 100_000 + b"]" * 100_000, 400),
        (b"9" * 401, 400),
        (b"[", 400),
    ],
)
def test_a_body_is_refused_and_the_collector_works_on(body: bytes, status: int) -> None:
    with pytest.raises(FailureError) as refused:
        read_json(Posted(body))  # type: ignore[arg-type]
    assert refused.value.failure.status == status
    assert len(refused.value.failure.message) < 200
    assert gc.isenabled()


def test_the_collector_stays_as_it_was() -> None:
    with no_collector():
        assert not gc.isenabled()
        with no_collector():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


def test_a_break_is_taken_when_it_is_time() -> None:
    clock = Clock()
    mine = TimeSlice(clock)
    assert ensure(mine.give_way()).called
    clock.advance(LONG + 0.01)
    rest = ensure(mine.give_way())
    assert not rest.called
    clock.advance(BREAK)
    assert rest.called
    assert ensure(mine.give_way()).called


@pytest.mark.parametrize("path", [CHAT, "/v1/responses"])
@ensureDeferred
async def test_others_are_served_between_the_steps_of_a_large_request(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(fairness, "LONG", -1.0)
    monkeypatch.setattr(fairness, "BREAK", 0.3)
    asked = HELLO if path == CHAT else {"model": "haiku", "input": "Hello"}
    body = json.dumps(asked).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"connection: close\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode()
    large = await connect(daemon.port[0], head + body)
    other = await connect(daemon.port[0], b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
    await until(lambda: other.got)
    assert not large.got
    await until(lambda: large.lost)
    assert large.got.startswith(b"HTTP/1.1 200 OK\r\n")
    other.transport.loseConnection()


# -- connections and bodies --


@ensureDeferred
async def test_connections_are_bounded(make_daemon: Any) -> None:
    few = await make_daemon()
    site = few.api.site
    site.connections = 10
    served = [await connect(few.port[0]) for _ in range(10)]
    await until(lambda: len(site.channels) == 10)
    told = [await connect(few.port[0]) for _ in range(site.connections)]
    for client in told:
        await until(lambda client=client: client.got)
        assert client.got.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert b"retry-after: 1\r\n" in client.got
        assert b'"message":"too many connections at once"' in client.got
    cut = await connect(few.port[0])
    await until(lambda: cut.lost)
    assert cut.got == b""
    served[0].transport.write(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
    await until(lambda: served[0].got.startswith(b"HTTP/1.1 200 OK\r\n"))
    for client in (*served, *told):
        client.transport.abortConnection()
    await until(lambda: not site.channels)
    again = await connect(few.port[0], b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
    await until(lambda: again.got.startswith(b"HTTP/1.1 200 OK\r\n"))
    again.transport.loseConnection()


@ensureDeferred
async def test_bodies_that_arrive_are_bounded_together(make_daemon: Any) -> None:
    daemon = await make_daemon(max_body=1_000_000)
    site = daemon.api.site
    head = (
        f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        "content-length: 1000000\r\n\r\n"
    ).encode()
    slow = [await connect(daemon.port[0], head + b" " * 999_999) for _ in range(4)]
    await until(lambda: site.arriving == 4 * 999_999)
    late = await connect(daemon.port[0], head + b" " * 999_999)
    await until(lambda: late.got)
    assert late.got.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"retry-after: 1\r\n" in late.got
    assert b"too many large requests" in late.got
    await until(lambda: site.arriving == 4 * 999_999)  # what was refused is let go
    small = await daemon.post(CHAT, b" " * 5)
    assert small.code == 503
    await treq.content(small)
    slow[0].transport.abortConnection()
    slow[1].transport.write(b"x")  # a whole one, if no good one
    await until(lambda: slow[1].got.startswith(b"HTTP/1.1 400 "))
    await until(lambda: site.arriving == 2 * 999_999)
    response = await daemon.post(CHAT, HELLO)
    assert response.code == 200
    await treq.content(response)
    for client in (*slow, late):
        client.transport.abortConnection()
    await until(lambda: site.arriving == 0)


# -- in a site of somebody else's --


def temporary_files() -> set[str]:
    """Of this process: what is open, and has no name any more."""
    found = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(descriptor)
        except FileNotFoundError:
            continue
        if target.endswith(" (deleted)"):
            found.add(f"{descriptor.name} {target}")
    return found


made: list[InMemoryRequest] = []


class Noted(InMemoryRequest):
    """Those that were made."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        made.append(self)


@pytest.mark.parametrize("kind", [Noted, None])
@ensureDeferred
async def test_no_body_is_put_on_disk(daemon: Daemon, kind: Any) -> None:
    root = Resource()
    root.putChild(b"claude", daemon.api.resource)
    port = reactor.listenTCP(0, Site(root, requestFactory=kind), interface="127.0.0.1")  # type: ignore[attr-defined]
    url = f"http://127.0.0.1:{port.getHost().port}/claude"
    body = json.dumps({**HELLO, "user": "x" * 1_000_000}).encode()
    head = (
        f"POST /claude{CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"connection: close\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode()
    try:
        before = temporary_files()
        client = await connect(port, head + body[:-1])
        small = await treq.post(url + CHAT, json=HELLO)
        assert small.code == 200
        await treq.content(small)
        if kind is None:
            await until(lambda: temporary_files() - before)  # what twisted.web does
        else:
            await until(lambda: any(r.content and r.content.tell() == len(body) - 1 for r in made))
            assert not temporary_files() - before
        client.transport.write(body[-1:])
        await until(lambda: client.lost)
        if kind is None:
            assert client.got.startswith(b"HTTP/1.1 413 ")
            assert b"requestFactory=claudeproxy.web.requests.InMemoryRequest" in client.got
        else:
            assert client.got.startswith(b"HTTP/1.1 200 OK\r\n")
        assert not temporary_files() - before
    finally:
        await port.stopListening()


@ensureDeferred
async def test_bodies_are_bounded_there_as_well(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(InMemoryRequest, "max_body", 1_000)
    root = Resource()
    root.putChild(b"claude", daemon.api.resource)
    port = reactor.listenTCP(0, Site(root, requestFactory=InMemoryRequest), interface="127.0.0.1")  # type: ignore[attr-defined]
    url = f"http://127.0.0.1:{port.getHost().port}/claude{CHAT}"
    try:
        for size, status in ((1_000, 400), (1_001, 413), (1_000_000, 413)):
            response = await treq.post(
                url, data=b" " * size, headers={"content-type": "application/json"}
            )
            assert response.code == status
            assert (await treq.json_content(response))["error"]["type"] == "invalid_request_error"
    finally:
        await port.stopListening()
