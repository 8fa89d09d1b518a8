"""The rows of the ledger as requests make them, and how they are told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
import treq
from harness import Daemon, until
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred as run
from twisted.internet.defer import gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol

from claudeproxy.testing import fake_cli

CHAT = "/v1/chat/completions"


@pytest_twisted.async_fixture
async def double(make_daemon: Any, tmp_path: Path) -> Daemon:
    """A daemon over the CLI's double."""
    made: Daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"), concurrency=1, queue=0)
    return made


async def ask(daemon: Daemon, text: str = "Hi", path: str = CHAT, **fields: Any) -> str:
    """The id of a request, which has been answered."""
    body = {"model": "haiku", "messages": [{"role": "user", "content": text}], **fields}
    response = await daemon.post(path, body, **{"user-agent": "OpenAI/Python 1.99"})
    await treq.content(response)
    return str(response.headers.getRawHeaders("x-request-id")[0])


async def get(daemon: Daemon, path: str) -> Any:
    return await treq.json_content(await treq.get(daemon.url + path))


async def receipt(daemon: Daemon, ident: str) -> Any:
    return await get(daemon, f"/v1/usage/turns/{ident}")


@ensureDeferred
async def test_a_receipt(double: Daemon) -> None:
    told = await receipt(double, ident := await ask(double))
    assert 0 < told.pop("first_token_ms") <= told.pop("total_ms")
    assert told.pop("time") == pytest.approx(double.api.engine.now(), abs=20)
    assert told.pop("queue_ms") >= 0
    assert told.pop("cli_bytes") > 100
    assert told == {
        "object": "turn",
        "request_id": ident,
        "key": None,
        "dialect": "chat",
        "client": "OpenAI/Python",
        "model": "haiku",
        "answered_by": "claude-fake",
        "placement": "warm",
        "answers": 1,
        "usage": {
            "input_tokens": 7,
            "cache_read_tokens": 0,
            "cache_write_5m_tokens": 0,
            "cache_write_1h_tokens": 0,
            "output_tokens": 5,
            "reasoning_tokens": 0,
            "cache_share": 0.0,
        },
        "body_bytes": len('{"model": "haiku", "messages": [{"role": "user", "content": "Hi"}]}'),
        "reply_bytes": told["reply_bytes"],
        "status": 200,
        "outcome": "ok",
        "code": None,
        "windows_before": {},
        "windows_after": {},
        "paid_by": "other",
        "list_price_usd": None,
    }
    assert told["reply_bytes"] > 200


@ensureDeferred
async def test_every_dialect_has_its_name(double: Daemon) -> None:
    prompt = {"messages": None, "prompt": "Hi"}
    items = {"messages": None, "input": "Hi"}
    for path, dialect, fields in (
        (CHAT, "chat", {"stream": True}),
        ("/v1/messages", "messages", {"max_tokens": 9}),
        ("/completions", "completions", prompt),
        ("/v1/responses", "responses", items),
    ):
        told = await receipt(double, await ask(double, path=path, **fields))
        assert (told["dialect"], told["outcome"], told["usage"]["output_tokens"]) == (
            dialect, "ok", 5,
        )  # fmt: skip


@ensureDeferred
async def test_several_answers_are_one_turn(make_daemon: Any, tmp_path: Path) -> None:
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"))
    told = await receipt(daemon, await ask(daemon, n=3))
    assert told["answers"] == 3
    assert (told["usage"]["input_tokens"], told["usage"]["output_tokens"]) == (21, 15)
    assert (await get(daemon, "/v1/usage"))["ledger"]["total"]["turns"] == 1


@ensureDeferred
async def test_what_fails_is_told_with_what_it_has_cost(double: Daemon) -> None:
    broken = await receipt(double, await ask(double, "[[middle exit]]"))
    assert (broken["status"], broken["outcome"]) == (502, "upstream")
    assert broken["usage"]["input_tokens"] == 7
    unasked = await receipt(double, await ask(double, "[[question exit]]"))
    assert (unasked["status"], unasked["usage"]["input_tokens"]) == (502, 0)
    assert unasked["paid_by"] is None


@ensureDeferred
async def test_a_second_answer_for_a_schema_counts_as_well(
    make_daemon: Any, tmp_path: Path
) -> None:
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli", answer="{}"))
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    told = await receipt(daemon, await ask(daemon, response_format=form))
    assert (told["status"], told["usage"]["output_tokens"]) == (502, 10)


