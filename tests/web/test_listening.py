"""Keys, browsers, TLS and unix sockets over HTTP, and what twistd refuses to serve."""

from __future__ import annotations

import json
import os
import socket
import ssl
import stat
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import treq
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from harness import Daemon, in_thread, newest_cli
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.endpoints import quoteStringArgument
from twisted.logger import formatEvent, globalLogPublisher

from claudeproxy.endpoints import ListeningService
from claudeproxy.web.gate import EXPOSED

PAGE = "https://chat.example.com"
HELLO = {"model": "haiku", "messages": [{"role": "user", "content": "Hello"}]}
CHAT = "/v1/chat/completions"


def key_file(directory: Path, text: str = "laptop: s3cret\ndesk: other\n") -> str:
    path = directory / "keys"
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


def header(response: Any, name: str) -> str | None:
    values = response.headers.getRawHeaders(name)
    return values[0] if values else None


# -- keys --


@ensureDeferred
async def test_keyed_daemon(make_daemon: Any, tmp_path: Path) -> None:
    logged: list[str] = []

    def observe(event: dict[str, Any]) -> None:
        logged.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    daemon = await make_daemon(api_key_file=key_file(tmp_path))
    for sent in ({}, {"authorization": "Bearer wrong"}, {"x-api-key": "s3cret2"}):
        response = await daemon.post(CHAT, HELLO, **sent)
        error = (await treq.json_content(response))["error"]
        assert response.code == 401
        assert error["code"] == "invalid_api_key"
        assert set(error) == {"message", "type", "param", "code"}
        assert header(response, "x-should-retry") == "false"
    assert daemon.turns() == []
    for sent in ({"authorization": "Bearer s3cret"}, {"x-api-key": "other"}):
        response = await daemon.post(CHAT, HELLO, **sent)
        answer = await treq.json_content(response)
        assert answer["choices"][0]["message"]["content"] == "You said: Hello"
    globalLogPublisher.removeObserver(observe)
    assert [line.split()[-1] for line in logged if " haiku=" in line] == ["laptop", "desk"]
    assert not any("s3cret" in line for line in logged)
    for path in ("/v1/models", "/v1/models/opus", "/nothing", "/healthy", "/health/x", "/%68ealth"):
        response = await treq.get(daemon.url + path)
        assert response.code == 401, path
        await treq.content(response)


@ensureDeferred
async def test_health_without_the_key_says_only_up_or_down(
    make_daemon: Any, tmp_path: Path
) -> None:
    daemon = await make_daemon(api_key_file=key_file(tmp_path))
    bare = await treq.get(daemon.url + "/health?x=1")
    assert (bare.code, await treq.json_content(bare)) == (200, {"status": "ok"})
    keyed = await treq.get(daemon.url + "/health", headers={"x-api-key": "s3cret"})
    assert "cli_version" in await treq.json_content(keyed)
    wrong = await treq.get(daemon.url + "/health", headers={"x-api-key": "wrong"})
    assert wrong.code == 401
    await treq.content(wrong)


@ensureDeferred
async def test_the_key_is_checked_before_the_body_is_read(make_daemon: Any, tmp_path: Path) -> None:
    daemon = await make_daemon(api_key_file=key_file(tmp_path))
    head = (
        f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        "content-length: 1000\r\n\r\n"
    )
    reply = await in_thread(talk, tcp(daemon.port[0].getHost().port), head)
    assert reply.startswith(b"HTTP/1.1 401 ")
    assert b"invalid_api_key" in reply


@pytest.mark.parametrize(
    "line",
    [
        "POST /health HTTP/1.1\r\ncontent-length: 60000000",
        "PUT /health HTTP/1.1\r\ncontent-length: 0",
        "OPTIONS /health HTTP/1.1",
        "GET /health HTTP/1.1\r\ncontent-length: 60000000",
        "GET /health HTTP/1.1\r\ntransfer-encoding: chunked",
        f"OPTIONS {CHAT} HTTP/1.1\r\naccess-control-request-method: POST\r\n"
        f"origin: {PAGE}\r\ncontent-length: 60000000",
    ],
)
@ensureDeferred
async def test_without_a_key_no_body_is_read(make_daemon: Any, tmp_path: Path, line: str) -> None:
    daemon = await make_daemon(api_key_file=key_file(tmp_path), allow_origin=(PAGE,))
    head = f"{line}\r\nhost: localhost\r\ncontent-type: application/json\r\n\r\n"
    reply = await in_thread(talk, tcp(daemon.port[0].getHost().port), head)
    assert reply.startswith(b"HTTP/1.1 401 "), reply
    assert b"invalid_api_key" in reply


