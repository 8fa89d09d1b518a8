"""Clients that leave, that do not read, and that come in crowds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from harness import Daemon, until
from matrix import all_is_well, ask, cases, fault
from pytest_twisted import ensureDeferred
from raw import BODY, Raw, connect, post
from twisted.internet import reactor

from claudeproxy.cli.process import CLIProcess
from claudeproxy.cli.states import State
from claudeproxy.testing import fake_cli, journal
from claudeproxy.web import site, sse


def streamed(order: str) -> bytes:
    """A streamed request with ``order`` in its text."""
    return post(BODY.replace(b'"x"', b'"x%s"' % order.encode())[:-1] + b',"stream":true}')


async def left(daemon: Daemon, client: Raw) -> CLIProcess:
    """Its client leaves: its slot is free within two seconds."""
    engine = daemon.api.engine
    (running,) = [process for process in engine.processes if process.listener is not None]
    client.transport.abortConnection()
    await until(lambda: engine.admission.running == 0, 2.0)
    return running


REWOUND = "its slot is free within 2 s; its process is rewound"


@cases(
    "client",
    ("leaves before the answer begins", REWOUND, "[[asked sleep 1]]", 0),
    ("leaves in mid-answer", REWOUND, "[[deltas 1000]][[pause 0.05]]", 1),
    ("leaves while a process ignores the end of stdin", REWOUND,
     "[[middle stubborn]][[deltas 1000]][[pause 0.05]]", 1),
    ("leaves with a full socket", REWOUND, "[[deltas 300]][[size 100000]]", 1),
    ("leaves while a process is silent",
     "its slot is free within 2 s; its process is ended when it answers no rewind for 5 s",
     "[[question silence]]", 0),
)  # fmt: skip
@ensureDeferred
async def test_it_leaves(make_daemon: Any, tmp_path: Path, case: Any) -> None:
    order, replies = case
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"))
    client = await connect(daemon.port[0])
    if "size" in order:
        client.transport.pauseProducing()
    client.write(streamed(order))
    await until(lambda: any(p.listener for p in daemon.api.engine.processes))
    if "size" in order:
        await until(lambda: any(p._paused for p in daemon.api.engine.processes))
    else:
        await client.replied(replies)
    process = await left(daemon, client)
    if "silence" in order:
        assert (await ask(daemon, "x")).status == 200
        await until(lambda: process not in daemon.api.engine.processes, 10.0)
        await all_is_well(daemon)
        return
    await until(lambda: process.state is State.IDLE, 10.0)
    assert process.held == 0
    await all_is_well(daemon, rewound=process)


@fault("client", "leaves while it waits for a slot", "its turn is never started")
@ensureDeferred
async def test_it_leaves_the_queue(make_daemon: Any, tmp_path: Path) -> None:
    claude = fake_cli(tmp_path / "cli")
    daemon = await make_daemon(claude=claude, concurrency=1)
    admission = daemon.api.engine.admission
    first, second = await connect(daemon.port[0]), await connect(daemon.port[0])
    first.write(streamed("[[question sleep 1]]"))
    await until(lambda: admission.running)
    second.write(streamed("second"))
    await until(lambda: admission.waiting)
    second.transport.abortConnection()
    await until(lambda: not admission.waiting)
    await until(lambda: b"[DONE]" in first.got)
    assert journal(claude).count("turn") == 1
    first.transport.loseConnection()
    await all_is_well(daemon)


@fault("client", "comes when all slots and places are taken", "429 with retry-after, at once")
@ensureDeferred
async def test_no_place_is_left(make_daemon: Any, tmp_path: Path) -> None:
    claude = fake_cli(tmp_path / "cli")
    daemon = await make_daemon(claude=claude, concurrency=1, queue=1)
    admission = daemon.api.engine.admission
    waiting = [await connect(daemon.port[0]), await connect(daemon.port[0])]
    for client in waiting:
        client.write(streamed("[[question sleep 0.5]]"))
    await until(lambda: admission.waiting)
    response = await daemon.post(
        "/v1/chat/completions", {"model": "sonnet", "messages": [{"role": "user", "content": "x"}]}
    )
    assert response.code == 429
    assert int(response.headers.getRawHeaders("retry-after")[0]) >= 1
    await response.content()
    for client in waiting:
        await until(lambda client=client: b"[DONE]" in client.got)
        client.transport.loseConnection()
    await all_is_well(daemon)


def rss() -> int:
    """This process's memory, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20


