"""The plan, its windows and the keys' quotas are one for all nodes: asked with nothing else."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from attrs import define

from . import asking
from .clients import Over
from .disturbances import Disturbances
from .keys import BURST, TOKENS
from .nodes import Node
from .turns import Turn
from .upstream import Upstream
from .verdict import Verdict

SOON = 1.0
"""Seconds within which one node has to know that another has found a window closed. How far windows
are used is told once a second."""

FOREIGN = "I am a foreign client."


@define
class Plan:
    """``probe``: seconds after which nodes probe a closed window."""

    disturbances: Disturbances
    probe: float

    @property
    def _verdict(self) -> Verdict:
        return self.disturbances.verdict

    @property
    def _upstream(self) -> Upstream:
        return self.disturbances.upstream

    @property
    def _nodes(self) -> list[Node]:
        return list(self.disturbances.farm.nodes)

    def all(self) -> None:
        for phase in (self._chains, self._quotas, self._windows, self._reserve, self._closed,
                      self._charged):  # fmt: skip
            self._verdict.goes_on(phase.__name__, phase)

    def _ask(self, node: Node, key: str = "anna", system: str = "") -> str:
        """How one turn ends: empty, or why not."""
        client = self.disturbances.client(key)
        turns: list[Turn] = []

        def how(turn: Turn) -> str:
            turns.append(turn)
            said = [{"role": "system", "content": system}] if system else []
            said.append({"role": "user", "content": turn.question})
            return asking.plain_chat(node.url, turn, said, False)

        with suppress(Over):
            client.ask("plan", node.url, how)
        return turns[0].cause or ""

    def _ask_all(self, number: int, key: str = "anna", system: str = "") -> Counter[str]:
        """The same for so many at once, over all nodes in turn."""
        nodes = self._nodes
        with ThreadPoolExecutor(number) as many:
            asked = [
                many.submit(self._ask, nodes[n % len(nodes)], key, system) for n in range(number)
            ]
        return Counter(one.result() for one in asked)

    def _spread(self, what: str, knows: Callable[[], object], soon: float = SOON) -> None:
        """What one node has just learnt, the other has to know soon."""
        name = f"{what} is known to the other node"
        took = self._verdict.happens(f"{name} within {soon:g} s", knows, soon)
        self._verdict.figures[f"{name} after"] = f"{took * 1000:.0f} ms"

    # -- what is stored --

    def _chains(self) -> None:
        """Made on one node, gone on with on the other, in both directions."""
        for first, second in (self._nodes, self._nodes[::-1]):
            for kind in ("previous_response_id", "conversation"):
                client = self.disturbances.client()
                more = {}
                if kind == "conversation":
                    more[kind] = client.openai(first.url).conversations.create().id
                for node in (first, second, first):
                    client.go_on(kind, node.url, more)
                asked = {f"question-{client.number}-{number}" for number in (1, 2, 3)}
                said = self._upstream.said[max(asked)]
                self._verdict.check(
                    f"by {kind}, {second.name} goes on where {first.name} was", said == asked, said
                )

    # -- quotas --

    def _quotas(self) -> None:
        ended = self._ask_all(2 * BURST, "dora")
        expected = {"": BURST, "429 rate_limit_exceeded": BURST}
        self._verdict.check(
            f"of {2 * BURST} turns at once over both nodes, a key with {BURST} a day gets {BURST}",
            ended == expected, dict(ended),
        )  # fmt: skip
        served, causes = 0, Counter[str]()
        while not causes and served < 200:
            cause = self._ask(self._nodes[served % 2], "emil")
            if cause:
                causes[cause] += 1
            else:
                served += 1
        self._verdict.check(
            f"a key with {TOKENS} tokens a day is refused at last",
            causes == {"429 rate_limit_exceeded": 1}, (served, dict(causes)),
        )  # fmt: skip

    # -- windows --

    def _used(self, node: Node) -> float | None:
        window = node.usage()["windows"].get("five_hour")
        return window and window["used"]

    def _windows(self) -> None:
        a, b = self._nodes
        self._upstream.window(0.42)
        self._verdict.none("a turn of a known window is answered", self._ask(a))
        self._spread("how far a window is used", lambda: self._used(b) == 42, 2 * SOON)

    def _reserve(self) -> None:
        """Of the keys that leave one."""
        a, b = self._nodes
        self._verdict.none("a reserve that is not reached hinders nobody", self._ask(a, "frau"))
        self._upstream.window(0.93)
        self._ask(b)
        self._spread("that a reserve is reached", lambda: self._used(a) == 93, 2 * SOON)
        before = self._upstream.requests
        causes = {node.name: self._ask(node, "frau") for node in self._nodes}
        self._verdict.check(
            "a reserve is kept by both nodes",
            set(causes.values()) == {"429 rate_limit_exceeded"}, causes,
        )  # fmt: skip
        self._verdict.check("and nothing goes upstream for it", self._upstream.requests == before)

    def _closed(self) -> None:
        a, b = self._nodes
        self._upstream.window(1.0)
        cause = self._ask(a)
        began = time.monotonic()
        self._verdict.check("a full window closes", cause == "429 rate_limit_exceeded", cause)
        self._spread("a closed window", lambda: self._is_closed(b))
        before = self._upstream.requests
        refused = self._ask_all(6)
        self._verdict.check(
            "a closed window is closed on both nodes, and nobody asks upstream",
            set(refused) == {"429 rate_limit_exceeded"} and self._upstream.requests == before,
            dict(refused),
        )  # fmt: skip
        # Once it may be probed, one of all is let through.
        self._wait_for_probe(began)
        refused = self._ask_all(8)
        asked = self._upstream.requests - before
        self._verdict.check(
            "a closed window is probed by one turn of all nodes",
            asked == 1 and set(refused) == {"429 rate_limit_exceeded"}, (asked, dict(refused)),
        )  # fmt: skip
        began = time.monotonic()
        self._upstream.window(0.3, new=True)
        self._wait_for_probe(began)
        self._verdict.none("a probe that is answered opens it", self._ask(b))
        self._spread("an opened window", lambda: not self._is_closed(a))
        self._verdict.none("and the other node serves again", self._ask(a))

    def _is_closed(self, node: Node) -> bool:
        return "five_hour" in node.health()[1].get("used_up_until", ())

    def _wait_for_probe(self, closed: float) -> None:
        # The one thing here that is a matter of time: whether a probe is due cannot be seen.
        time.sleep(max(0.0, closed + self.probe + 0.2 - time.monotonic()))

    # -- charges --

    def _charged(self) -> None:
        """A set-up that is charged for is found out once, not once a node."""
        account = self._upstream.account
        account.extra_usage, account.judged = True, FOREIGN
        for node in self._nodes:
            self._ask(node)
        before = account.paid
        ended = self._ask_all(8, system=FOREIGN)
        account.extra_usage, account.judged = False, None
        paid = account.paid - before
        self._verdict.check(
            "a set-up that is charged for is charged for once over both nodes",
            paid == 1 and ended == {"": 1, "402 insufficient_quota": 7}, (paid, dict(ended)),
        )  # fmt: skip
