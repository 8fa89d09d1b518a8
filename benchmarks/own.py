"""What the daemon itself costs, with a CLI that costs nothing (:mod:`claudeproxy.testing`)."""

from __future__ import annotations

import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

from attrs import define

from claudeproxy.testing import fake_cli

from .client import ask, request
from .subjects import ROOT, Bare, Daemon

NOWHERE = "http://127.0.0.1:9"
WORD = "x" * 6
TOKEN = b'"content":"' + WORD.encode()
PACE = 50
"""Tokens a second of one stream."""
SHORT = "[[deltas 2]][[pause 0.02]]"
"""An answer that goes on after its first token, as answers do."""


@define
class Own:
    """The figures; milliseconds, microseconds and megabytes as the names say."""

    added_first_ms: list[float]
    added_follow_up_ms: list[float]
    cpu_per_delta_us: list[float]
    """At :data:`PACE`, 50 streams, each delta a read of its own; no process starts meanwhile."""
    cpu_per_delta_burst_us: float
    """When they come as fast as they go."""
    chunks_a_second: float
    streams_held: int
    rss_mb: dict[str, float]
    bookkeeping_ms: list[float]
    """CPU of a turn for journal, ledger, quotas and metrics."""


class Double:
    """The double as an executable, and daemons over it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.claude = fake_cli(folder, answer=WORD, size=len(WORD))

    def daemon(self, warm: int) -> Daemon:
        room = ("--concurrency", "2000", "--queue", "2000", "--warm", str(warm))
        daemon = Daemon(self.directory(), self.claude, NOWHERE, *room)
        daemon.settle()
        return daemon

    def directory(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self._folder))


def measure(rounds: int = 150, most: int = 1000) -> Own:
    """All of it; ``most``: the largest number of open streams."""
    with ExitStack() as stack:
        made = Double(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))))

        def daemon(warm: int) -> Daemon:
            one = made.daemon(warm)
            stack.callback(one.end)
            return one

        _say("added time")
        first, follow = _added(made, daemon(8), rounds)
        _say("as fast as it goes")
        burst_us, chunks = _fast(daemon(4))
        _say(f"at {PACE} tokens a second")
        paced_us = _paced(daemon(0))
        held = _held(daemon(320))
        _say("open streams")
        rss = _rss(daemon(0), most)
        _say("bookkeeping")
        return Own(first, follow, paced_us, burst_us, chunks, held, rss, _bookkeeping())


def _added(made: Double, daemon: Daemon, rounds: int) -> tuple[list[float], list[float]]:
    """Milliseconds, through the daemon less by hand, pair by pair."""
    first, follow = [], []
    bare = Bare(made.directory(), made.claude, NOWHERE)
    bare.first("x", SHORT)
    for _ in range(rounds // 5):
        opened = Bare(made.directory(), made.claude, NOWHERE)
        time.sleep(0.1)
        by_hand = opened.first("x", f"{uuid4()} {SHORT}")
        opened.end()
        messages = [{"role": "user", "content": f"{uuid4()} {SHORT}"}]
        answer = ask(daemon.port, messages)
        first.append(1000 * (answer.first - by_hand))
        time.sleep(0.2)  # its replacement starts
        for _ in range(5):
            messages += [answer.message, {"role": "user", "content": SHORT}]
            by_hand = bare.next(SHORT)
            answer = ask(daemon.port, messages)
            follow.append(1000 * (answer.first - by_hand))
    bare.end()
    return first, follow


def _fast(daemon: Daemon, deltas: int = 20_000) -> tuple[float, float]:
    """CPU microseconds of a delta, and deltas a second, with one stream."""
    used, rates = [], []
    for _ in range(3):
        daemon.settle()
        with Streams(daemon.port, [f"[[deltas {deltas}]]"]) as streams:
            before, began = daemon.cpu(), time.perf_counter()
            streams.read(lambda: not streams.open)
            rates.append(deltas / (time.perf_counter() - began))
            used.append((daemon.cpu() - before) / deltas * 1e6)
    return statistics.median(used), statistics.median(rates)


def _paced(daemon: Daemon, readings: int = 5) -> list[float]:
    """CPU microseconds of a delta."""
    cost = []
    with Streams(daemon.port, [_paced_order(30)] * 50) as streams:
        streams.read(lambda: streams.begun == len(streams))
        for _ in range(readings):
            streams.read(_after(0.5))
            used, tokens = daemon.cpu(), streams.tokens
            streams.read(_after(3))
            cost.append((daemon.cpu() - used) / (streams.tokens - tokens) * 1e6)
    return cost


def _held(daemon: Daemon) -> int:
    """How many streams keep their pace."""
    seconds, held = 6, 0
    for number in (50, 100, 150, 200, 250, 300):
        wait = time.monotonic() + 60
        daemon.settle()
        while time.monotonic() < wait and _health(daemon)["warm"] < number:
            time.sleep(0.2)
        with Streams(daemon.port, [_paced_order(seconds)] * number) as streams:
            streams.read(lambda: streams.begun == len(streams))
            streams.read(_after(0.5))
            before, tokens, began = daemon.cpu(), streams.tokens, time.perf_counter()
            streams.read(_after(seconds / 2))
            used, took = daemon.cpu() - before, time.perf_counter() - began
            rate = (streams.tokens - tokens) / took / number
            streams.read(lambda: not streams.open)
        print(f"    {number} streams: {rate:.1f} tokens/s each, CPU {used / took:.0%}", flush=True)
        if rate < 0.97 * PACE:
            break
        held = number
    return held


def _bookkeeping() -> list[float]:
    command = [sys.executable, "-m", "benchmarks.bookkeeping"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [float(line) for line in ran.stdout.split()]


def _paced_order(seconds: int) -> str:
    return f"[[deltas {seconds * PACE}]][[pause {1 / PACE}]]"


def _rss(daemon: Daemon, most: int) -> dict[str, float]:
    sizes = {"0": daemon.rss()}
    with Streams(daemon.port, []) as streams:
        for number in sorted({1, 100, most}):
            while len(streams) < number:
                streams.add("[[middle hold]]")
                # Not a flood: a CLI that starts costs more than a stream that is open.
                if len(streams) % 50 == 0:
                    streams.read(lambda: streams.begun == len(streams))
            streams.read(lambda: streams.begun == len(streams))
            sizes[str(number)] = daemon.rss()
    return sizes


def _health(daemon: Daemon) -> dict[str, Any]:
    from .client import get

    found: dict[str, Any] = get(f"http://127.0.0.1:{daemon.port}/health")["processes"]
    return found


def _after(seconds: float) -> Callable[[], bool]:
    until = time.monotonic() + seconds
    return lambda: time.monotonic() >= until


class Streams:
    """Many streams, read by one loop that only counts."""

    def __init__(self, port: int, orders: list[str]) -> None:
        self._port = port
        self._selector = selectors.DefaultSelector()
        self._seen: dict[socket.socket, int] = {}
        self._tail: dict[socket.socket, bytes] = {}
        self.tokens = 0
        self.begun = 0
        self.open = 0
        for order in orders:
            self.add(order)

    def __enter__(self) -> Streams:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._seen:
            connection.close()
        self._selector.close()

    def __len__(self) -> int:
        return len(self._seen)

    def add(self, order: str) -> None:
        connection = socket.create_connection(("127.0.0.1", self._port))
        connection.sendall(request([{"role": "user", "content": f"{uuid4()} {order}"}]))
        connection.setblocking(False)
        self._selector.register(connection, selectors.EVENT_READ)
        self._seen[connection], self._tail[connection] = 0, b""
        self.open += 1

    def read(self, enough: Callable[[], bool]) -> None:
        """Read until ``enough``."""
        while not enough():
            for key, _ in self._selector.select(0.1):
                self._read(key.fileobj)

    def _read(self, connection: Any) -> None:
        data = connection.recv(65536)
        if not data:
            self._selector.unregister(connection)
            self.open -= 1
            return
        both = self._tail[connection] + data
        found = both.count(TOKEN)
        # What a later read could complete; a token that is whole in it would be counted twice.
        self._tail[connection] = both[max(both.rfind(TOKEN) + 1, len(both) - len(TOKEN) + 1) :]
        self.begun += not self._seen[connection] and found > 0
        self._seen[connection] += found
        self.tokens += found


def _say(what: str) -> None:
    print(f"  {what} ...", flush=True)