@fault("client", "never reads, and the answer is 100 MB",
       "its process waits, memory stays flat; it is cut off at the stall deadline")  # fmt: skip
@ensureDeferred
async def test_it_never_reads(
    make_daemon: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "STALL", 3.0)
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"), idle_timeout=2.0)
    before = rss()
    client = await connect(daemon.port[0])
    client.transport.pauseProducing()
    client.write(streamed("[[deltas 1000]][[size 100000]]"))
    await until(lambda: any(p._paused for p in daemon.api.engine.processes))
    engine = daemon.api.engine
    await until(lambda: engine.admission.running == 0, 5.0)
    assert rss() - before < 40
    client.transport.resumeProducing()
    await client.closed()
    assert b"[DONE]" not in client.got
    await all_is_well(daemon)


@cases(
    "client",
    ("never reads a whole answer of 20 MB", "its connection is cut off after the idle deadline",
     b""),
    ("never reads the last reply of its connection",
     "its connection is cut off after the idle deadline", b"Connection: close"),
)  # fmt: skip
@ensureDeferred
async def test_it_never_reads_a_whole_answer(
    make_daemon: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: Any
) -> None:
    monkeypatch.setattr(site, "IDLE_SECONDS", 0.3)
    monkeypatch.setattr(site.Channel, "abortTimeout", 0.3)
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"))
    client = await connect(daemon.port[0])
    client.transport.pauseProducing()
    body = BODY.replace(b'"x"', b'"x[[deltas 200]][[size 100000]]"')
    client.write(post(body, *[line for line in case if line]))
    await until(lambda: daemon.api.site.channels)
    await until(lambda: not daemon.api.site.channels, 5.0)
    client.transport.resumeProducing()
    await client.closed()
    assert len(client.got) < 20_000_000
    await all_is_well(daemon)


@fault("client", "reads slowly", "the answer arrives whole, memory stays flat")
@ensureDeferred
async def test_it_reads_slowly(make_daemon: Any, tmp_path: Path) -> None:
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"))
    before = rss()
    client = SlowReader()
    await client.connect(daemon)
    client.write(streamed("[[deltas 301]][[size 100000]]"))
    await until(lambda: client.ended, 30.0)
    assert client.size > 30_000_000
    assert rss() - before < 40
    client.transport.loseConnection()
    await all_is_well(daemon)


class SlowReader(Raw):
    """Reads a little, then rests; keeps only the end."""

    size = 0

    async def connect(self, daemon: Daemon) -> None:
        from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol

        port = daemon.port[0].getHost().port
        await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), self)

    @property
    def ended(self) -> bool:
        return b"[DONE]" in self.got

    def dataReceived(self, data: bytes) -> None:
        self.size += len(data)
        self.got = self.got[-100:] + data
        self.transport.pauseProducing()
        reactor.callLater(0.002, self._read_on)  # type: ignore[attr-defined]

    def _read_on(self) -> None:
        if not self.lost:
            self.transport.resumeProducing()


@fault("client", "closes its side after its request", "the whole answer, or it counts as gone")
@ensureDeferred
async def test_half_closed(make_daemon: Any, tmp_path: Path) -> None:
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"))
    client = await connect(daemon.port[0])
    client.write(streamed("[[question sleep 0.3]]"))
    client.transport.loseWriteConnection()
    await client.closed()
    assert client.got == b"" or b"[DONE]" in client.got
    await all_is_well(daemon)


@fault("client", "asks 40 times at once", "each gets its own answer, never more at work than slots")
@ensureDeferred
async def test_a_crowd(make_daemon: Any, tmp_path: Path) -> None:
    from twisted.internet.defer import ensureDeferred as start
    from twisted.internet.defer import gatherResults

    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"), concurrency=4, queue=64)
    replies = await gatherResults([start(ask(daemon, f"number {n}")) for n in range(40)])
    assert [reply.text for reply in replies] == [f"You said: number {n}" for n in range(40)]
    await all_is_well(daemon)
