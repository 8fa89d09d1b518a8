"""The one subscription behind all nodes, and which question has reached it from which node."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.internet.interfaces import IListeningPort

from claudeproxy.demo.answering.orders import last_user
from claudeproxy.demo.app import Received
from claudeproxy.rehearsal.account import Account, PlanWindow
from claudeproxy.rehearsal.home import put_login
from claudeproxy.rehearsal.proxy import rehearse

QUESTION = re.compile(r"question-(\d+)-\d+")
"""Its first number is that of the conversation."""

LATENCY = "[[wait 0.02]]"
"""Of the stand-in, in seconds: an upstream without any is none."""


class Upstream:
    """``reached``: of each question the nodes that have sent it, and were answered; ``said``: for
    each, which others were sent before it; ``foreign``: what else than one conversation was in a
    request."""

    account: Account
    port: IListeningPort

    def __init__(self) -> None:
        self.reached: defaultdict[str, list[str]] = defaultdict(list)
        self.said: dict[str, set[str]] = {}
        self.foreign: list[str] = []
        self._nodes: dict[str, str] = {}
        self._refused: Any = ()

    async def start(self, reactor: Any, directory: Path) -> None:
        rehearsal = await rehearse(reactor, directory, answer=self._answer, keep=100_000)
        self.account, self.port = rehearsal.subscription.account, rehearsal.port
        self._refused = rehearsal.subscription.messages.requests
        self._environ = rehearsal.environment
        now = int(self.account.now())
        self.account.windows = {
            "five_hour": PlanWindow(0.25, now + 4 * 3600),
            "seven_day": PlanWindow(0.5, now + 5 * 86_400),
        }

    def log_in(self, node: str, home: Path) -> Mapping[str, str]:
        """A login of its own for a node, in ``home``: what leads its CLI here."""
        login = self.account.log_in()
        self._nodes[login.access] = node
        put_login(home, login)
        return self._environ

    def window(self, used: float, *, new: bool = False) -> None:
        """The five hours are used so far; ``new``: those that follow."""
        resets = self.account.windows["five_hour"].resets + (5 * 3600 if new else 0)
        self.account.windows["five_hour"] = PlanWindow(used, resets)

    @property
    def requests(self) -> int:
        """Of messages, the refused ones as well."""
        return sum(received.path.startswith("/v1/messages") for received in list(self._refused))

    def _answer(self, received: Received) -> None:
        said, result = last_user(received.body)
        asked = [found[0] for found in QUESTION.finditer(said or result or "")]
        question = asked[-1] if asked else ""
        token = received.headers.get("authorization", "").partition(" ")[2]
        self.reached[question].append(self._nodes.get(token, "nobody"))
        self.said[question] = {found[0] for found in QUESTION.finditer(json.dumps(received.body))}
        conversations = set(QUESTION.findall(json.dumps(received.body)))
        if len(conversations) != 1:
            self.foreign.append(f"{question or 'nothing'}: there is {sorted(conversations)} in it")
