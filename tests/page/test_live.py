"""Pages that are open learn when there is something new, and leave nothing behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
import treq
from harness import Daemon, start_daemon, stop_daemon, until
from looking import HTML, held, hello, look
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred as run
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.web.server import Request
from twisted.web.test.requesthelper import DummyChannel

from claudeproxy.page.live import PAUSE, RUNNING, SILENCE, WATCHERS, Live
from claudeproxy.service import LAST_BYTES
from claudeproxy.testing import fake_cli

EVENT = b"event: changed"

# -- by the clock --


class Watched:
    """A stream of events, and what has been sent on it."""

    def __init__(self, live: Live) -> None:
        self.channel = DummyChannel()
        self.request = Request(self.channel, False)
        self.request.gotLength(0)
        self.done = run(live.watch(self.request))

    @property
    def events(self) -> int:
        return int(self.channel.transport.written.getvalue().count(EVENT))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def running() -> list[str]:
    return []


@pytest.fixture
def live(clock: Clock, running: list[str]) -> Live:
    return Live(clock, lambda: running)


def test_much_at_once_is_one_event(live: Live, clock: Clock) -> None:
    page = Watched(live)
    assert page.events == 0
    for _ in range(10):
        live.changed()
    clock.advance(0)
    assert page.events == 1, "at once"
    for _ in range(10):
        live.changed()
        clock.advance(PAUSE / 20)
    assert page.events == 1
    clock.advance(PAUSE / 2)
    assert page.events == 2, "and after a pause"


def test_while_a_turn_runs_and_while_none_does(
    live: Live, clock: Clock, running: list[str]
) -> None:
    page = Watched(live)
    clock.advance(SILENCE)
    assert page.events == 1
    running.append("turn")
    live.changed()
    clock.advance(PAUSE)
    assert page.events == 2
    for _ in range(4):
        clock.advance(RUNNING)
    assert page.events == 6
    running.clear()
    live.changed()
    clock.advance(RUNNING)
    clock.advance(SILENCE - RUNNING - 0.1)
    assert page.events == 7


def test_nothing_is_planned_while_nobody_watches(live: Live, clock: Clock) -> None:
    live.changed()
    assert clock.getDelayedCalls() == []
    pages = [Watched(live) for _ in range(2)]
    pages[0].done.addErrback(lambda _: None)
    pages[0].done.cancel()
    live.changed()
    clock.advance(1)
    assert [page.events for page in pages] == [0, 1] and len(live) == 1
    live.close()
    assert len(live) == 0 and clock.getDelayedCalls() == []
    assert pages[1].done.called


def test_a_page_that_does_not_read_is_cut(live: Live) -> None:
    page = Watched(live)
    producer = page.channel.transport.producers[0][0]
    aborted: list[bool] = []
    page.channel.transport.abortConnection = lambda: aborted.append(True)
    producer.pauseProducing()
    assert aborted == [True]


# -- over HTTP --


@pytest_twisted.async_fixture
async def double(make_daemon: Any, tmp_path: Path) -> Daemon:
    made: Daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"))
    return made


class Client(Protocol):
    """A page that watches."""

    def __init__(self) -> None:
        self.received = b""

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    @property
    def events(self) -> int:
        return self.received.count(EVENT)


async def watching(daemon: Daemon) -> Client:
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", daemon.port[0].getHost().port)
    client: Client = await connectProtocol(endpoint, Client())
    client.transport.write(b"GET /page/changes HTTP/1.1\r\nhost: localhost\r\n\r\n")
    await until(lambda: b"retry: " in client.received)
    return client


@ensureDeferred
async def test_a_turn_is_seen_while_it_runs(double: Daemon) -> None:
    page = await watching(double)
    head = page.received.partition(b"\r\n\r\n")[0].lower()
    assert b" 200 " in head and b"content-type: text/event-stream" in head
    assert b"cache-control: no-store" in head and b"content-security-policy" in head
    turn = await held(double)
    await until(lambda: page.events)
    running = double.api.journal.running
    await until(lambda: any(one.facts.first_token for one in running.values()))
    seen = await look(double, "/page/main")
    assert seen.root.get("data-summary") == "1 running, 0 waiting"
    ((_, client, model, state, _),) = seen.rows("now")
    assert (client, model, state) == ("Zed", "claude-fake", "answering")
    before = page.events
    turn.abortConnection()
    await until(lambda: not running and page.events > before)
    await until(lambda: not double.api.engine.admission.running)
    seen = await look(double, "/page/main")
    assert seen.root.get("data-summary") == "idle" and "No turn is running" in seen.text("now")
    assert "client left" in seen.text("turns")
    page.transport.abortConnection()
    await until(lambda: not len(double.api._page._live))
    assert double.api._page._live._next is None


@ensureDeferred
async def test_a_turn_that_waits(make_daemon: Any, tmp_path: Path) -> None:
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"), concurrency=1)
    turns = [await held(daemon), await held(daemon)]
    await until(lambda: daemon.api.engine.admission.waiting)
    seen = await look(daemon)
    assert "waiting" in [row[3] for row in seen.rows("now")]
    (summary,) = [p.text for p in seen.root.iter("p") if p.get("role") == "status"]
    assert summary == "1 running, 1 waiting"
    for turn in turns:
        turn.abortConnection()
    await until(lambda: not daemon.api.journal.running)


@ensureDeferred
async def test_pages_that_watch_are_bounded(double: Daemon) -> None:
    pages = [await watching(double) for _ in range(WATCHERS)]
    response = await treq.get(double.url + "/page/changes", headers=HTML)
    assert response.code == 503
    await treq.content(response)
    pages.pop().transport.abortConnection()
    await until(lambda: len(double.api._page._live) < WATCHERS)
    pages.append(await watching(double))
    await treq.content(await double.post("/v1/chat/completions", hello()))
    await until(lambda: all(page.events for page in pages))
    for page in pages:
        page.transport.abortConnection()


@ensureDeferred
async def test_an_open_page_does_not_hold_up_the_end(tmp_path: Path) -> None:
    daemon = await start_daemon(tmp_path, claude=fake_cli(tmp_path / "cli"))
    page = await watching(daemon)
    before = reactor.seconds()
    await stop_daemon(daemon)
    assert reactor.seconds() - before < LAST_BYTES
    assert page.received.endswith(b"0\r\n\r\n"), "its stream has come to an end"
