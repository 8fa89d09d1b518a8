"""What is kept of refused requests: enough to see why, and no value of a body."""

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
from twisted.web.http_headers import Headers

from claudeproxy.messages import Failure, Kind
from claudeproxy.testing import fake_cli
from claudeproxy.web.access_log import Facts
from claudeproxy.web.refused import KEPT, Refused, field_names

CANARY = "CANARY"
KEY = {"x-api-key": "s3cret", "user-agent": "OpenAI/Python 1.99"}
HELLO = {"model": "haiku", "messages": [{"role": "user", "content": CANARY}]}


@pytest.fixture
def double(make_daemon: Any, tmp_path: Path) -> Any:
    """``await double()``: a daemon over the CLI's double, with a key."""

    async def make(**settings: Any) -> Daemon:
        keys = tmp_path / "keys"
        keys.write_text("laptop: s3cret\n")
        keys.chmod(0o600)
        made: Daemon = await make_daemon(
            claude=fake_cli(tmp_path / "cli"), api_key_file=str(keys), max_body=5_000, **settings
        )
        return made

    return make


async def latest(daemon: Daemon) -> list[dict[str, Any]]:
    reply = await treq.get(f"{daemon.url}/v1/debug/refused", headers=KEY)
    text = await treq.text_content(reply)
    assert reply.code == 200 and CANARY not in text, text
    data: list[dict[str, Any]] = json.loads(text)["data"]
    return data


async def refuse(
    daemon: Daemon, path: str, body: Any, headers: Any = KEY, status: int = 400
) -> dict[str, Any]:
    """What is kept of a request that is refused."""
    reply = await daemon.post(path, body, **headers)
    text = await treq.text_content(reply)
    assert reply.code == status, text
    kept, *_ = await latest(daemon)
    (ident,) = reply.headers.getRawHeaders("x-request-id")
    assert (kept["request_id"], kept["status"]) == (ident, status)
    return kept


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/chat/completions", {**HELLO, "temperature": CANARY}, "temperature"),
        ("/v1/chat/completions", {**HELLO, "messages": [{"role": CANARY}]}, "messages[0].role"),
        ("/v1/messages", {**HELLO, "max_tokens": CANARY, "metadata": {CANARY: 1}}, "max_tokens"),
        ("/v1/responses", {"model": "haiku", "input": [{"type": CANARY}]}, "input[0].type"),
        ("/v1/completions", {"model": "haiku", "prompt": {CANARY: CANARY}}, "prompt"),
    ],
)
@ensureDeferred
async def test_each_dialect(double: Any, path: str, body: Any, param: str) -> None:
    daemon = await double()
    kept = await refuse(daemon, f"{path}?q={CANARY}", body)
    assert abs(kept.pop("time") - daemon.api.engine.now()) < 60 and kept.pop("request_id")
    assert kept == {
        "method": "POST", "path": path, "status": 400, "kind": "invalid", "code": None,
        "param": param, "message": None, "client": "OpenAI/Python", "key": "laptop",
        "body_bytes": len(json.dumps(body)), "fields": list(body),
    }  # fmt: skip


@ensureDeferred
async def test_what_is_no_mistake_of_a_field(double: Any) -> None:
    daemon = await double()
    kept = await refuse(daemon, "/v1/chat/completions", f'{{"a": "{CANARY}'.encode())
    assert (kept["kind"], kept["fields"], kept["message"]) == ("invalid", None, None)
    assert kept["body_bytes"] == 13
    kept = await refuse(daemon, "/v1/messages", [CANARY])
    assert (kept["fields"], kept["body_bytes"]) == (None, len(json.dumps([CANARY])))
    unknown = {**HELLO, "model": CANARY}
    kept = await refuse(daemon, "/v1/chat/completions", unknown, status=404)
    assert (kept["code"], kept["param"]) == ("model_not_found", "model")
    words = f"{CANARY} [[error 400 {CANARY}]]"
    failing = {**HELLO, "messages": [{"role": "user", "content": words}]}
    kept = await refuse(daemon, "/v1/chat/completions", failing, status=502)
    assert (kept["kind"], kept["fields"]) == ("upstream", ["model", "messages"])


@ensureDeferred
async def test_what_is_no_refusal(double: Any) -> None:
    """An answer that breaks off has begun with a 200; its line in the log tells of it."""
    daemon = await double()
    words = "[[say x]] [[error-mid 500 x]]"
    asked = {**HELLO, "messages": [{"role": "user", "content": words}], "stream": True}
    await treq.content(await daemon.post("/v1/chat/completions", asked, **KEY))
    await treq.content(await daemon.post("/v1/chat/completions", HELLO, **KEY))
    await treq.content(await treq.get(daemon.url + "/health"))
    assert await latest(daemon) == []


