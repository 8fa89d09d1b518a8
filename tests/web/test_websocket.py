"""Responses over a WebSocket: with the official SDK, and frames that no SDK sends."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import create_connection
from typing import Any

import openai
import pytest
import treq
from harness import Daemon, in_thread, start_daemon, stop_daemon, until
from pytest_twisted import ensureDeferred
from twisted.internet.defer import ensureDeferred as run
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.sync.client import ClientConnection, connect

from claudeproxy.testing import fake_cli

pytestmark = [
    pytest.mark.cli,
    pytest.mark.filterwarnings("ignore:The model:DeprecationWarning"),
]

MODEL = "claude-sonnet-4-5"
TERMINAL = ("response.completed", "response.failed", "response.incomplete", "error")


def url(daemon: Daemon, path: str = "/v1/responses") -> str:
    return daemon.url.replace("http", "ws", 1) + path


@contextmanager
def opened(daemon: Daemon, **headers: str) -> Iterator[ClientConnection]:
    with connect(url(daemon), additional_headers=headers, max_size=None, proxy=None) as socket:
        yield socket


def turn(socket: ClientConnection, text: Any, **fields: Any) -> list[dict[str, Any]]:
    """The events of one turn."""
    socket.send(json.dumps({"type": "response.create", "model": MODEL, "input": text, **fields}))
    return rest(socket)


def rest(socket: ClientConnection) -> list[dict[str, Any]]:
    events = []
    while True:
        events.append(json.loads(socket.recv(timeout=30)))
        if events[-1]["type"] in TERMINAL:
            return events


def text_of(events: list[dict[str, Any]]) -> str:
    return str(events[-1]["response"]["output"][-1]["content"][0]["text"])


@ensureDeferred
async def test_turns_with_the_official_sdk(daemon: Daemon) -> None:
    client = openai.OpenAI(base_url=daemon.url + "/v1", api_key="none", max_retries=0)

    def talk() -> list[str]:
        said = []
        previous: Any = None
        with client.responses.connect() as connection:
            for text in ("Hello", "And?"):
                connection.response.create(
                    model=MODEL, input=text, store=False, previous_response_id=previous
                )
                for event in connection:
                    if event.type == "response.completed":
                        said.append(event.response.output_text)
                        previous = event.response.id
                        break
        return said

    assert await in_thread(talk) == ["You said: Hello", "You said: And?"]
    blocks = [block["text"] for m in daemon.body()["messages"] for block in m["content"]]
    assert [b for b in blocks if not b.startswith("<")] == ["Hello", "You said: Hello", "And?"]


@ensureDeferred
async def test_the_events_are_those_of_a_stream(daemon: Daemon) -> None:
    body = {"model": MODEL, "input": "Hello", "stream": True}
    streamed = await treq.text_content(await daemon.post("/v1/responses", body))
    lines = [line for line in streamed.split("\n") if line.startswith("data: ")]
    expected = [json.loads(line.removeprefix("data: "))["type"] for line in lines]

    def talk() -> list[dict[str, Any]]:
        with opened(daemon) as socket:
            return turn(socket, "Hello")

    events = await in_thread(talk)
    assert [event["type"] for event in events] == expected
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    ident = events[-1]["response"]["id"]
    stored = await treq.json_content(await treq.get(f"{daemon.url}/v1/responses/{ident}"))
    assert stored == events[-1]["response"]


@ensureDeferred
async def test_what_is_not_stored_is_remembered_by_the_connection_only(daemon: Daemon) -> None:
    result = {"type": "function_call_output", "call_id": "call_none", "output": "x"}

    def talk() -> dict[str, Any]:
        told = {}
        with opened(daemon) as socket:
            first = turn(socket, "Hello", store=False)[-1]["response"]["id"]
            told["continued"] = turn(socket, "And?", store=False, previous_response_id=first)
            second = told["continued"][-1]["response"]["id"]
            told["failed"] = turn(socket, [result], store=False, previous_response_id=second)
            told["evicted"] = turn(socket, "x", store=False, previous_response_id=second)
            third = turn(socket, "Hello", store=False)[-1]["response"]["id"]
        with opened(daemon) as socket:
            told["reconnected"] = turn(socket, "x", previous_response_id=third)
            told["recovered"] = turn(socket, "y")
        return told

    told = await in_thread(talk)
    assert text_of(told["continued"]) == "You said: And?"
    [failed] = told["failed"]
    assert (failed["type"], failed["status"]) == ("error", 400)
    assert failed["error"]["param"] == "input[0].call_id"
    for missing in ("evicted", "reconnected"):
        [error] = told[missing]
        assert error["error"]["code"] == "previous_response_not_found"
        assert error["error"]["param"] == "previous_response_id"
    assert text_of(told["recovered"]) == "You said: y"


@ensureDeferred
async def test_a_tool_loop_is_served_by_the_parked_process(daemon: Daemon) -> None:
    tools = [{"type": "function", "name": "add", "parameters": {"type": "object"}}]

    def talk() -> tuple[Any, Any]:
        with opened(daemon) as socket:
            first = turn(socket, '[[call add {"a": 1}]]', tools=tools, store=False)
            [call] = first[-1]["response"]["output"]
            result = {"type": "function_call_output", "call_id": call["call_id"], "output": "2"}
            ident = first[-1]["response"]["id"]
            last = turn(socket, [result], tools=tools, store=False, previous_response_id=ident)
            return call, last

    call, last = await in_thread(talk)
    assert call["name"] == "add"
    assert text_of(last) == "The tool said: 2"
    turns = await treq.json_content(await treq.get(f"{daemon.url}/v1/usage/turns?limit=2"))
    assert [row["placement"] for row in turns["data"]][:1] == ["parked"]


@ensureDeferred
async def test_one_turn_after_another_and_no_more_than_wait(
    make_daemon: Any, tmp_path: Path
) -> None:
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli", deltas=10, pause=0.05))
    body = json.dumps({"type": "response.create", "model": "haiku", "input": "x"})

    def talk() -> tuple[list[Any], list[list[Any]]]:
        with opened(daemon) as socket:
            for _ in range(6):
                socket.send(body)
            turns = [rest(socket) for _ in range(6)]
        return [events for events in turns if events[-1]["type"] == "error"], turns

    [[*_, refused]], turns = await in_thread(talk)
    assert (refused["status"], refused["error"]["code"]) == (429, "websocket_queue_full")
    whole = [events for events in turns if events[-1]["type"] == "response.completed"]
    assert len(whole) == 5
    for events in whole:
        idents = {e["response"]["id"] for e in events if "response" in e}
        assert len(idents) == 1


@ensureDeferred
async def test_a_client_that_leaves_cancels_its_turn(make_daemon: Any, tmp_path: Path) -> None:
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli", deltas=200, pause=0.1))

    def leave() -> None:
        with opened(daemon) as socket:
            socket.send(json.dumps({"type": "response.create", "model": "haiku", "input": "x"}))
            socket.recv(timeout=30)

    await in_thread(leave)
    await until(lambda: daemon.api.engine.admission.running == 0)
    await until(lambda: not daemon.api.journal.running and not daemon.api.site.channels)
    turns = await treq.json_content(await treq.get(f"{daemon.url}/v1/usage/turns"))
    assert [row["outcome"] for row in turns["data"]] == ["client left"]


@ensureDeferred
async def test_a_failure_ends_a_turn_but_not_the_connection(
    make_daemon: Any, tmp_path: Path
) -> None:
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"))

    def talk() -> tuple[Any, Any, Any]:
        with opened(daemon) as socket:
            early = turn(socket, "[[question exit]]")
            late = turn(socket, "[[middle exit]]")
            return early, late, turn(socket, "Hello")

    early, late, last = await in_thread(talk)
    assert [event["type"] for event in early] == ["error"]
    assert early[0]["status"] >= 500
    assert early[0]["error"]["code"]
    assert late[-1]["type"] == "response.failed"
    assert late[-1]["response"]["error"]["code"] == "server_error"
    assert last[-1]["type"] == "response.completed"
    told = await treq.json_content(await treq.get(f"{daemon.url}/v1/debug/refused"))
    assert [one["status"] for one in told["data"]] == [early[0]["status"]], "late was no refusal"


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ("x", None),
        ("[]", None),
        ('{"type": "session.update"}', "type"),
        ('{"type": "response.create", "input": "x"}', "model"),
        ('{"type": "response.create", "model": "haiku"}', "input"),
        ('{"type": "response.create", "model": "haiku", "input": "x", "background": true}',
         "background"),
        ('{"type": "response.create", "model": "nothing", "input": "x"}', "model"),
        ("[" * 200 + "]" * 200, None),
    ],
)  # fmt: skip
@ensureDeferred
async def test_messages_that_ask_for_nothing(
    daemon: Daemon, message: str, param: str | None
) -> None:
    def talk() -> tuple[Any, Any]:
        with opened(daemon) as socket:
            socket.send(message)
            return rest(socket), turn(socket, "Hello")

    [error], after = await in_thread(talk)
    assert (error["type"], error["status"], error["error"]["param"]) == ("error", 400, param)
    assert after[-1]["type"] == "response.completed"
    told = await treq.json_content(await treq.get(f"{daemon.url}/v1/debug/refused"))
    kept = told["data"][0]
    assert (kept["status"], kept["param"], kept["path"]) == (400, param, "/v1/responses")
    fields = list(json.loads(message)) if message.startswith("{") else None
    assert (kept["fields"], kept["message"], kept["body_bytes"]) == (fields, None, len(message))
    assert kept["client"] == "Python"


@ensureDeferred
async def test_a_warm_up_makes_no_turn(daemon: Daemon) -> None:
    before = len(daemon.turns())

    def talk() -> tuple[Any, Any]:
        with opened(daemon) as socket:
            first = turn(socket, "Hello", generate=False, store=False)
            ident = first[-1]["response"]["id"]
            return first, turn(socket, "And?", store=False, previous_response_id=ident)

    first, second = await in_thread(talk)
    assert first[-1]["response"]["output"] == []
    assert second[-1]["type"] == "response.completed"
    assert len(daemon.turns()) == before + 1
    assert "Hello" in json.dumps(daemon.body())


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "https://evil.example"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({}, 401),
        ({"authorization": "Bearer wrong"}, 401),
    ],
)
@ensureDeferred
async def test_the_gate_is_that_of_http(
    make_daemon: Any, tmp_path: Path, headers: dict[str, str], status: int
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("mine: mine\n")
    keys.chmod(0o600)
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"), api_key_file=str(keys))

    def talk() -> int:
        with pytest.raises(InvalidStatus) as caught, opened(daemon, **headers):
            pass
        return int(caught.value.response.status_code)

    assert await in_thread(talk) == status


@ensureDeferred
async def test_keys_quotas_and_rows(make_daemon: Any, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("mine: mine requests=1/day\nguest: guest\n")
    keys.chmod(0o600)
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"), api_key_file=str(keys))

    def talk() -> tuple[Any, Any, Any]:
        with opened(daemon, authorization="Bearer mine") as socket:
            first, second = turn(socket, "Hello"), turn(socket, "Hello")
            keys.write_text("guest: guest\n")
            os.utime(keys, (1, 1))  # left alone for long
            return first, second, turn(socket, "Hello")

    first, second, third = await in_thread(talk)
    assert first[-1]["type"] == "response.completed"
    assert second[0]["status"] == 429
    assert "retry-after" in second[0]["headers"]
    assert third[0]["status"] == 401
    await until(lambda: not daemon.api.journal.running)
    guest = {"authorization": "Bearer guest"}
    ident = first[-1]["response"]["id"]
    assert (await treq.get(f"{daemon.url}/v1/responses/{ident}", headers=guest)).code == 404
    turns = await treq.json_content(await treq.get(f"{daemon.url}/v1/usage/turns", headers=guest))
    assert [(row["key"], row["outcome"]) for row in turns["data"]][-1] == ("mine", "ok")


@ensureDeferred
async def test_bounds_of_messages(make_daemon: Any, tmp_path: Path) -> None:
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"), max_body=10_000)

    def closing(send: Callable[[ClientConnection], object]) -> int:
        with opened(daemon) as socket:
            try:
                send(socket)
                while True:
                    socket.recv(timeout=30)
            except ConnectionClosed as closed:
                assert closed.rcvd is not None
                return int(closed.rcvd.code)

    def parts(socket: ClientConnection) -> None:
        socket.send(["x" * 1000] * 20)

    cases: list[tuple[Callable[[ClientConnection], object], int]] = [
        (lambda socket: socket.send("x" * 20_000), 1009),
        (parts, 1009),
        (lambda socket: socket.send(b"{}"), 1003),
        (lambda socket: raw(socket, b"\xff\xff"), 1007),
        (unmasked, 1002),
    ]
    for send, code in cases:
        assert await in_thread(closing, send) == code
    await until(lambda: not daemon.api.site.channels)
    assert daemon.api.site.arriving == 0


def raw(socket: ClientConnection, payload: bytes) -> None:
    """A text frame of ``payload``."""
    frame = Frame(Opcode.TEXT, payload).serialize(mask=True)
    socket.socket.sendall(frame)


def unmasked(socket: ClientConnection) -> None:
    socket.socket.sendall(Frame(Opcode.TEXT, b"{}").serialize(mask=False))


@ensureDeferred
async def test_a_handshake_names_the_conversation(make_daemon: Any, tmp_path: Path) -> None:
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"))

    def named(**headers: str) -> tuple[str | None, str | None]:
        with opened(daemon, **headers) as socket:
            assert socket.response is not None
            told = socket.response.headers
            return told.get("x-claudemax-conversation"), told.get("x-claudemax-ignored")

    name = "x-claudemax-conversation"
    assert await in_thread(named, **{name: "mine"}) == ("mine", None)
    new, ignored = await in_thread(named)
    assert len(new) == 32 and ignored is None
    new, ignored = await in_thread(named, **{name: "not a name"})
    assert len(new) == 32 and ignored == name


@ensureDeferred
async def test_pings_are_answered_and_sent(make_daemon: Any, tmp_path: Path) -> None:
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"))

    def talk() -> bool:
        with opened(daemon) as socket:
            return socket.ping().wait(10)

    assert await in_thread(talk)


@ensureDeferred
async def test_a_drain_waits_for_the_turn_and_closes_the_idle(tmp_path: Path) -> None:
    cli = fake_cli(tmp_path / "cli", deltas=20, pause=0.05)
    daemon = await start_daemon(tmp_path / "home", claude=cli, drain=20.0)
    ready: list[str] = []

    def busy() -> list[dict[str, Any]]:
        with opened(daemon) as socket:
            socket.send(json.dumps({"type": "response.create", "model": "haiku", "input": "x"}))
            first = json.loads(socket.recv(timeout=30))
            ready.append("busy")
            events = [first, *rest(socket)]
            with pytest.raises(ConnectionClosed) as closed:
                socket.recv(timeout=30)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1001
            return events

    def idle() -> int:
        with opened(daemon) as socket:
            ready.append("idle")
            with pytest.raises(ConnectionClosed) as closed:
                socket.recv(timeout=30)
            assert closed.value.rcvd is not None
            return int(closed.value.rcvd.code)

    working, waiting = run(in_thread(busy)), run(in_thread(idle))
    await until(lambda: len(ready) == 2)
    await stop_daemon(daemon)
    assert await waiting == 1001
    assert (await working)[-1]["type"] == "response.completed"


@pytest.mark.parametrize(
    "path",
    ["/v1/chat/completions", "/health", "/nothing", "/v1/responses/x", "/v1/responses/compact"],
)
@ensureDeferred
async def test_there_are_none_elsewhere(daemon: Daemon, path: str) -> None:
    def talk() -> int:
        with pytest.raises(InvalidStatus) as caught, connect(url(daemon, path), proxy=None):
            pass
        return int(caught.value.response.status_code)

    assert await in_thread(talk) == 426


@ensureDeferred
async def test_a_reader_that_stops_pauses_its_process(make_daemon: Any, tmp_path: Path) -> None:
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli", deltas=4000, size=4000))
    paused: list[bool] = []

    def talk() -> int:
        with opened(daemon) as socket:
            socket.send(json.dumps({"type": "response.create", "model": "haiku", "input": "x"}))
            while not paused:
                time.sleep(0.01)
            return len(rest(socket))

    talking = run(in_thread(talk))

    def is_paused() -> bool:
        groups = daemon.api.engine._groups
        return any(group._flow._paused for group in groups)

    await until(is_paused)
    paused.append(True)
    assert await talking > 4000


@ensureDeferred
async def test_a_connection_that_is_too_old(
    make_daemon: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"))
    monkeypatch.setattr("claudeproxy.web.responses_socket.LIFETIME", -1.0)

    def talk() -> tuple[Any, int]:
        with opened(daemon) as socket:
            events = turn(socket, "Hello")
            with pytest.raises(ConnectionClosed) as closed:
                socket.recv(timeout=30)
            assert closed.value.rcvd is not None
            return events, int(closed.value.rcvd.code)

    [error], code = await in_thread(talk)
    assert error["error"]["code"] == "websocket_connection_limit_reached"
    assert code == 1001


@ensureDeferred
async def test_a_client_that_answers_nothing(
    make_daemon: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("claudeproxy.web.websocket.PING", 0.05)
    monkeypatch.setattr("claudeproxy.web.websocket.SILENCE", 0.3)
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"))

    def deaf() -> None:
        offer = (
            "GET /v1/responses HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
            "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        port = daemon.port[0].getHost().port
        with create_connection(("127.0.0.1", port), timeout=20) as client:
            client.sendall(offer.encode())
            told = b""
            try:
                while data := client.recv(4096):
                    told += data
            except ConnectionResetError:
                pass
            assert told.startswith(b"HTTP/1.1 101 ")
            assert b"\x89\x00" in told  # a ping

    await in_thread(deaf)
    await until(lambda: not daemon.api.site.channels)
