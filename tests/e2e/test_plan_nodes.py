"""One plan on two daemons, each with the real CLI and a login of its own to the same account."""

from __future__ import annotations

from typing import Any

import pytest
import treq
from harness import Daemon, until
from nodes import Access, Database
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred as run
from twisted.internet.defer import gatherResults

from claudeproxy.cluster.plan import SharedPlan
from claudeproxy.rehearsal.account import Account, PlanWindow

pytestmark = pytest.mark.only("subscription")

FOREIGN = "I am a foreign client."


def account(daemon: Daemon) -> Account:
    assert daemon.subscription is not None
    return daemon.subscription.account


async def two(make_daemon: Any) -> tuple[Database, Daemon, Daemon]:
    """Their account has extra usage switched on; foreign clients are charged for."""
    database = Database(reactor)
    daemons: list[Daemon] = []
    for name in ("first", "second"):
        daemon = await make_daemon()
        account(daemon).extra_usage = True
        account(daemon).judged = FOREIGN
        access = Access(database, name)
        await SharedPlan(reactor, daemon.api.engine.quota, access, access, access).start()
        await until(lambda daemon=daemon: daemon.api.engine.quota.login.account)
        daemons.append(daemon)
    first, second = daemons
    return database, first, second


async def ask(daemon: Daemon, text: str, system: str = "") -> tuple[int, Any]:
    """Status and JSON."""
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": text})
    response = await daemon.post("/v1/chat/completions", {"model": "opus", "messages": messages})
    return response.code, await treq.json_content(response)


@ensureDeferred
async def test_an_unknown_set_up_is_paid_for_once(make_daemon: Any) -> None:
    database, first, second = await two(make_daemon)
    assert (await ask(first, "x"))[0] == 200
    asked = [run(ask(daemon, "x", FOREIGN)) for daemon in (first, second, first, second)]
    statuses = sorted(status for status, _ in await gatherResults(asked))
    assert statuses == [200, 402, 402, 402]
    assert account(first).paid + account(second).paid == 1
    assert [(await ask(daemon, "x"))[0] for daemon in (first, second)] == [200, 200]
    await until(lambda: not database.leases)


@ensureDeferred
async def test_a_window_that_closes_on_one_is_closed_on_the_other(make_daemon: Any) -> None:
    _, first, second = await two(make_daemon)
    account(first).extra_usage = False
    resets = int(account(first).now()) + 3600
    account(first).windows["five_hour"] = PlanWindow(1.0, resets)
    assert (await ask(first, "x"))[0] == 429
    await until(second.api.engine.quota.closed, 1)
    turns = len(second.turns())
    assert ((await ask(second, "x"))[0], len(second.turns())) == (429, turns)


@ensureDeferred
async def test_the_same_over_one_postgresql(make_daemon: Any, postgres_url: str) -> None:
    """Whoever starts later knows, too; and a set-up that is charged for is paid for once."""
    first, second = [await make_daemon(store=postgres_url) for _ in range(2)]
    for daemon in (first, second):
        account(daemon).judged = FOREIGN
        await until(lambda daemon=daemon: daemon.api.engine.quota.login.account)
    account(first).extra_usage = account(second).extra_usage = True
    assert (await ask(first, "x"))[0] == 200
    asked = [run(ask(daemon, "x", FOREIGN)) for daemon in (first, second, first, second)]
    statuses = sorted(status for status, _ in await gatherResults(asked))
    assert statuses == [200, 402, 402, 402]
    assert account(first).paid + account(second).paid == 1

    account(first).extra_usage = False
    resets = int(account(first).now()) + 3600
    account(first).windows["five_hour"] = PlanWindow(1.0, resets)
    assert (await ask(first, "x"))[0] == 429
    await until(second.api.engine.quota.closed, 1)
    late = await make_daemon(store=postgres_url)
    await until(late.api.engine.quota.closed)
    for daemon in (second, late):
        turns = len(daemon.turns())
        assert ((await ask(daemon, "x"))[0], len(daemon.turns())) == (429, turns)
    health = await treq.json_content(await treq.get(f"{first.url}/health"))
    assert health["store"]["kind"] == "postgresql"
    assert first.api.node in health["store"]["nodes"]
    assert health["store"]["other_accounts"] == []


@ensureDeferred
async def test_a_client_that_leaves_while_leases_are_taken_leaves_none(make_daemon: Any) -> None:
    database, first, second = await two(make_daemon)
    database.held = []
    asked = run(ask(first, "x", FOREIGN))
    await until(lambda: database.held)
    assert first.api.engine.admission.running == 1
    asked.addErrback(lambda reason: None)
    asked.cancel()
    await until(lambda: first.api.engine.admission.running == 0)
    database.go_on()
    await until(lambda: not database.leases and not first.api.engine.quota.undecided)
    assert (await ask(second, "x", FOREIGN))[0] == 200
    assert account(first).paid == 0
