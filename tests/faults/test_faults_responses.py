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
from pytest_twisted import ensureDeferred
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
    "machine",
    "has a full disk under the stored responses",
    "turns go on; a background response is told from memory; the log says that it is not stored",
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
