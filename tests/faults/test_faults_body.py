"""Clients whose request is well-formed HTTP around a hostile body."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from harness import Daemon, start_daemon, stop_daemon
from matrix import FAULTS, all_is_well, cases, fault, read
from pytest_twisted import ensureDeferred
from twisted.internet import defer

from claudeproxy.testing import fake_cli, journal


@pytest.fixture(scope="module")
def double(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    home = tmp_path_factory.mktemp("double")
    claude = fake_cli(home / "cli", answer='{"a": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!"}')
    daemon = pytest_twisted.blockon(defer.ensureDeferred(start_daemon(home, claude=claude)))
    yield daemon
    pytest_twisted.blockon(defer.ensureDeferred(stop_daemon(daemon)))


def body(content: Any = "x", **fields: Any) -> bytes:
    messages = [{"role": "user", "content": content}]
    return json.dumps({"model": "sonnet", "messages": messages, **fields}).encode()


def raw(content: bytes, more: bytes = b"") -> bytes:
    """A body whose text is ``content``, quotes and all."""
    return b'{"model":"sonnet"%s,"messages":[{"role":"user","content":%s}]}' % (more, content)


def statuses(request: pytest.FixtureRequest) -> set[int]:
    """The statuses that the table tells of the test's own row."""
    row = request.node.callspec.id
    seen = next(fault.seen for fault in FAULTS if fault.name.replace(" ", "-") == row)
    if "refused by name" in seen or ("served" not in seen and "4" not in seen):
        return {200, 400, 502}
    told = {int(number) for number in re.findall(r"\d{3}", seen)}
    return told | {200} if "served" in seen else told


def image(data: str) -> list[Any]:
    return [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}]


def formatted(schema: Any, **fields: Any) -> bytes:
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    return body(response_format=form, **fields)


def tools(number: int, schema: Any) -> list[Any]:
    return [
        {"type": "function", "function": {"name": f"t{n}", "parameters": schema}}
        for n in range(number)
    ]


def nested(depth: int) -> Any:
    value: Any = {"type": "string"}
    for _ in range(depth):
        value = {"type": "object", "properties": {"a": value}}
    return value


@cases(
    "client",
    ("sends an empty body", "400", b""),
    ("sends what is no JSON", "400", b"model=sonnet"),
    ("sends half of a JSON", "400", body()[:-2]),
    ("sends two JSONs", "400", body() + body()),
    ("sends bytes that are no UTF-8", "400", raw(b'"\xff\xfe"')),
    ("sends UTF-8 cut in a character", "400", raw(b'"\xe2\x82"')),
    ("sends overlong UTF-8", "400", raw(b'"\xc0\xaf"')),
    ("sends a lone surrogate", "400", raw(b'"\\ud800"')),
    ("sends a lone surrogate in UTF-8", "400", raw(b'"\xed\xa0\x80"')),
    ("sends NaN", "400", raw(b'"x"', b',"temperature":NaN')),
    ("sends Infinity", "400", raw(b'"x"', b',"top_p":-Infinity')),
    ("sends a number beyond all floats", "400", raw(b'"x"', b',"temperature":1e999')),
    ("sends an integer of 10,000 digits", "400", raw(b'"x"', b',"n":' + b"9" * 10_000)),
    ("nests 100,000 levels deep", "400", b"[" * 100_000),
    ("nests 200 levels deep", "400", raw(b'"x"', b',"metadata":' + b"[" * 200 + b"]" * 200)),
    ("nests objects 100,000 levels deep", "400", b'{"a":' * 100_000),
    ("sends an array", "400", b"[]"),
    ("sends a string", "400", b'"x"'),
    ("sends null", "400", b"null"),
    ("asks for a million answers", "400 or 429", body(n=1_000_000)),
    ("sends broken base64", "400", body(image("!!!"))),
    ("sends base64 cut short", "400", body(image("iVBORw0KGg="))),
    ("sends a file URL", "400",
     body([{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}])),
    ("sends a schema that is none", "400", formatted({"type": "nonsense"})),
    ("sends a schema that is true", "400", formatted(True)),
    ("sends a schema that refers to nothing", "400 or 502",
     formatted({"type": "object", "properties": {"a": {"$ref": "#/$defs/none"}}})),
    ("sends 5,001 tools", "400", body(tools=tools(5_001, {}))),
    ("sends 1,001 stop sequences", "400", body(stop=[f"stop {n}" for n in range(1_001)])),
    ("sends a float of a million digits before its point", "400",
     raw(b'"x"', b',"temperature":' + b"9" * 1_000_000 + b".0")),
    ("names a tool with a control character", "400",
     body(tools=[{"type": "function", "function": {"name": "a\nb"}}])),
    ("calls a model by a path", "404", body(model="../../etc/passwd")),
    ("calls a model by a megabyte", "404", body(model="x" * 1_000_000)),
)  # fmt: skip
@ensureDeferred
async def test_the_body_is_refused(
    request: pytest.FixtureRequest, double: Daemon, case: Any
) -> None:
    """With a 4xx in the JSON of errors."""
    began = time.process_time()  # the daemon is in this process; a busy machine does not count
    reply = await read(await double.post("/v1/chat/completions", case[0]))
    assert reply.status in statuses(request), reply
    assert reply.error["type"] in ("invalid_request_error", "rate_limit_error", "server_error")
    assert len(reply.error["message"]) < 2_000
    assert time.process_time() - began < 2.0
    await served(double)