@ensureDeferred
async def test_the_openai_sdk_brings_its_key(make_daemon: Any, tmp_path: Path) -> None:
    from openai import AuthenticationError, OpenAI

    daemon = await make_daemon(api_key_file=key_file(tmp_path, "s3cret"))

    def ask(key: str) -> Any:
        client = OpenAI(base_url=daemon.url + "/v1", api_key=key, max_retries=0)
        return client.chat.completions.create(**HELLO).choices[0].message.content  # type: ignore

    assert await in_thread(ask, "s3cret") == "You said: Hello"
    with pytest.raises(AuthenticationError) as caught:
        await in_thread(ask, "none")
    assert caught.value.code == "invalid_api_key"


# -- browsers --


@ensureDeferred
async def test_without_allow_origin_nothing_is_said_to_pages(daemon: Daemon) -> None:
    ask = {"origin": PAGE, "access-control-request-method": "POST"}
    foreign = {"sec-fetch-site": "cross-site"}
    replies = {
        "a preflight": (403, await treq.request("OPTIONS", daemon.url + CHAT, headers=ask)),
        "a page's request": (403, await daemon.post(CHAT, HELLO, origin=PAGE)),
        "a page's GET": (403, await treq.get(daemon.url + "/v1/models", headers={"origin": PAGE})),
        "a link": (403, await treq.get(daemon.url + "/v1/models", headers=foreign)),
        "a program's request": (200, await daemon.post(CHAT, HELLO)),
        "a program's stream": (200, await daemon.post(CHAT, {**HELLO, "stream": True})),
        "no such path": (404, await treq.get(daemon.url + "/nothing")),
    }
    for name, (status, response) in replies.items():
        sent = [key.lower() for key, _ in response.headers.getAllRawHeaders()]
        assert response.code == status, name
        assert not [key for key in sent if key.startswith(b"access-control-")], name
        assert b"vary" not in sent, name
        await treq.content(response)


@ensureDeferred
async def test_preflight_of_an_allowed_page(make_daemon: Any, tmp_path: Path) -> None:
    daemon = await make_daemon(api_key_file=key_file(tmp_path), allow_origin=(PAGE,))
    names = "authorization,content-type,x-stainless-os"
    ask = {
        "origin": PAGE,
        "access-control-request-method": "POST",
        "access-control-request-headers": names,
        "sec-fetch-site": "cross-site",
    }
    for path in (CHAT, "/v1/models", "/nothing"):
        response = await treq.request("OPTIONS", daemon.url + path, headers=ask)
        assert (response.code, await treq.content(response)) == (204, b"")
        assert header(response, "access-control-allow-origin") == PAGE
        assert header(response, "access-control-allow-methods") == "POST"
        assert header(response, "access-control-allow-headers") == names
        assert header(response, "access-control-max-age") == "600"
        assert (header(response, "vary") or "").startswith("Origin")
        assert header(response, "access-control-allow-credentials") is None
    response = await treq.request(
        "OPTIONS", daemon.url + CHAT, headers={**ask, "host": "e.example"}
    )
    assert response.code == 403
    await treq.content(response)
    response = await treq.request("OPTIONS", daemon.url + CHAT, headers={"origin": PAGE})
    assert response.code == 401  # no preflight
    await treq.content(response)


