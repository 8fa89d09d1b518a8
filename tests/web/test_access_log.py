"""The log's line of each request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import treq
from harness import Daemon, until
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.logger import formatEvent

from claudeproxy.testing import fake_cli

CHAT = "/v1/chat/completions"
HELLO = {"model": "haiku", "messages": [{"role": "user", "content": "Hello"}]}


def told(event: dict[str, Any]) -> str:
    """The text of a line, without what differs every time."""
    text = formatEvent(event)
    assert text.startswith(event["request_id"] + " ")
    assert f" {event['seconds']:.2f}s" in text
    assert 0 <= event["seconds"] < 20
    return text.removeprefix(event["request_id"] + " ").replace(f" {event['seconds']:.2f}s", "")


async def raw(daemon: Daemon, data: bytes) -> Protocol:
    """A connection on which ``data`` was sent."""
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", daemon.port[0].getHost().port)
    client = await connectProtocol(endpoint, Protocol())
    client.transport.write(data)  # type: ignore[union-attr]
    return client


@ensureDeferred
async def test_every_request_has_a_line(
    make_daemon: Any, tmp_path: Path, request_lines: list[dict[str, Any]]
) -> None:
    (tmp_path / "keys").write_text("laptop: s3cret\n")
    (tmp_path / "keys").chmod(0o600)
    claude = fake_cli(tmp_path / "cli")
    keys = str(tmp_path / "keys")
    daemon = await make_daemon(claude=claude, api_key_file=keys, max_body=5_000, processes=1)
    key = {"x-api-key": "s3cret"}
    for path, body, headers in (
        (CHAT, HELLO, key),
        (CHAT, {**HELLO, "stream": True}, key),
        (CHAT + "?word=secret", {"model": "haiku"}, key),
        (CHAT, {**HELLO, "model": "secret"}, key),
        (CHAT, b"{", key),
        (CHAT, b" " * 5_001, key),
        (CHAT, HELLO, {"x-api-key": "secret"}),
        (CHAT, HELLO, {**key, "host": "evil.example"}),
        ("/nothing?x", HELLO, key),
        ("/health", HELLO, key),
    ):
        await treq.content(await daemon.post(path, body, **headers))
    for path in ("/v1/models", "/health"):
        await treq.content(await treq.get(daemon.url + path, headers=key))
    assert list(map(told, request_lines)) == [
        f"POST {CHAT} 200 ok haiku=claude-fake warm laptop",
        f"POST {CHAT} 200 ok haiku=claude-fake rewound laptop",
        f"POST {CHAT} 400 invalid laptop",
        f"POST {CHAT} 404 model_not_found laptop",
        f"POST {CHAT} 400 invalid laptop",
        f"POST {CHAT} 413 too_large laptop",
        f"POST {CHAT} 401 authentication invalid_api_key",
        f"POST {CHAT} 403 permission laptop",
        "POST /nothing 404 not_found unknown_url laptop",
        "POST /health 405 invalid laptop",
        "GET /v1/models 200 ok laptop",
    ]
    assert {(event["key"], event["code"]) for event in request_lines[-3:]} == {
        ("laptop", "unknown_url"),
        ("laptop", None),
    }
    assert len({event["request_id"] for event in request_lines}) == len(request_lines)
    for event in request_lines[:2]:
        assert event["answered_by"] == "claude-fake"
        assert (event["input_tokens"], event["cached_tokens"], event["output_tokens"]) == (7, 0, 5)
        assert 0 < event["first_token"] <= event["seconds"]
    for event in request_lines[2:]:
        assert event["answered_by"] is None and event["output_tokens"] is None
        assert event["first_token"] is None


@ensureDeferred
async def test_what_is_no_request_has_a_line(
    daemon: Daemon, request_lines: list[dict[str, Any]]
) -> None:
    for data in (b"nonsense\r\n\r\n", b"GET /\x1b[31m HTTP/1.1\r\n\r\n",
                 b"GET /%ff\x9b31m HTTP/1.1\r\nHost: localhost\r\n\r\n"):  # fmt: skip
        client = await raw(daemon, data)
        client.transport.loseConnection()  # type: ignore[union-attr]
    await until(lambda: len(request_lines) == 3)
    assert sorted(map(told, request_lines)) == [
        "- - 400 invalid",
        "- - 400 invalid",
        "GET /%ff\\x9b31m 400 invalid",
    ]


@ensureDeferred
async def test_the_cause_of_what_the_daemon_is_to_blame_for(
    make_daemon: Any, tmp_path: Path, request_lines: list[dict[str, Any]]
) -> None:
    claude = fake_cli(tmp_path / "cli")
    daemon = await make_daemon(claude=claude, idle_timeout=0.3)

    async def ask(order: str, **fields: Any) -> None:
        messages = [{"role": "user", "content": f"secret[[{order}]]"}]
        await treq.content(await daemon.post(CHAT, {**HELLO, "messages": messages, **fields}))

    await ask("question exit")
    await ask("middle silence", stream=True)
    await ask("middle number")
    fake_cli(tmp_path / "cli", error=500)
    await ask("x")
    fake_cli(tmp_path / "cli", answer='{"secret": 1}')
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    await ask("x", response_format=form)
    assert list(map(told, request_lines)) == [
        f"POST {CHAT} 502 upstream haiku warm: the Claude CLI ended before its answer did (exit 1)",
        f"POST {CHAT} 200 timeout haiku=claude-fake warm: the model was silent for 0.3 seconds",
        f"POST {CHAT} 502 upstream haiku=claude-fake warm: "
        "the Claude CLI printed a malformed stream_event line",
        f"POST {CHAT} 500 upstream haiku warm: the upstream answered 500",
        f"POST {CHAT} 502 upstream haiku=claude-fake kept: the answer does not satisfy the schema",
    ]


@ensureDeferred
async def test_a_client_that_leaves(
    make_daemon: Any, tmp_path: Path, request_lines: list[dict[str, Any]]
) -> None:
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"))

    async def leave(head: str, body: str, begun: bool) -> None:
        client = await raw(daemon, f"{head} HTTP/1.1\r\nhost: localhost\r\n{body}".encode())
        if begun:
            await until(lambda: any(p.listener for p in daemon.api.engine.processes))
        else:
            await until(lambda: any(c._receiving for c in daemon.api.site.channels))
        client.transport.abortConnection()  # type: ignore[union-attr]

    def post(order: str, stream: bool) -> str:
        messages = [{"role": "user", "content": f"x[[{order}]]"}]
        text = json.dumps({**HELLO, "messages": messages, "stream": stream})
        return f"content-type: application/json\r\ncontent-length: {len(text)}\r\n\r\n{text}"

    half = "content-type: application/json\r\ncontent-length: 9\r\n\r\n{"
    await leave("POST /v1/messages", half, False)
    await until(lambda: len(request_lines) == 1)
    await leave(f"POST {CHAT}", post("question silence", False), True)
    await until(lambda: len(request_lines) == 2)
    streamed = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\n{post('middle silence', True)}"
    client = await raw(daemon, streamed.encode())
    received: list[bytes] = []
    client.dataReceived = received.append  # type: ignore[method-assign]
    await until(lambda: received)
    client.transport.abortConnection()  # type: ignore[union-attr]
    await until(lambda: len(request_lines) == 3)
    assert list(map(told, request_lines)) == [
        "POST /v1/messages - client left",
        f"POST {CHAT} - client left haiku warm",
        f"POST {CHAT} 200 client left haiku=claude-fake warm",
    ]
    await until(lambda: daemon.api.engine.admission.running == 0)


@ensureDeferred
async def test_a_broken_daemon_says_why(
    make_daemon: Any,
    request_lines: list[dict[str, Any]],
    nothing_logged: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    daemon = await make_daemon()

    def broken() -> None:
        raise RuntimeError("it broke")

    monkeypatch.setattr(daemon.api.engine.catalogue, "entries", broken)
    response = await treq.get(daemon.url + "/v1/models")
    assert response.code == 500
    await treq.content(response)
    (line,) = request_lines
    assert told(line) == "GET /v1/models 500 upstream: the daemon failed; its log says why"
    (traceback,) = nothing_logged
    assert "it broke" in traceback
    nothing_logged.clear()


@ensureDeferred
async def test_an_open_page_writes_no_lines_while_all_is_well(
    make_daemon: Any, tmp_path: Path, request_lines: list[dict[str, Any]]
) -> None:
    (tmp_path / "keys").write_text("laptop: s3cret\n")
    (tmp_path / "keys").chmod(0o600)
    keys = str(tmp_path / "keys")
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"), api_key_file=keys)
    await treq.content(await treq.get(daemon.url + "/page/main"))
    url = daemon.url + "/page/sign-in"
    for key in ("wrong", "s3cret"):
        response = await treq.post(url, data={"key": key}, allow_redirects=False)
    await treq.content(await treq.get(daemon.url + "/page/main", cookies=response.cookies()))
    assert [told(event) for event in request_lines] == [
        "GET /page/main 401 authentication",
        "POST /page/sign-in 401 authentication",
        "POST /page/sign-in 303 ok",
    ]
