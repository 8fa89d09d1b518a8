"""Nodes that share a PostgreSQL."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import treq
from harness import Daemon, settings, until
from postgres import Postgres
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred as run
from twisted.internet.defer import gatherResults

from claudeproxy.options import ConfigError
from claudeproxy.service import Claudemax
from claudeproxy.store.postgres import PostgreSQL
from claudeproxy.testing import fake_cli

pytestmark = pytest.mark.only("key")


@pytest.fixture
def node(make_daemon: Any, postgres_url: str, tmp_path: Path) -> Any:
    """One more, over the double of the CLI."""

    async def make(**changes: Any) -> Daemon:
        changes.setdefault("store", postgres_url)
        made: Daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"), processes=1, **changes)
        return made

    return make


async def get(daemon: Daemon, path: str) -> Any:
    reply = await treq.get(f"{daemon.url}{path}")
    assert reply.code == 200
    return await (reply.json() if path != "/metrics" else reply.text())


async def respond(daemon: Daemon, text: str, **more: Any) -> Any:
    body = {"model": "opus", "input": text, **more}
    reply = await treq.post(f"{daemon.url}/v1/responses", json=body)
    assert reply.code == 200, await reply.text()
    return await reply.json()


@ensureDeferred
async def test_what_one_node_stores_the_other_knows(node: Any) -> None:
    a, b = await node(), await node()
    first = await respond(a, "hello")
    # Both are known once their rows are committed.
    await until(lambda: a.api.engine.admission.running == 0)
    found = await get_when_there(b, f"/v1/responses/{first['id']}")
    assert found["output"] == first["output"]
    second = await respond(b, "and again", previous_response_id=first["id"])
    assert second["previous_response_id"] == first["id"]
    assert [file.name for file in Path(a.home).rglob("*.sqlite")] == ["outbox.sqlite"]

    async def counted() -> int:
        told = await get(a, "/v1/usage")
        turns: int = told["ledger"]["today"]["turns"]
        return turns

    while await counted() < 2:
        pass


async def get_when_there(daemon: Daemon, path: str) -> Any:
    while True:
        reply = await treq.get(f"{daemon.url}{path}")
        if reply.code == 200:
            return await reply.json()
        await reply.content()


@ensureDeferred
async def test_health_tells_of_the_store_and_its_nodes(node: Any, postgres: Postgres) -> None:
    a, b = await node(), await node()
    names = sorted([a.api.node, b.api.node])
    await until(lambda: b.api._kept.nodes.alive == names)
    told = await get(b, "/health")
    assert told["node"] == b.api.node != a.api.node
    assert told["store"] == {
        "kind": "postgresql",
        "reachable": True,
        "since": None,
        "nodes": names,
        "other_accounts": [],
        "waiting_rows": 0,
    }
    assert "claudemax_store_up 1.0" in await get(b, "/metrics")
    postgres.stop()
    await until(lambda: b.api._kept.database.lost_since is not None)  # nobody has asked
    told = await get(b, "/health")
    assert told["status"] == "degraded"
    assert told["store"]["reachable"] is False
    assert told["store"]["since"].endswith("Z")
    assert "claudemax_store_up 0.0" in await get(b, "/metrics")
    postgres.start()
    await until(lambda: b.api._kept.database.lost_since is None)
    assert (await get(b, "/health"))["status"] == "ok"


@pytest.fixture
def keys(tmp_path: Path) -> str:
    path = tmp_path / "keys"
    path.write_text("app: app requests=5/day tokens=1M/day\nmine: mine\n")
    path.chmod(0o600)
    return str(path)


async def say(daemon: Daemon, key: str) -> tuple[int, Any]:
    body = {"model": "haiku", "messages": [{"role": "user", "content": "x"}]}
    reply = await daemon.post("/v1/chat/completions", body, authorization=f"Bearer {key}")
    return reply.code, await treq.json_content(reply)


async def used(daemon: Daemon) -> list[float]:
    """Of its quotas, by the key ``app``."""
    headers = {"authorization": "Bearer app"}
    told = await treq.json_content(await treq.get(f"{daemon.url}/v1/usage", headers=headers))
    return [quota["used"] for quota in told["keys"][0]["quotas"]]


@ensureDeferred
async def test_a_quota_is_that_of_all_nodes_together(node: Any, keys: str) -> None:
    nodes = [await node(api_key_file=keys) for _ in range(2)]
    asked = [run(say(daemon, "app")) for _ in range(6) for daemon in nodes]
    codes = [code for code, _ in await gatherResults(asked)]
    assert (codes.count(200), codes.count(429)) == (5, 7)
    await until(lambda: not any(one.api.journal.running for one in nodes))
    await until(lambda: not any(one.api._kept._outbox.waiting for one in nodes))
    told = [await used(daemon) for daemon in nodes]
    assert told[0] == told[1]
    assert told[0][0] == 5 and told[0][1] > 0


@pytest.mark.alone
@ensureDeferred
async def test_turns_wait_while_the_database_is_lost(
    node: Any, keys: str, postgres: Postgres
) -> None:
    daemon = await node(api_key_file=keys)
    outbox = daemon.api._kept._outbox
    assert (await say(daemon, "app"))[0] == 200
    await until(lambda: not daemon.api.journal.running and not outbox.waiting)
    before = await used(daemon)
    postgres.kill()
    await until(lambda: daemon.api._kept.database.lost_since is not None)
    for _ in range(3):
        assert (await say(daemon, "mine"))[0] == 200
        code, body = await say(daemon, "app")
        assert (code, body["error"]["code"]) == (503, "store_lost")
    await until(lambda: outbox.waiting == 6)
    headers = {"authorization": "Bearer mine"}
    told = await treq.json_content(await treq.get(f"{daemon.url}/health", headers=headers))
    assert told["store"]["waiting_rows"] == 6
    assert not told["store"]["reachable"]
    postgres.start()
    await until(lambda: outbox.waiting == 0, 15)
    url = f"{daemon.url}/v1/usage/turns"
    told = await treq.json_content(await treq.get(url, headers=headers))
    by_key = [(turn["key"], turn["status"]) for turn in reversed(told["data"])]
    assert by_key == [("app", 200), *[("mine", 200), ("app", 503)] * 3]
    assert await used(daemon) == before
    assert (await say(daemon, "app"))[0] == 200


@pytest.mark.expected_errors
@ensureDeferred
async def test_a_node_starts_before_its_database(
    node: Any, postgres: Postgres, postgres_url: str
) -> None:
    postgres.stop()
    alone = await node()
    assert (await get(alone, "/health"))["status"] == "degraded"
    answer = await treq.post(
        f"{alone.url}/v1/messages",
        json={"model": "opus", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]},
    )
    assert answer.code == 200
    postgres.start()
    await until(lambda: alone.api._kept.nodes.alive)
    await respond(alone, "hello")


@ensureDeferred
async def test_without_a_database_there_are_files(node: Any) -> None:
    told = await get(await node(store=None), "/health")
    assert told["store"] == {
        "kind": "sqlite",
        "reachable": True,
        "since": None,
        "nodes": [],
        "other_accounts": [],
        "waiting_rows": 0,
    }
    told = await get(await node(store=None, no_store=True, no_ledger=True), "/health")
    assert told["store"]["kind"] == "none"


def refused(tmp_path: Path, url: str) -> str:
    chosen = settings(claude=fake_cli(tmp_path / "cli"), store=url)
    with pytest.raises(ConfigError) as caught:
        Claudemax(reactor, chosen, {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"})  # type: ignore[arg-type]
    assert "secret" not in str(caught.value)
    return str(caught.value)


def test_what_is_refused_at_the_start(
    tmp_path: Path, postgres: Postgres, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert refused(tmp_path, "postgresql://a:secret%zz@h/d").startswith("--store: is no URL that ")
    PostgreSQL(postgres_url)
    name = postgres_url.rpartition("/")[2]
    postgres.execute("INSERT INTO claudemax.schema_version VALUES (99)", name)
    hidden = postgres_url.replace("claudemax@", "claudemax:***@")
    assert refused(tmp_path, postgres_url.replace("claudemax@", "claudemax:secret@")) == (
        f"--store {hidden}: its tables have version 99, and this claudemax knows 1: update it"
    )
    for module in ("postgres", "migrations", "connection"):
        monkeypatch.delitem(sys.modules, f"claudeproxy.store.{module}", raising=False)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    why = refused(tmp_path, postgres_url)
    assert why.startswith("--store needs what is not installed (")
    assert "[postgres]" in why


@pytest.mark.parametrize("no_ledger", [False, True])
@ensureDeferred
async def test_a_node_that_starts_knows_what_keys_have_used(
    node: Any, tmp_path: Path, no_ledger: bool
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("app: sk-app requests=10/day\n")
    keys.chmod(0o600)
    a = await node(api_key_file=keys, no_ledger=no_ledger)
    body = {"model": "opus", "input": "hello"}
    asked = await a.post("/v1/responses", body, authorization="Bearer sk-app")
    assert asked.code == 200, await asked.text()
    b = await node(api_key_file=keys, no_ledger=no_ledger)
    rules = b.api.gate.keys.rules_of("app")
    await until(lambda: b.api.quotas.of("app", rules)[0].used == 1)
