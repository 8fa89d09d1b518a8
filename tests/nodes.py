"""Several nodes in one process: real quotas and plans, on one clock, and between them only what a
database would be."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock

from claudeproxy.cli.login import LoginStatus
from claudeproxy.cli.models import ModelInfo
from claudeproxy.cluster.plan import SharedPlan
from claudeproxy.engine.merging import merge
from claudeproxy.engine.permit import Permit
from claudeproxy.engine.quota import Claim, Policy, Quota
from claudeproxy.messages import Failure, FailureError, Kind
from claudeproxy.store.database import StoreLost

STEP = 0.01
"""Seconds that the store and the news take."""

OPUS = ModelInfo("opus", "claude-opus-5-5")
A = Claim(OPUS, "a", {})
B = Claim(OPUS, "b", {})
BROKEN = Failure(Kind.UPSTREAM, "broken", 502)


class Database:
    """Leases, states of plans and news for all nodes; each thing takes a :data:`STEP`, and happens
    in its middle."""

    def __init__(self, clock: Any) -> None:
        self.clock = clock
        self.lost = False
        self.held: list[Callable[[], None]] | None = None
        """What does not happen yet; ``None`` if all does."""
        self.deaf = False
        """Whether news get lost."""
        self.leases: dict[str, str] = {}
        self.states: dict[str, str] = {}
        self.saves: list[float] = []
        self.heard: dict[str, list[Callable[[str, dict[str, Any]], None]]] = {}

    def run(self, work: Callable[..., Any], *args: Any) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()

        def do() -> None:
            try:
                if self.lost:
                    raise StoreLost
                result = work(*args)
            except Exception as error:
                self.clock.callLater(STEP / 2, done.errback, error)
            else:
                self.clock.callLater(STEP / 2, done.callback, result)

        if self.held is None:
            self.clock.callLater(STEP / 2, do)
        else:
            self.held.append(do)
        return done

    def go_on(self) -> None:
        """Let happen what was held."""
        held, self.held = self.held or [], None
        for do in held:
            do()

    def node_died(self, name: str) -> None:
        """What the other nodes see once its heart has stopped."""
        self.heard.pop(name, None)
        self.leases = {of: node for of, node in self.leases.items() if node != name}


class Access:
    """What one node has of the database: its leases, states and news."""

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self._name = name
        self.heard: list[Callable[[str, dict[str, Any]], None]] = []
        database.heard[name] = self.heard

    def take(self, names: Collection[str]) -> Deferred[set[str]]:
        def taken() -> set[str]:
            missing = {name for name in names if name in self._database.leases}
            if not missing:
                self._database.leases.update(dict.fromkeys(names, self._name))
            return missing

        return self._database.run(taken)

    def release(self, names: Collection[str]) -> Deferred[None]:
        def released() -> None:
            for name in names:
                if self._database.leases.get(name) == self._name:
                    del self._database.leases[name]

        return self._database.run(released)

    def load(self, account: str) -> Deferred[dict[str, Any] | None]:
        return self._database.run(lambda: json.loads(self._database.states.get(account, "null")))

    def save(self, account: str, state: Mapping[str, Any]) -> Deferred[None]:
        sent = json.dumps(state)

        def saved() -> None:
            self._database.saves.append(self._database.clock.seconds())
            kept, new = self._database.states.get(account), json.loads(sent)
            merged = new if kept is None else merge(json.loads(kept), new)
            self._database.states[account] = json.dumps(merged)

        return self._database.run(saved)

    def tell(self, kind: str, what: dict[str, Any]) -> None:
        sent = json.dumps(what)
        assert len(sent) < 8000
        if not self._database.lost and not self._database.deaf:
            for name in self._database.heard:
                if name != self._name:
                    self._database.clock.callLater(STEP, self._deliver, name, kind, sent)

    def _deliver(self, name: str, kind: str, sent: str) -> None:
        for heard in list(self._database.heard.get(name, ())):
            heard(kind, json.loads(sent))


_begun: list[Deferred[Permit]] = []


def end_all() -> None:
    """Give up the turns that still wait: left to the collector, they would end each other in any
    order."""
    while _begun:
        entering = _begun.pop()
        if not entering.called:
            entering.addErrback(lambda _: None)
            entering.cancel()


class Node:
    """A daemon, as far as the plan goes."""

    def __init__(
        self, database: Database, name: str, account: str | None, policy: Policy | None
    ) -> None:
        self.clock = database.clock
        self.quota = Quota(self.clock.seconds, policy)
        self.quota.applies = True
        if account is not None:
            self.log_in(account)
        access = Access(database, name)
        self.plan = SharedPlan(self.clock, self.quota, access, access, access)
        self.plan.start()

    def log_in(self, account: str) -> None:
        self.quota.login_is(LoginStatus(True, account), stored=False)

    def enter(self, claim: Claim = A) -> Deferred[Permit]:
        """As a turn does."""

        async def admitted() -> Permit:
            while True:
                found = self.quota.admit(claim)
                if isinstance(found, Permit):
                    found = await found.lease() or found
                if isinstance(found, Permit):
                    return found
                await found

        entering = ensureDeferred(admitted())
        _begun.append(entering)
        return entering

    def entered(self, claim: Claim = A) -> Permit:
        """The permit, given as soon as the store has answered."""
        permits: list[Permit] = []
        self.enter(claim).addCallback(permits.append)
        pump(self.clock)
        (permit,) = permits
        return permit

    def refused(self, claim: Claim = A) -> Failure:
        """Why there is none, told as soon as the store has answered."""
        failures: list[Any] = []
        self.enter(claim).addErrback(failures.append)
        pump(self.clock)
        (reason,) = failures
        assert reason.check(FailureError), reason
        failure: Failure = reason.value.failure
        return failure

    def turn(self, info: dict[str, Any], claim: Claim = A) -> None:
        """A whole turn that is answered; ``info`` comes with the answer."""
        answered(self, self.entered(claim), info)
        pump(self.clock)

    def failing_turn(self, failure: Failure, claim: Claim = A) -> None:
        self.entered(claim).ended(failure)
        pump(self.clock)


class Nodes:
    """``accounts``: one for each node."""

    def __init__(self, *accounts: str | None, policy: Policy | None = None) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.database = Database(self.clock)
        self.nodes: list[Node] = []
        self._policy = policy
        for account in accounts:
            self.add(account)

    def add(self, account: str | None = "mine") -> Node:
        """One more, started now."""
        node = Node(self.database, str(len(self.nodes)), account, self._policy)
        self.nodes.append(node)
        pump(self.clock)
        return node

    def lose(self) -> None:
        """The database does not answer."""
        self.database.lost = True

    def find(self) -> None:
        """It is back, and each node notices."""
        self.database.lost = False
        for node in self.nodes:
            node.plan.back()
        pump(self.clock)


def pump(clock: Clock, steps: int = 40) -> None:
    """Let everything happen that is under way: less than half a second."""
    for _ in range(steps):
        clock.advance(STEP)


def answered(node: Node, permit: Permit, info: dict[str, Any]) -> None:
    node.quota.hear(info)
    permit.billing_known(info)
    permit.ended(None)


def used_up(window: str = "five_hour", after: float | None = 5000.0) -> Failure:
    """The failure of a turn that met a window that is used up."""
    return Failure(Kind.PLAN_LIMIT, "used up", 429, retry_after=after, window=window)


def told(extra: str = "rejected", *, paid: bool = False, **used: float) -> dict[str, Any]:
    """A ``rate_limit_info``; ``extra``: extra usage; ``used``: window to share."""
    windows = {name: {"utilization": share, "resetsAt": 9000} for name, share in used.items()}
    return {
        "status": "allowed",
        "rateLimitType": "five_hour",
        "resetsAt": 9000,
        "overageStatus": extra,
        "isUsingOverage": paid,
        "unifiedWindows": windows,
    }


def charged_for(window: str | None = None, **used: float) -> dict[str, Any]:
    """That of a reply that was paid as extra usage: in place of ``window``, or by its content."""
    info = told("allowed", paid=True, **used)
    if window is None:
        return info
    return {**info, "status": "rejected", "rateLimitType": window}
