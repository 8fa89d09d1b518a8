"""What happens to nodes and database while the clients go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from typing import Any

from attrs import define, field
from postgres import Postgres

from . import asking
from .asking import send
from .clients import Client, Farm, Over
from .nodes import Node, wait
from .tables import Tables
from .turns import Turn
from .upstream import Upstream
from .verdict import Verdict


@define
class Disturbances:
    """``killed`` and ``stopped``: when each node was, from and to; ``outages``: when the database
    was lost, from and to, until all nodes knew it was back."""

    farm: Farm
    upstream: Upstream
    server: Postgres
    tables: Tables
    verdict: Verdict
    say: Callable[[str], None]
    killed: dict[str, tuple[float, float]] = field(factory=dict)
    stopped: dict[str, tuple[float, float]] = field(factory=dict)
    outages: list[tuple[float, float]] = field(factory=list)
    _numbers: Iterator[int] = field(factory=lambda: count(1_000_000))

    def client(self, key: str = "anna") -> Client:
        """One whose conversation is none of the others'."""
        return Client(self.farm, -1, next(self._numbers), key)

    @contextmanager
    def long_stream(self, node: Node) -> Iterator[Future[str]]:
        """An answer of seconds is under way on ``node``."""
        client = self.client()
        question = client.question()
        text = f"{question}[[say {question}]][[repeat 40 word]][[pause 0.1]]"
        said = [{"role": "user", "content": text}]

        def ask() -> str:
            return client.ask(
                "chat, long", node.url,
                lambda turn: asking.plain_chat(node.url, turn, said, True), question,
            )  # fmt: skip

        with ThreadPoolExecutor(1) as one:
            asked = one.submit(ask)
            wait(lambda: self.upstream.reached[question], what="a long answer")
            yield asked

    def kill(self, node: Node) -> None:
        """Kill it while it answers."""
        with self.long_stream(node) as asked:
            node.steady = False
            began = time.monotonic()
            self.killed[node.name] = began, node.kill()
            self.say(f"{node.name} is killed")
            self.verdict.check(
                "the stream of a killed node fails", isinstance(asked.exception(), Over)
            )
        wait(lambda: not node.left_over, what="the end of the killed node's CLIs")
        took = time.monotonic() - began
        self.verdict.figures["a killed node's CLIs have ended after"] = f"{took:.1f} s"

    def drain(self, node: Node) -> None:
        """Stop it while it answers: nobody is cut."""
        with self.long_stream(node) as asked:
            began = time.monotonic()
            node.terminate()
            took = self.verdict.happens("/health of a node that stops is 503",
                                        lambda: node.health()[0] == 503, 2)  # fmt: skip
            self.verdict.figures["a stop is seen at /health after"] = f"{took * 1000:.0f} ms"
            self.verdict.check("while its streams still run", not asked.done())
            self.verdict.check("a drained stream ends whole", asked.exception() is None)
        status = node.ended()
        self.stopped[node.name] = began, time.monotonic()
        self.say(f"{node.name} is stopped")
        self.verdict.check("a stopped node ends well", status == 0, status)
        self.verdict.none("a stopped node leaves no process", node.left_over)

    # -- the database --

    def lose_database(self, turns: int) -> None:
        """It is down until so many turns have been answered without it."""
        before = self._response(self.farm.nodes[0])
        with self._outage():
            self.server.stop("fast")
            took = self.verdict.happens("/health tells that the database is lost",
                                        lambda: not any(self._stores()))  # fmt: skip
            self.say(f"the database is down: known after {took:.1f} s")
            for node in self.farm.nodes:
                self._without(node, before)
            self.farm.turns.reach(self.farm.turns.done + turns)
            waiting = self.waiting()
            self.verdict.check("rows of the ledger wait on every node", all(waiting), waiting)
            self.server.start()
        began, ended = self.outages[-1]
        ids = {one.request_id for one in self.farm.turns if began < one.ended < ended
               and one.answered}  # fmt: skip
        took = self.verdict.happens("the turns of meanwhile come into the ledger",
                                    lambda: ids <= self.tables.turns().keys())  # fmt: skip
        self.verdict.figures["the turns of meanwhile are in the ledger after"] = f"{took:.1f} s"
        self.say(f"the database is back: {waiting} rows have waited, {self.waiting()} do now")

    def freeze_database(self) -> None:
        """Its machine has gone: nobody says so, and connections stay open."""
        with self._outage():
            self.server.freeze()
            self.verdict.happens(
                "a database that is silent counts as lost", lambda: not any(self._stores()), 30
            )
            self.server.thaw()
        self.say("the database was silent, and is back")

    def restart_database(self) -> None:
        with self._outage():
            self.server.restart("immediate")
        self.say("the database has been restarted")

    @contextmanager
    def _outage(self) -> Iterator[None]:
        began = time.monotonic()
        self.farm.store_lost.set()
        yield
        took = self.verdict.happens("/health tells that the database is back",
                                    lambda: all(self._stores()))  # fmt: skip
        self.farm.store_lost.clear()
        self.verdict.figures["the database is used again after"] = f"{took:.1f} s"
        self.outages.append((began, time.monotonic()))

    def _stores(self) -> list[bool]:
        return [node.health()[1]["store"]["reachable"] for node in self.farm.nodes]

    def none_wait(self) -> bool:
        """No row waits for the database."""
        return not any(self.waiting())

    def waiting(self) -> list[int]:
        """How many rows do, on each node."""
        return [node.health()[1]["store"]["waiting_rows"] for node in self.farm.nodes]

    def _response(self, node: Node) -> str:
        """The id of a response that is stored."""
        client, told = self.client(), []

        def how(turn: Turn) -> str:
            answer, ident = asking.respond(client.openai(node.url), turn, turn.question, False)
            told.append(ident)
            return answer

        client.ask("responses", node.url, how)
        return told[0]

    def _without(self, node: Node, before: str) -> None:
        """What a node answers without a database, and what it refuses, and how."""
        name = f"without a database, {node.name}"
        client, turns = self.client(), []

        def stored(turn: Turn) -> str:
            turns.append(turn)
            said = [{"role": "user", "content": turn.question}]
            return asking.plain_chat(node.url, turn, said, False, store=True)

        client.ask("chat, stored", node.url, stored)
        ignored = turns[0].ignored
        self.verdict.check(
            f"{name} answers, and names store as ignored", "store" in ignored, ignored
        )
        told = node.health()
        self.verdict.check(f"{name} is well enough for the balancer", told[0] == 200, told)
        said = {"model": asking.MODEL, "input": "x"}
        more = {**said, "previous_response_id": before}
        refused: dict[str, tuple[str, str, Any]] = {
            "previous_response_id": ("anna", "/v1/responses", more),
            "background": ("anna", "/v1/responses", {**said, "background": True}),
            "conversations": ("anna", "/v1/conversations", {}),
            "keys with quotas": ("dora", "/v1/responses", {**said, "store": False}),
        }  # fmt: skip
        for what, (key, path, body) in refused.items():
            reply = send(node.url, key, path, body)
            text = reply.read().decode()
            good = reply.status == 503 and "store_lost" in text and reply.headers["retry-after"]
            self.verdict.check(f"{name} refuses {what} by name", good, f"{reply.status} {text}")
