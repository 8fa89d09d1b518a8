"""Responses in the background, and over WebSockets, while things go wrong around them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from socket import SHUT_RDWR
from typing import Any

import openai
import pytest
import treq
from harness import Daemon, in_thread, start_daemon, stop_daemon, until
from matrix import fault
from postgres import Postgres
from pytest_twisted import ensureDeferred
from subdaemon import Twistd
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from websockets.sync.client import connect

from claudeproxy.testing import fake_cli

pytestmark = pytest.mark.filterwarnings("ignore:The model:DeprecationWarning")

OVER = ("completed", "incomplete", "failed", "cancelled")
ASK = json.dumps({"type": "response.create", "model": "haiku", "input": "x"})


def sdk(daemon: Daemon) -> openai.OpenAI:
    return openai.OpenAI(base_url=daemon.url + "/v1", api_key="none", max_retries=0)


async def begin(daemon: Daemon) -> Any:
    create: Callable[..., Any] = sdk(daemon).responses.create
    return await in_thread(create, model="haiku", input="Hello", background=True)


async def over(daemon: Daemon, ident: str) -> Any:
    """The response, once it is over."""
    while True:
        found = await in_thread(sdk(daemon).responses.retrieve, ident)
        if found.status in OVER:
            return found


def url(daemon: Daemon) -> str:
    return daemon.url.replace("http", "ws", 1) + "/v1/responses"


@fault(
    "client",
    "cancels a background response that waits for a slot",
    "it never runs, and is told as cancelled; the one before it goes on",
)
@ensureDeferred
async def test_cancelled_while_it_waits_for_a_slot(make_daemon: Any, tmp_path: Path) -> None:
    daemon = await make_daemon(
        claude=fake_cli(tmp_path / "cli", deltas=40, pause=0.05), concurrency=1
    )
    first, second = await begin(daemon), await begin(daemon)
    found = await in_thread(sdk(daemon).responses.cancel, second.id)
    assert (found.status, found.output) == ("cancelled", [])
    assert (await over(daemon, first.id)).status == "completed"
    assert (await over(daemon, second.id)).status == "cancelled"


@fault(
    "daemon",
    "ends while a background response runs",
    "a stop fails it by name after --drain; after a kill, the next daemon tells it as failed",
)
@ensureDeferred
async def test_a_restart_loses_what_runs_and_says_so(tmp_path: Path) -> None:
    cli = fake_cli(tmp_path / "cli", deltas=100, pause=0.1)
    daemon = await start_daemon(tmp_path / "home", claude=cli, drain=0.1)
    first = await begin(daemon)
    await until(lambda: daemon.api.engine.admission.running == 1)
    path = next((tmp_path / "home").rglob("responses.sqlite"))
    with closing(sqlite3.connect(path)) as file:
        await until(lambda: file.execute("SELECT count(*) FROM responses").fetchone()[0] == 1)
        [as_killed] = file.execute("SELECT * FROM responses").fetchall()
    await stop_daemon(daemon)
    with closing(sqlite3.connect(path)) as file:
        drained = json.loads(file.execute("SELECT response FROM responses").fetchone()[0])
        assert (drained["status"], drained["error"]["message"]) == (
            "failed",
            "the daemon is stopping",
        )
        file.execute("DELETE FROM responses")
        file.execute(f"INSERT INTO responses VALUES ({', '.join('?' * len(as_killed))})", as_killed)
        file.commit()
    daemon = await start_daemon(tmp_path / "home", claude=cli)
    try:
        client = sdk(daemon).responses
        found = await in_thread(client.retrieve, first.id)
        assert found.status == "failed"
        assert "has ended" in found.error.message
        assert (await in_thread(client.cancel, first.id)).status == "failed"
        create: Callable[..., Any] = client.create
        with pytest.raises(openai.BadRequestError, match="not complete"):
            await in_thread(create, model="haiku", input="x", previous_response_id=first.id)
    finally:
        await stop_daemon(daemon)


@fault(
    "daemon",
    "is killed, and others share its store, while a background response runs",
    "for 15 seconds the others tell it as running, then as failed; its conversation goes on there",
)
@ensureDeferred
async def test_a_node_is_killed(
    postgres_url: str, postgres: Postgres, make_daemon: Any, tmp_path: Path
) -> None:
    node = Twistd(tmp_path, "--store", postgres_url)
    fake_cli(tmp_path / "cli", deltas=500, pause=0.1)
    other = await make_daemon(store=postgres_url, claude=fake_cli(tmp_path / "other"))
    try:
        await in_thread(node.up)
        asked: dict[str, Any] = {"model": "haiku", "input": "x"}
        made = await treq.json_content(await other.post("/v1/conversations", {}))
        asked["conversation"] = made["id"]
        body = json.dumps({**asked, "background": True}).encode()
        begun = await in_thread(lambda: node._send("POST", "/v1/responses", body).read())
        ident = json.loads(begun)["id"]
    finally:
        node.kill()
    client = sdk(other).responses
    assert (await in_thread(client.retrieve, ident)).status == "queued"
    assert (await other.post("/v1/responses", asked)).code == 409
    sql = "UPDATE claudemax.nodes SET seen = seen - INTERVAL '15 seconds' WHERE id <> '{}'"
    postgres.execute(sql.format(other.api.node), postgres_url.rpartition("/")[2])
    found = await in_thread(client.retrieve, ident)
    assert (found.status, "has ended" in found.error.message) == ("failed", True)
    assert (await in_thread(client.cancel, ident)).status == "failed"
    assert (await other.post("/v1/responses", asked)).code == 200


@fault(
    "machine",
    "loses the PostgreSQL of --store in mid-answer",
    "the answer goes on to its end, which says that it is not stored; what needs the store is "
    "refused (503, store_lost), the rest answered; once it is back, what ended meanwhile is stored",
)
@pytest.mark.expected_errors
@ensureDeferred
async def test_the_store_is_lost_in_mid_answer(
    postgres_url: str,
    postgres: Postgres,
    make_daemon: Any,
    tmp_path: Path,
    nothing_logged: list[str],
) -> None:
    cli = fake_cli(tmp_path / "cli", deltas=20, pause=0.05)
    daemon = await make_daemon(store=postgres_url, claude=cli, no_ledger=True)
    first = await begin(daemon)
    streaming = await daemon.post("/v1/responses", {"model": "haiku", "input": "x", "stream": True})
    postgres.stop("immediate")
    lines = (await treq.text_content(streaming)).split("\n")
    last = json.loads([line for line in lines if line.startswith("data: ")][-1][6:])
    assert (last["type"], last["response"]["store"]) == ("response.completed", False)
    assert not (await over(daemon, first.id)).store
    with pytest.raises(openai.InternalServerError, match="store does not answer"):
        await begin(daemon)
    assert set(nothing_logged) == {"{what} is not stored: {why}"}
    postgres.start()
    await until(lambda: not daemon.api._kept.store.lost)
    found = f"SELECT count(*) FROM claudemax.responses WHERE id = '{first.id}' AND node IS NULL"
    await until(lambda: postgres.execute(found, postgres_url.rpartition("/")[2]) == "1")
    assert (await in_thread(sdk(daemon).responses.retrieve, first.id)).store


@fault(
    "machine",
    "has a full disk under the stored responses",
    "turns go on, and replies say that they are not stored, as the log does; a background response "
    "is told from memory",
)
@pytest.mark.expected_errors
@ensureDeferred
async def test_a_full_disk_under_the_store(
    make_daemon: Any, tmp_path: Path, nothing_logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"))

    def full(*_: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(daemon.api._kept.store.responses, "_put", full)
    first = await begin(daemon)
    last = await over(daemon, first.id)
    assert last.status == "completed"
    await until(lambda: len(nothing_logged) == 2)
    assert (await in_thread(sdk(daemon).responses.retrieve, first.id)).status == "completed"
    nothing_logged.clear()


@fault(
    "client",
    "leaves a WebSocket in mid-answer, without a word",
    "its turn is cancelled, its process rewound",
)
@ensureDeferred
async def test_a_socket_is_cut(make_daemon: Any, tmp_path: Path) -> None:
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli", deltas=200, pause=0.1))

    def cut() -> None:
        with connect(url(daemon), proxy=None) as socket:
            socket.send(ASK)
            socket.recv(timeout=30)
            socket.socket.shutdown(SHUT_RDWR)

    await in_thread(cut)
    await until(lambda: daemon.api.engine.admission.running == 0)
    await until(lambda: not daemon.api.site.channels and not daemon.api.journal.running)


class Silent(Protocol):
    """Asks for a turn, and reads nothing of it."""

    def connectionMade(self) -> None:
        offer = {
            "Host": "localhost",
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in offer.items())
        self.transport.write(f"GET /v1/responses HTTP/1.1\r\n{lines}\r\n".encode())
        self.transport.pauseProducing()
        text = ASK.encode()
        # Masked with zeros, which changes nothing.
        self.transport.write(bytes([0x81, 0x80 | len(text)]) + bytes(4) + text)


@fault(
    "client",
    "never reads what a WebSocket sends",
    "its process is paused; after 60 seconds the connection is cut and the turn cancelled",
)
@ensureDeferred
async def test_a_socket_that_is_not_read(
    make_daemon: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("claudeproxy.web.websocket.STALL", 0.5)
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli", deltas=5000, size=4000))
    port = daemon.port[0].getHost().port
    silent = await connectProtocol(TCP4ClientEndpoint(reactor, "localhost", port), Silent())
    await until(lambda: daemon.api.engine.admission.running == 1)
    await until(lambda: daemon.api.engine.admission.running == 0)
    await until(lambda: not daemon.api.site.channels)
    silent.transport.abortConnection()
    turns = await treq.json_content(await treq.get(f"{daemon.url}/v1/usage/turns"))
    assert [row["outcome"] for row in turns["data"]] == ["client left"]