@ensureDeferred
async def test_replies_an_allowed_page_can_read(make_daemon: Any, tmp_path: Path) -> None:
    daemon = await make_daemon(api_key_file=key_file(tmp_path), allow_origin=(PAGE,), max_body=5000)
    sent = {"origin": PAGE, "authorization": "Bearer s3cret", "sec-fetch-site": "cross-site"}
    replies = {
        "whole": (200, await daemon.post(CHAT, HELLO, **sent)),
        "streamed": (200, await daemon.post(CHAT, {**HELLO, "stream": True}, **sent)),
        "refused by the route": (400, await daemon.post(CHAT, {"model": "haiku"}, **sent)),
        "refused for its size": (413, await daemon.post(CHAT, b"[" + b" " * 5000, **sent)),
        "refused for its key": (
            401,
            await daemon.post(CHAT, HELLO, **{**sent, "authorization": ""}),
        ),
        "no such path": (404, await daemon.post("/nothing", HELLO, **sent)),
        "a list": (200, await treq.get(daemon.url + "/v1/models", headers=sent)),
    }
    for name, (status, response) in replies.items():
        assert response.code == status, name
        assert header(response, "access-control-allow-origin") == PAGE, name
        assert header(response, "access-control-expose-headers") == EXPOSED, name
        assert header(response, "vary") == "Origin", name
        await treq.content(response)
    response = await daemon.post(CHAT, HELLO, **{**sent, "origin": "https://evil.example"})
    assert response.code == 403
    assert header(response, "access-control-allow-origin") is None
    await treq.content(response)


@ensureDeferred
async def test_pages_of_other_origins_are_told_nothing(make_daemon: Any) -> None:
    """Where some origin may read replies, as well."""
    daemon = await make_daemon(allow_origin=(PAGE,))
    for origin in ("https://evil.example", PAGE + ".evil.example", "null"):
        ask = {"origin": origin, "access-control-request-method": "POST"}
        for response in (
            await treq.request("OPTIONS", daemon.url + CHAT, headers=ask),
            await daemon.post(CHAT, HELLO, origin=origin),
        ):
            assert response.code == 403
            assert header(response, "access-control-allow-origin") is None
            assert header(response, "access-control-expose-headers") is None
            await treq.content(response)
    response = await daemon.post(CHAT, HELLO)
    assert (response.code, header(response, "access-control-allow-origin")) == (200, None)
    await treq.content(response)


@ensureDeferred
async def test_streams_are_kept_by_nobody_on_the_way(daemon: Daemon) -> None:
    """Neither cached nor gathered: a proxy such as nginx would hold the answer back to its end."""
    for path in (CHAT, "/v1/messages", "/v1/responses"):
        body = {**HELLO, "max_tokens": 50, "input": "Hello", "stream": True}
        if path == "/v1/responses":
            del body["messages"]
        response = await daemon.post(path, body)
        assert response.code == 200, await treq.content(response)
        assert header(response, "content-type") == "text/event-stream; charset=utf-8"
        assert header(response, "cache-control") == "no-cache, no-transform"
        assert header(response, "x-accel-buffering") == "no"
        await treq.content(response)


@ensureDeferred
async def test_get_changes_nothing(daemon: Daemon) -> None:
    for path in ("/v1/responses", "/v1/messages", "/v1/completions"):
        response = await treq.get(daemon.url + path)
        assert response.code == 405, path
        await treq.content(response)
    response = await treq.get(daemon.url + CHAT)
    assert (response.code, (await treq.json_content(response))["object"]) == (200, "list")


@ensureDeferred
async def test_a_container_on_this_machine(make_daemon: Any, tmp_path: Path) -> None:
    daemon = await make_daemon(
        api_key_file=key_file(tmp_path), allow_host=("host.docker.internal",)
    )
    sent = {"host": "host.docker.internal:3456", "x-api-key": "s3cret"}
    answer = await treq.json_content(await daemon.post(CHAT, HELLO, **sent))
    assert answer["object"] == "chat.completion"


# -- endpoints --


