"""What several nodes cost the PostgreSQL that they share, and what it costs them.

``python -m benchmarks.cluster`` prints the figures, in some minutes. The server is a real one that
keeps what it commits; nodes are the real tables, many of them in a process. They share this
machine's cores with the server, so what is measured is a lower bound for one that is alone; the CPU
of a turn tells what that would do.
"""

from __future__ import annotations

import json
import os
import random
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import psycopg
from twisted.internet.defer import ensureDeferred, gatherResults
from twisted.internet.task import deferLater, react

from claudeproxy.ledger.ledger import Ledger
from claudeproxy.ledger.record import TurnRecord
from claudeproxy.ledger.shares import Plan
from claudeproxy.messages import Usage
from claudeproxy.store.database import StoreLost
from claudeproxy.store.nodes import Nodes
from claudeproxy.store.postgres import PostgreSQL
from claudeproxy.store.responses import Stored
from claudeproxy.store.store import Store

from .client import ask
from .own import NOWHERE, Double
from .subjects import ROOT, Daemon

sys.path.append(str(ROOT / "tests"))
from postgres import Postgres, missing, throw_away

FASTEST = (1, 10)
"""Nodes that have one turn after the other."""

PACED, PACE = 100, 1.0
"""Nodes that have a turn every so many seconds, as nodes do."""

SECONDS = 10.0
PROCESSES = 2
LISTENERS = 100
TURNS = 300
TABLES = ("turns", "hours", "counts", "responses")

# As Debian's are, but for what is needed to see, and to hold a hundred nodes.
SAFE = {
    "fsync": "on",
    "full_page_writes": "on",
    "max_connections": "600",
    "shared_buffers": "128MB",
    "shared_preload_libraries": "pg_stat_statements",
}


# -- many nodes --


async def nodes(
    reactor: Any, url: str, number: int, seconds: float, pace: float, shared: bool
) -> None:
    """So many nodes, each with one turn at a time. Prints how many turns there were, how many of
    them the server did not serve in time, how long each step took at the median, and the seconds of
    CPU."""
    databases = [PostgreSQL(url) for _ in range(number)]
    for database in databases:
        database.open(reactor)
    until = time.monotonic() + seconds
    before = time.process_time()
    working = [
        ensureDeferred(_work(reactor, database, "key" if shared else f"key-{uuid4()}", until, pace))
        for database in databases
    ]
    ended = await gatherResults(working)
    took = [step for steps, _ in ended for step in steps]
    used = time.process_time() - before
    for database in databases:
        database.close()
    medians = [statistics.median(times) * 1000 for times in zip(*took, strict=True)]
    late = sum(late for _, late in ended)
    print(json.dumps({"turns": len(took), "late": late, "cpu": used, "steps": medians}))


async def _work(
    reactor: Any, database: PostgreSQL, key: str, until: float, pace: float
) -> tuple[list[Any], int]:
    """What a node asks of the store for each turn: to count it, to note it, to keep its answer.
    Seconds of each; and how many turns were too late for the server's timeout."""
    ledger, store, took, late = Ledger(database), Store(database), [], 0
    node = Nodes(reactor, database, str(uuid4()))
    node.start()
    due = time.monotonic() + random.uniform(0, pace)
    while time.monotonic() < until:
        await deferLater(reactor, max(0.0, due - time.monotonic()), lambda: None)
        due += pace
        now, began = time.time(), time.monotonic()
        try:
            await ledger.counts.take(key, "account", lambda used: True)
            taken = time.monotonic()
            await ledger.put(_turn(key, now), Plan(now, "account", {"five_hour": now + 3600}))
            noted = time.monotonic()
            await store.responses.put(_stored(key))
        except StoreLost:
            late += 1
        else:
            took.append((taken - began, noted - taken, time.monotonic() - noted))
    await node.stop()
    return took, late


def _turn(key: str, now: float) -> TurnRecord:
    return TurnRecord(
        time=now, request_id=f"req_{uuid4().hex}", key=key, dialect="responses", model="sonnet",
        answered_by="claude-sonnet-4-5-20250929", placement="kept", client="OpenAI/Python",
        usage=Usage(12, 300, 20_000, 500, 40), body_bytes=900, reply_bytes=2400, total_ms=4000.0,
        first_token_ms=900.0, status=200, paid_by="plan",
        windows_before={"five_hour": 0.25, "seven_day": 0.5},
        windows_after={"five_hour": 0.2501, "seven_day": 0.5},
    )  # fmt: skip


def _stored(key: str) -> Stored:
    """A question of 400 characters, and an answer of 1,200."""
    said = {"type": "input_text", "text": "word " * 80}
    told = {"type": "output_text", "text": "word " * 240, "annotations": []}
    message = {"type": "message", "role": "assistant", "content": [told]}
    response = {"id": f"resp_{uuid4().hex}", "object": "response", "output": [message]}
    return Stored(response, [{"type": "message", "role": "user", "content": [said]}], None, key)


