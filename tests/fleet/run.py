"""What happens in which order."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

from postgres import Postgres

from claudeproxy.options import Settings
from claudeproxy.ports import is_free

from . import asking
from .balancer import Balancer
from .clients import Client, Farm, work
from .nodes import Node, wait
from .turns import Turn, Turns
from .upstream import Upstream

WORKERS = 8
LIMITED = 40
"""Requests a day of one key."""

KEYS = {
    "anna": "",
    "bert": "",
    "carl": f" requests={LIMITED}/day tokens=500k/day",
    "dora": " requests=20/day",
}
CLIENTS = ("anna", "bert", "carl")
WITH_STORE = hasattr(Settings(), "store")


class Run:
    def __init__(self, directory: Path, upstream: Upstream, server: Postgres, most: int) -> None:
        self.upstream = upstream
        self.server = server
        self.turns = Turns()
        self.most = most
        self.figures: dict[str, str] = {}
        self.failures: list[str] = []
        self.killed: dict[str, Turn] = {}
        """Turns that were under way when their node was killed."""
        self.lost: set[str] = set()
        self.began = time.monotonic()
        self._free = iter(Random().sample(range(30_000, 32_000), 50))
        self.database = server.create_database()
        keys = directory / "keys"
        keys.write_text("".join(f"{name}: {secret(name)}{rules}\n" for name, rules in KEYS.items()))
        keys.chmod(0o600)
        options = ["--api-key-file", str(keys), "--concurrency", "6", "--processes", "6",
                   "--drain", "30", "--reserve", "five_hour=10"]  # fmt: skip
        if WITH_STORE:
            options += ["--store", self.database]
        self.nodes = [self._node(directory, name, options) for name in ("a", "b")]
        self.balancer = Balancer(
            directory, self._port(), {node.name: node.port for node in self.nodes}
        )
        self.farm = Farm(
            self.balancer.url, self.nodes, [secret(name) for name in CLIENTS], self.turns
        )

    def _node(self, directory: Path, name: str, options: list[str]) -> Node:
        home = directory / name
        home.mkdir()
        environ = self.upstream.log_in(name, home)
        # Noon, wherever this runs: the day of the quotas must not end meanwhile.
        noon = {"TZ": f"N{(time.gmtime().tm_hour - 12) % 24}"}
        return Node(
            name, home, self._port(), secret("anna"), {**environ, **noon}, *options
        )

    def _port(self) -> int:
        return next(port for port in self._free if is_free(port))

    def stop(self) -> None:
        self.farm.over.set()
        for node in self.nodes:
            if node.running:
                node.kill()
        self.balancer.stop()

    # -- the order of events --

    def all(self) -> None:
        for node in self.nodes:
            node.start()
        self.began = time.monotonic()
        with ThreadPoolExecutor(WORKERS) as workers:
            working = [workers.submit(work, self.farm, number) for number in range(WORKERS)]
            try:
                self._disturb(working)
            finally:
                self.farm.over.set()
        self.seconds = time.monotonic() - self.began

    def _disturb(self, working: list[Future[None]]) -> None:
        a, b = self.nodes
        at: Callable[[float], None] = lambda share: self.turns.reach(int(share * self.most))  # noqa: E731
        at(0.15)
        self._kill(b)
        at(0.3)
        b.start()
        at(0.4)
        self._drain(a)
        at(0.5)
        a.start()
        at(1.0)

    def _say(self, text: str) -> None:
        print(f"{time.monotonic() - self.began:6.1f} s {self.turns.done:6} turns  {text}", flush=True)

    def _kill(self, node: Node) -> None:
        """While it answers at least one."""
        client = Client(self.farm, -1, 1_000_001)
        with ThreadPoolExecutor(1) as one:
            asked = one.submit(self._long, client, node)
            (question,) = (f"question-{client.number}-1",)
            wait(lambda: self.upstream.reached[question], what="a long turn")
            node.steady = False
            node.kill()
            for turn in self.turns.running:
                self.killed[turn.question] = turn
            self._say(f"{node.name} is killed, with {len(self.killed)} turns under way")
            asked.exception()
        wait(lambda: not node.left_over, what="the end of its CLIs")

    def _long(self, client: Client, node: Node, seconds: float = 3) -> None:
        question = client.question()
        text = f"{question}[[say {question}]][[repeat 30 word]][[pause {seconds / 30}]]"
        said = [{"role": "user", "content": text}]
        client.ask(
            "chat, long", node.url,
            lambda turn: asking.plain_chat(node.url, turn, said, True), question,
        )  # fmt: skip

    def _drain(self, node: Node) -> None:
        client = Client(self.farm, -1, 1_000_002)
        with ThreadPoolExecutor(1) as one:
            asked = one.submit(self._long, client, node)
            question = f"question-{client.number}-1"
            wait(lambda: self.upstream.reached[question], what="a long turn")
            node.terminate()
            wait(lambda: node.health()[0] != 200)
            self._say(f"{node.name} drains: its health is {node.health()[0]}")
            if asked.exception():
                self.turns.wrong.append("a stream was cut by a drain")
            status = node.ended()
            self._say(f"{node.name} has ended: {status}")

    # -- what it came to --

    def report(self) -> list[str]:
        from collections import Counter

        done = [turn for turn in self.turns if turn.answered]
        print(f"{len(done)} answered, {len(done) / self.seconds:.1f} a second")
        kinds = sorted({turn.kind for turn in done})
        for kind in kinds:
            of = sorted(turn.seconds * 1000 for turn in done if turn.kind == kind)
            print(f"{kind:30} {len(of):5} {of[len(of) // 2]:8.0f} {of[int(len(of) * 0.95)]:8.0f} ms")
        print(Counter((turn.cause, turn.where, turn.question in self.killed) for turn in self.turns if turn.cause))
        print(*self.turns.wrong, sep="\n")
        print(*self.upstream.foreign, sep="\n")
        twice = {q: n for q, n in self.upstream.reached.items() if len(n) > 1}
        print("twice", twice)
        return self.failures


def secret(name: str) -> str:
    return f"{name}-secret-for-tests-{name * 3}"
