"""Routes as clients write them, and what is said where there is none."""

from __future__ import annotations

from http.client import HTTPConnection
from typing import Any

import pytest
import treq
from harness import Daemon, in_thread
from pytest_twisted import ensureDeferred
from twisted.web.http_headers import Headers

from claudeproxy.testing import fake_cli

HELLO = {"model": "haiku", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.mark.parametrize(
    "path", ["/health/", "/v1/models/", "/models/", "/v1//models", "/v1/models/opus/"]
)
@ensureDeferred
async def test_a_slash_too_many_in_a_get(daemon: Daemon, path: str) -> None:
    plain = await treq.get(daemon.url + path.replace("//", "/").rstrip("/"))
    slashed = await treq.get(daemon.url + path)
    assert (slashed.code, plain.code) == (200, 200)
    told, expected = await treq.json_content(slashed), await treq.json_content(plain)
    told.pop("timestamp", None), expected.pop("timestamp", None)
    assert told == expected


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions/",
        "/v1/completions/",
        "/v1/messages/",
        "/v1/messages/count_tokens/",
        "/v1/responses/",
        "/v1//chat/completions",
    ],
)
@ensureDeferred
async def test_a_slash_too_many_in_a_post(daemon: Daemon, path: str) -> None:
    body = {"model": "haiku", "max_tokens": 50}
    if "responses" in path:
        body["input"] = "Hello"
    elif path == "/v1/completions/":
        body["prompt"] = "Hello"
    else:
        body["messages"] = HELLO["messages"]
    response = await daemon.post(path, body)
    assert response.code == 200, await treq.content(response)
    await treq.content(response)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/chat/completions", ["GET", "HEAD", "POST"]),
        ("GET", "/v1/responses", ["POST"]),
        ("PUT", "/v1/responses/resp_1", ["DELETE", "GET", "HEAD"]),
        ("POST", "/v1/models", ["GET", "HEAD"]),
        ("DELETE", "/health/", ["GET", "HEAD"]),
        ("OPTIONS", "/v1/messages", ["POST"]),
        ("BREW", "/v1/models", ["GET", "HEAD"]),
    ],
)
@ensureDeferred
async def test_the_wrong_method(daemon: Daemon, method: str, path: str, allowed: list[str]) -> None:
    response = await treq.request(method, daemon.url + path)
    assert (response.code, response.phrase) == (405, b"Method Not Allowed")
    (allow,) = response.headers.getRawHeaders("allow")
    assert sorted(allow.split(", ")) == allowed
    if path == "/v1/messages":
        assert (await treq.json_content(response))["type"] == "error"
    else:
        error = (await treq.json_content(response))["error"]
        assert error["type"] == "invalid_request_error"
        assert method in error["message"]


@pytest.mark.parametrize("path", ["/v1/responses/x", "/v1/chat/completions", "/health", "/nothing"])
@ensureDeferred
async def test_a_websocket_is_refused_so_that_codex_goes_on_over_http(
    daemon: Daemon, path: str
) -> None:
    def ask() -> tuple[Any, bytes]:
        client = HTTPConnection("localhost", daemon.port[0].getHost().port, timeout=20)
        offer = {"connection": "Upgrade", "upgrade": "WebSocket", "sec-websocket-version": "13",
                 "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ=="}  # fmt: skip
        client.request("GET", path, headers=offer)
        response = client.getresponse()
        return response, response.read()

    response, body = await in_thread(ask)
    assert (response.status, response.reason) == (426, "Upgrade Required")
    assert response.headers["content-type"] == "application/json"
    assert response.headers["upgrade"] == "HTTP/1.1"
    assert b"use HTTP here" in body


@pytest.mark.parametrize(
    ("status", "phrase"),
    [(429, b"Too Many Requests"), (529, b"Overloaded"), (404, b"Not Found")],
)
@ensureDeferred
async def test_the_words_on_the_status_line(
    make_daemon: Any, tmp_path: Any, status: int, phrase: bytes
) -> None:
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli", error=status))
    for path in ("/v1/chat/completions", "/v1/messages"):
        response = await daemon.post(path, {**HELLO, "max_tokens": 50})
        assert (response.code, response.phrase) == (status, phrase)
        await treq.content(response)


@ensureDeferred
async def test_a_refused_head_has_no_body(daemon: Daemon) -> None:
    for headers in ({"host": "evil.example"}, {"origin": "https://evil.example"}, {}):
        path = "/v1/models" if headers else "/nothing"
        response = await treq.request("HEAD", daemon.url + path, headers=Headers(
            {name: [value] for name, value in headers.items()}))  # fmt: skip
        assert response.code == (403 if headers else 404)
        assert await treq.content(response) == b""