@pytest.mark.parametrize(
    ("headers", "status", "why"),
    [
        ({"x-api-key": CANARY}, 401, "this key is not in --api-key-file"),
        ({}, 401, "a key is needed: send it as `Authorization: Bearer KEY` or as `x-api-key: KEY`"),
        ({**KEY, "host": "evil"}, 403,
         "this server does not serve the host 'evil'; --allow-host adds a name"),
        ({**KEY, "content-type": "text/plain"}, 415, "content-type must be application/json"),
    ],
)  # fmt: skip
@ensureDeferred
async def test_at_the_gate(double: Any, headers: Any, status: int, why: str) -> None:
    daemon = await double()
    kept = await refuse(daemon, "/v1/chat/completions", HELLO, headers, status)
    assert (kept["message"], kept["fields"], kept["body_bytes"]) == (why, None, 0)
    assert kept["key"] == (None if status == 401 else "laptop")
    assert kept["method"] == "POST" and kept["path"] == "/v1/chat/completions"


@ensureDeferred
async def test_elsewhere(double: Any) -> None:
    daemon = await double()
    body = {**HELLO, "x": CANARY * 1000}
    kept = await refuse(daemon, "/v1/messages", body, status=413)
    assert kept["message"] == "the body is larger than 5000 bytes (--max-body)"
    kept = await refuse(daemon, "/v1/nothing", HELLO, status=404)
    assert (kept["code"], kept["path"]) == ("unknown_url", "/v1/nothing")
    kept = await refuse(daemon, "/v1/models", HELLO, status=405)
    assert kept["message"].startswith("/v1/models does not take POST")
    wrong = f"{daemon.url}/v1/usage?days={CANARY}"
    await treq.content(await treq.get(wrong, headers=KEY))
    kept, *_ = await latest(daemon)
    assert (kept["param"], kept["message"], kept["method"]) == ("days", None, "GET")
    reply = await treq.get(f"{daemon.url}/v1/debug/refused")
    assert reply.code == 401, "others may not see it"
    await treq.content(reply)


@ensureDeferred
async def test_what_is_no_request(double: Any) -> None:
    daemon = await double()
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", daemon.port[0].getHost().port)
    client = await connectProtocol(endpoint, Protocol())
    client.transport.write(f"{CANARY}\r\n\r\n".encode())  # type: ignore[union-attr]
    site = daemon.api.site
    refused: Any = site.refused
    await until(refused.latest)
    (kept,) = await latest(daemon)
    assert (kept["status"], kept["message"]) == (400, "this is not a valid HTTP request")
    assert (kept["method"], kept["path"], kept["client"], kept["key"]) == ("-", "-", "", None)
    site.connections = len(site.channels)
    another = await connectProtocol(endpoint, Protocol())
    await until(lambda: len(refused.latest()) == 2)
    assert refused.latest()[0]["message"] == "too many connections at once"
    client.transport.loseConnection()  # type: ignore[union-attr]
    another.transport.loseConnection()  # type: ignore[union-attr]


FACTS = Facts(Failure(Kind.INVALID, "no", 400, param="a"))


def note(refused: Refused, number: int = 0, **changes: Any) -> None:
    about = {
        "request_id": f"req_{number}", "method": b"GET", "path": b"/", "status": 400,
        "facts": FACTS, "headers": Headers(), "key": None, **changes,
    }  # fmt: skip
    refused.note(**about)


def test_the_oldest_goes_for_the_newest() -> None:
    refused = Refused(lambda: 5.0)
    for number in range(KEPT + 1):
        note(refused, number)
    kept = refused.latest()
    assert [one["request_id"] for one in kept] == [f"req_{n}" for n in range(KEPT, 0, -1)]
    assert kept[0]["time"] == 5.0


def test_what_was_not_refused_is_not_kept() -> None:
    refused = Refused()
    note(refused, status=None)
    note(refused, status=200)
    note(refused, facts=Facts())
    assert refused.latest() == []


def test_everything_is_bounded_and_printable() -> None:
    refused, long = Refused(), "\x1b" + "é" * 100_000
    failure = Failure(Kind.INVALID, long, 400, param=long)
    names = field_names({f"{number}{long}": 1 for number in range(1000)})
    assert names is not None and len(names) == 40 and {len(name) for name in names} == {64}
    gate = Failure(Kind.INVALID, long, 400)
    for facts in (Facts(gate), Facts(failure, body_bytes=5, fields=names)):
        note(
            refused,
            method=long.encode(),
            path=long.encode(),
            headers=Headers({"user-agent": [long]}),
            facts=facts,
        )
    for kept in refused.latest():
        text = json.dumps(kept, ensure_ascii=False)
        assert len(text) < 4000 and "\\u001b" not in text and "…" in kept["path"]


def test_names_of_fields() -> None:
    assert field_names({"model": 1, "a\nb": {"c": 2}}) == ("model", "a?b")
    assert field_names({}) == ()
    assert field_names(["model"]) is None