def many(server: Postgres, number: int, pace: float = 0.0, shared: bool = False) -> None:
    """Let so many work, and tell what came of it. ``shared``: all turns are of one key."""
    url = server.create_database()
    name = url.rpartition("/")[2]
    server.execute("CREATE EXTENSION pg_stat_statements", name)
    PostgreSQL(url)  # makes the tables
    server.execute("SELECT pg_stat_statements_reset()", name)
    processes = min(PROCESSES, number)
    words = [sys.executable, "-m", "benchmarks.cluster", "nodes", url, str(number // processes),
             str(SECONDS), str(pace), str(int(shared))]  # fmt: skip
    before = _cpu(server)
    ran = [
        subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    told = [json.loads(one.communicate(timeout=SECONDS + 60)[0]) for one in ran]
    used = _cpu(server) - before
    turns = sum(one["turns"] for one in told)
    take, put, keep = (
        statistics.mean(times) for times in zip(*(one["steps"] for one in told), strict=True)
    )
    calls = int(server.execute("SELECT sum(calls) FROM pg_stat_statements", name))
    commits = int(server.execute(
        f"SELECT xact_commit FROM pg_stat_database WHERE datname = '{name}'"))  # fmt: skip
    how = f"{number} nodes, {'one key' if shared else 'a key each'}, " + (
        f"a turn in {pace:g} s" if pace else "as fast as it goes"
    )
    late = sum(one["late"] for one in told)
    print(f"{how}: {turns / SECONDS:.0f} turns/s, {commits / SECONDS:.0f} transactions/s"
          f"{f', {late} turns too late' if late else ''}")  # fmt: skip
    ours = sum(one["cpu"] for one in told)
    print(f"     a turn: {commits / turns:.1f} transactions, {calls / turns:.0f} statements, CPU "
          f"{1000 * used / turns:.2f} ms of the server, {1000 * ours / turns:.2f} of the nodes; "
          f"median: count {take:.1f}, note {put:.1f}, keep {keep:.1f} ms", flush=True)  # fmt: skip
    if number == FASTEST[-1]:
        for table in TABLES:
            rows, size = server.execute(
                f"SELECT (SELECT count(*) FROM {table}), pg_total_relation_size('{table}')", name
            ).split("|")
            print(
                f"     {table}: {int(rows) / turns:.3f} rows, {int(size) / turns:.0f} bytes a turn"
            )
    server.drop_database(url)


def _cpu(server: Postgres) -> float:
    """Seconds of CPU of all its processes, those that have ended included."""
    spent = 0.0
    root = psutil.Process(server.pid)
    for one in (root, *root.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            times = one.cpu_times()
            spent += times.user + times.system + times.children_user + times.children_system
    return spent


# -- news --


def news(server: Postgres, number: int = LISTENERS, rounds: int = 200) -> None:
    """How long it takes until all listeners have heard, and what it costs the server."""
    url = server.create_database()
    listeners = [psycopg.connect(url, autocommit=True) for _ in range(number)]
    for listener in listeners:
        listener.execute("LISTEN claudemax")
    teller = psycopg.connect(url, autocommit=True)
    payload = json.dumps(["node", "window", {"five_hour": {"used": 0.42, "resets": 1.8e9}}])
    took, before = [], _cpu(server)
    for _ in range(rounds):
        began = time.monotonic()
        teller.execute("SELECT pg_notify('claudemax', %s)", (payload,))
        _all_hear(listeners)
        took.append((time.monotonic() - began) * 1000)
    used = _cpu(server) - before
    told = sorted(took)
    print(f"{number} listeners have all heard after {told[len(told) // 2]:.1f} ms (95 %: "
          f"{told[int(len(told) * 0.95)]:.1f}); the server's CPU: {1000 * used / rounds:.1f} ms",
          flush=True)  # fmt: skip
    for connection in (*listeners, teller):
        connection.close()
    server.drop_database(url)


def _all_hear(listeners: Sequence[psycopg.Connection[Any]]) -> None:
    waiting = {listener.fileno(): listener for listener in listeners}
    poll = select.poll()
    for number in waiting:
        poll.register(number, select.POLLIN)
    while waiting:
        for number, _ in poll.poll():
            listener = waiting[number]
            listener.pgconn.consume_input()
            if listener.pgconn.notifies() is not None:
                del waiting[number]
                poll.unregister(number)


# -- a node --


def node(double: Double, what: str, *options: str) -> None:
    """Turns as fast as eight clients get them of one node over the CLI's double, which costs
    nothing."""
    daemon = Daemon(double.directory(), double.claude, NOWHERE, "--concurrency", "8", *options)
    try:
        daemon.settle()
        messages = [{"role": "user", "content": "Hello"}]
        with ThreadPoolExecutor(8) as clients:
            list(clients.map(lambda _: ask(daemon.port, messages), range(50)))
            before, began = daemon.cpu(), time.monotonic()
            list(clients.map(lambda _: ask(daemon.port, messages), range(TURNS)))
        used, took = daemon.cpu() - before, time.monotonic() - began
    finally:
        daemon.end()
    cpu = 1000 * used / TURNS
    print(f"{what}: {TURNS / took:.0f} turns/s, {cpu:.2f} ms of its CPU a turn", flush=True)


def main() -> None:
    if sys.argv[1:2] == ["nodes"]:
        url, number, seconds, pace, shared = sys.argv[2:]
        how = int(number), float(seconds), float(pace), shared == "1"
        react(lambda reactor: ensureDeferred(nodes(reactor, url, *how)))
        return
    why = missing()
    if why is not None:
        sys.exit(f"benchmarks: {why}")
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with ExitStack() as stack:
        server = stack.enter_context(throw_away(**SAFE))
        double = Double(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))))
        for number in FASTEST:
            many(server, number)
        for shared in (False, True):
            many(server, PACED, PACE, shared)
        news(server)
        node(double, "one node with SQLite")
        node(double, "one node with PostgreSQL", "--store", server.create_database())


if __name__ == "__main__":
    main()