@cases(
    "client",
    ("begins its body with a byte order mark", "served", b"\xef\xbb\xbf" + body()),
    ("sends UTF-16", "served", body().decode().encode("utf-16")),
    ("sends NUL in a text", "served", raw(b'"a\\u0000b"')),
    ("sends every control character", "served",
     body("".join(map(chr, range(1, 32))) + "x\x7f\x85\u2028\ufeff\U0010ffff")),
    ("sends the same key twice", "served", raw(b'"x"', b',"model":"sonnet"')),
    ("sends 50,000 messages", "served as one; others are not held up",
     json.dumps({"model": "sonnet", "messages": [{"role": "user", "content": "x"}] * 50_000})
     .encode()),
    ("sends 50,000 parts", "served; others are not held up",
     body([{"type": "text", "text": "x"}] * 50_000)),
    ("sends a text of 20 MB", "served", body("x" * 20_000_000)),
    ("sends 1,000 tools", "served", body(tools=tools(1_000, nested(5)))),
    ("sends 100,000 unknown fields", "served", body(**{f"f{n}": n for n in range(100_000)})),
    ("sends a schema of 5 MB", "served, or refused by name",
     formatted({"type": "object", "properties": {"a": {"enum": ["x" * 50] * 100_000}}})),
    ("sends a schema that refers to itself", "served, or refused by name",
     formatted({"$ref": "#"})),
    ("sends a schema that recurs without end", "served, or refused by name",
     formatted({"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"allOf": [{"$ref": "#"}]}}})),
    ("sends a schema with a broken pattern", "served: patterns are not checked here",
     formatted({"type": "object", "properties": {"a": {"pattern": "("}}})),
    ("sends a schema whose pattern takes for ever", "others are not held up",
     formatted({"type": "object", "properties": {"a": {"pattern": "^(a+)+$"}}})),
    ("sends a lone surrogate as a key of a schema", "served, or refused by name",
     formatted({"type": "object", "properties": {"\ud800": {}}})),
    ("sends 1,000 stop sequences", "served", body(stop=[f"stop {n}" for n in range(1_000)])),
    ("sends a stop sequence of 1 MB", "served", body(stop="x" * 1_000_000)),
)  # fmt: skip
@ensureDeferred
async def test_the_body_is_strange(
    request: pytest.FixtureRequest, double: Daemon, case: Any
) -> None:
    """Served, or refused by name; never a 500, and nobody else waits for it."""
    began = time.process_time()  # the daemon is in this process; a busy machine does not count
    reply = await read(await double.post("/v1/chat/completions", case[0]))
    assert reply.status in statuses(request), reply
    assert reply.status != 502 or "schema" in reply.error["message"], reply
    assert time.process_time() - began < 5.0
    await served(double)


@fault("client", "sends a schema that refers to a web page", "no connection is opened")
@ensureDeferred
async def test_a_remote_reference(double: Daemon) -> None:
    upstream = double.upstream
    port = double.port[1].getHost().port
    url = f"http://127.0.0.1:{port}/v1/schema"
    before = len(upstream.requests)
    schema = {"type": "object", "properties": {"a": {"$ref": url}}}
    reply = await read(await double.post("/v1/chat/completions", formatted(schema)))
    assert reply.status in (400, 502), reply
    assert len(upstream.requests) == before
    await served(double)


async def served(daemon: Daemon) -> None:
    """As :func:`all_is_well`, where the double's answer is fixed."""
    fake_cli(daemon.home / "cli")
    await all_is_well(daemon)
    fake_cli(daemon.home / "cli", answer='{"a": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!"}')


def test_the_double_was_asked(double: Daemon) -> None:
    assert "turn" in journal(double.api.cli.executable)