@ensureDeferred
async def test_clients_that_leave_and_clients_that_are_refused(double: Daemon) -> None:
    running = double.api.journal.running
    messages = [{"role": "user", "content": "[[middle silence]]"}]
    body = json.dumps({"model": "haiku", "messages": messages, "stream": True})
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", double.port[0].getHost().port)
    client = await connectProtocol(endpoint, Protocol())
    head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    client.transport.write(f"{head}content-length: {len(body)}\r\n\r\n{body}".encode())
    await until(lambda: any(turn.facts.first_token for turn in running.values()))
    refused = await receipt(double, await ask(double))
    assert (refused["status"], refused["outcome"]) == (429, "rate_limit")
    assert refused["usage"]["input_tokens"] == 0
    client.transport.abortConnection()
    await until(lambda: not running)
    left = (await get(double, "/v1/usage/turns?limit=2"))["data"][1]  # it arrived first
    assert (left["outcome"], left["usage"]["input_tokens"]) == ("client left", 7)


@ensureDeferred
async def test_mistakes_are_no_turns(double: Daemon) -> None:
    for fields in ({"model": "gpt-9"}, {"n": 0}, {"messages": 1}):
        await ask(double, **fields)
    await get(double, "/v1/models")
    assert (await get(double, "/v1/usage/turns"))["data"] == []


@ensureDeferred
async def test_pages(double: Daemon) -> None:
    idents = [await ask(double) for _ in range(3)]
    page = await get(double, "/v1/usage/turns?limit=2")
    assert [turn["request_id"] for turn in page["data"]] == [idents[2], idents[1]]
    rest = await get(double, f"/v1/usage/turns?before={page['data'][-1]['time']}")
    assert [turn["request_id"] for turn in rest["data"]] == [idents[0]]


@ensureDeferred
async def test_bad_questions(double: Daemon) -> None:
    for path, param in (
        ("/v1/usage?days=0", "days"),
        ("/v1/usage?days=401", "days"),
        ("/v1/usage?days=x", "days"),
        ("/v1/usage?days=0000000011000000000", "days"),
        ("/v1/usage/turns?limit=1001", "limit"),
        ("/v1/usage/turns?limit=" + "9" * 400, "limit"),
        ("/v1/usage/turns?before=x", "before"),
        ("/v1/usage/turns?before=nan", "before"),
    ):
        response = await treq.get(double.url + path)
        told = await treq.json_content(response)
        assert (response.code, told["error"]["param"]) == (400, param), path
    response = await treq.get(double.url + "/v1/usage/turns/nothing")
    assert response.code == 404


@ensureDeferred
async def test_without_a_ledger(make_daemon: Any, tmp_path: Path) -> None:
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"), no_ledger=True)
    ident = await ask(daemon)
    assert (await get(daemon, "/v1/usage"))["ledger"] is None
    for path in ("/v1/usage/turns", f"/v1/usage/turns/{ident}"):
        response = await treq.get(daemon.url + path)
        assert response.code == 404
        assert "--no-ledger" in await treq.text_content(response)
    assert not list(Path(daemon.home).rglob("ledger*"))


@ensureDeferred
async def test_nothing_that_was_said_is_in_it(double: Daemon) -> None:
    await ask(double, "SECRET-CANARY", user="SECRET-USER")
    await get(double, "/v1/usage/turns")  # by then it is written
    files = [path.read_bytes() for path in Path(double.home).rglob("ledger.sqlite*")]
    assert any(b"OpenAI/Python" in data for data in files)
    for data in files:
        assert b"CANARY" not in data and b"SECRET" not in data


@ensureDeferred
async def test_it_survives_a_restart(double: Daemon) -> None:
    ident = await ask(double)
    await double.api.stopService()
    double.api.startService()
    assert (await receipt(double, ident))["outcome"] == "ok"


@ensureDeferred
async def test_many_at_once_are_all_in_it(make_daemon: Any, tmp_path: Path) -> None:
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"), queue=50)
    idents = await gatherResults([run(ask(daemon, str(i))) for i in range(30)])
    page = await get(daemon, "/v1/usage/turns")
    assert sorted(turn["request_id"] for turn in page["data"]) == sorted(idents)
    json.dumps(page)


@ensureDeferred
async def test_a_client_whose_name_is_no_text(double: Daemon) -> None:
    body = {"model": "haiku", "messages": [{"role": "user", "content": "Hi"}]}
    sent = {
        b"content-type": b"application/json",
        b"user-agent": b"\xff\xfeX/1",
        b"upgrade": b"\xff",
    }
    response = await treq.post(double.url + CHAT, data=json.dumps(body).encode(), headers=sent)
    assert response.code == 200, await treq.text_content(response)
    await treq.content(response)
    [told] = (await get(double, "/v1/usage/turns"))["data"]
    assert (told["client"], told["outcome"]) == ("\ufffd\ufffdX", "ok")