def tcp(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def talk(connection: socket.socket, request: str) -> bytes:
    """All that comes back for ``request``."""
    with connection:
        connection.sendall(request.encode())
        return b"".join(iter(lambda: connection.recv(65536), b""))


def hello(host: str) -> str:
    body = json.dumps(HELLO)
    return (
        f"POST {CHAT} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}"
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def certificate(directory: Path) -> str:
    """A file with a key and a certificate for localhost, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(timezone.utc)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = directory / "localhost.pem"
    plain = serialization.NoEncryption()
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path.write_bytes(key.private_bytes(pem, pkcs8, plain) + made.public_bytes(pem))
    return str(path)


@pytest.mark.parametrize("host", ["localhost", "d", "%2Frun%2Fclaudemax.sock"])
@ensureDeferred
async def test_unix_socket_endpoint(daemon: Daemon, tmp_path: Path, host: str) -> None:
    path = tmp_path / "s"
    service = ListeningService(f"unix:{path}:mode=600", daemon.api.site, reactor)
    service.startService()
    try:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

        def ask() -> bytes:
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(str(path))
            return talk(connection, hello(host))

        reply = await in_thread(ask)
        assert reply.startswith(b"HTTP/1.1 200 ")
        assert b"You said: Hello" in reply
    finally:
        await service.stopService()
    assert not path.exists()


@pytest.mark.parametrize(
    "lines", ["", "host:\r\n", "host: a..b\r\n", "host: \xff[\r\n", f"host: {'a' * 300}\r\n"]
)
@ensureDeferred
async def test_over_a_unix_socket_no_host_is_needed(
    daemon: Daemon, tmp_path: Path, lines: str
) -> None:
    service = ListeningService(f"unix:{tmp_path / 's'}:mode=600", daemon.api.site, reactor)
    service.startService()
    try:

        def ask() -> bytes:
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(str(tmp_path / "s"))
            with connection:
                head = f"GET /v1/models HTTP/1.1\r\n{lines}connection: close\r\n\r\n"
                connection.sendall(head.encode("latin-1"))
                return b"".join(iter(lambda: connection.recv(65536), b""))

        reply = await in_thread(ask)
        assert reply.startswith(b"HTTP/1.1 200 OK\r\n"), reply
        assert b'"object":"list"' in reply
    finally:
        await service.stopService()


@pytest.mark.parametrize("kind", ["ssl", "tls"])
@ensureDeferred
async def test_tls_endpoint(daemon: Daemon, tmp_path: Path, kind: str) -> None:
    pem, port = certificate(tmp_path), free_port()
    if kind == "ssl":
        description = f"ssl:{port}:privateKey={quoteStringArgument(pem)}:interface=127.0.0.1"
    else:
        directory = quoteStringArgument(str(tmp_path))
        description = f"tls:{directory}:{port}:interface=127.0.0.1"
    service = ListeningService(description, daemon.api.site, reactor)
    service.startService()
    try:

        def ask() -> bytes:
            context = ssl.create_default_context(cafile=pem)
            context.set_alpn_protocols(["h2", "http/1.1"])
            wrapped = context.wrap_socket(tcp(port), server_hostname="localhost")
            assert wrapped.selected_alpn_protocol() in ("http/1.1", None)
            return talk(wrapped, hello("localhost"))

        reply = await in_thread(ask)
        assert reply.startswith(b"HTTP/1.1 200 ")
        assert b"You said: Hello" in reply
    finally:
        await service.stopService()


@pytest.mark.cli
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", "tcp:0"], "--port tcp:0 can be reached from other machines, which needs "),
        (["--port", "tcp6:0"], "--port tcp6:0 can be reached from other machines, which needs "),
        (["--port", "tpc:0"], "--port tpc:0: Unknown endpoint type: 'tpc'"),
        (["--port", "ssl:0:privateKey=none.pem"], "none.pem: No such file or directory"),
        (["--api-key-file", "none"], "none: cannot be read: No such file or directory"),
        (["--api-key-file", "open"], "open: can be read by others: chmod 600"),
        (["--api-key-file", "empty"], "empty: holds no key"),
    ],
)
def test_what_twistd_refuses_to_serve(tmp_path: Path, arguments: list[str], words: str) -> None:
    (tmp_path / "open").write_text("s3cret")
    (tmp_path / "open").chmod(0o644)
    (tmp_path / "empty").touch(0o600)
    twistd = [str(Path(sys.executable).with_name("twistd")), "-n", "--pidfile="]
    checkout = str(Path(__file__).parents[2])
    ran = subprocess.run(
        [*twistd, "claudemax", "--demo", "--claude", newest_cli(), *arguments],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": checkout},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 1
    assert ran.stderr.count("\n") == 1
    assert ran.stderr.startswith("claudemax: ")
    assert words in ran.stderr
    assert "s3cret" not in ran.stderr
