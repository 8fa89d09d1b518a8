"""Ollama's API through the daemon, the real CLI and the stand-in, with Ollama's own client."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ollama
import pytest
import treq
from harness import Daemon, in_thread
from pytest_twisted import ensureDeferred
from raw import connect

from claudeproxy.testing import fake_cli
from claudeproxy.web.ollama import NOT_HERE, VERSION
from claudeproxy.web.routing import ROUTES

pytestmark = pytest.mark.cli

ADD = {
    "type": "function",
    "function": {"name": "add", "parameters": {"type": "object", "properties": {"a": {}}}},
}
POINT = {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]}


def client(daemon: Daemon, **headers: str) -> ollama.Client:
    return ollama.Client(daemon.url, headers=headers)


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


async def ask(daemon: Daemon, text: str = "Hi", **fields: Any) -> Any:
    return await in_thread(client(daemon).chat, model="sonnet", messages=said(text), **fields)


@ensureDeferred
async def test_a_chat(daemon: Daemon) -> None:
    before = len(daemon.turns())
    told = await ask(daemon, "Hello", options={"temperature": 0, "num_ctx": 9})
    assert told.message.content == "You said: Hello"
    assert (told.model, told.done, told.done_reason) == ("sonnet", True, "stop")
    assert told.eval_count and told.prompt_eval_count and told.total_duration
    assert len(daemon.turns()) == before + 1


@ensureDeferred
async def test_a_chat_that_goes_on_in_its_process(daemon: Daemon) -> None:
    first = await ask(daemon, "One")
    messages = [*said("One"), dict(first.message), *said("Two")]
    body = {"model": "sonnet", "messages": messages, "stream": False}
    response = await daemon.post("/api/chat", body)
    assert response.headers.getRawHeaders("x-claudemax-process") == ["kept"]
    assert (await treq.json_content(response))["message"]["content"] == "You said: Two"


@ensureDeferred
async def test_a_stream(daemon: Daemon) -> None:
    body = {"model": "claude-sonnet-4:latest", "messages": said("Hello you")}
    response = await daemon.post("/api/chat", body)
    assert response.headers.getRawHeaders("content-type") == ["application/x-ndjson"]
    lines = [json.loads(line) for line in (await treq.content(response)).splitlines()]
    assert "".join(line["message"]["content"] for line in lines) == "You said: Hello you"
    assert [line["done"] for line in lines[-2:]] == [False, True]
    assert {line["model"] for line in lines} == {"claude-sonnet-4"}


@ensureDeferred
async def test_tools(daemon: Daemon) -> None:
    question = said('[[call add {"a": 1}]]')

    def rounds() -> tuple[Any, Any]:
        sdk = client(daemon)
        first = sdk.chat("sonnet", question, tools=[ADD])
        result = {"role": "tool", "tool_name": "add", "content": "42"}
        return first, sdk.chat("sonnet", [*question, first.message, result], tools=[ADD])

    before = len(daemon.turns())
    first, second = await in_thread(rounds)
    [call] = first.message.tool_calls
    assert (call.function.name, call.function.arguments) == ("add", {"a": 1})
    assert second.message.content
    assert len(daemon.turns()) == before + 2
    asked = [message for message in daemon.body()["messages"] if message["role"] == "user"]
    [result] = [block for block in asked[-1]["content"] if block["type"] == "tool_result"]
    assert "42" in json.dumps(result["content"])


@ensureDeferred
async def test_a_schema(daemon: Daemon) -> None:
    told = await ask(daemon, "A point", format=POINT)
    assert json.loads(told.message.content) == {"x": 0}


@ensureDeferred
async def test_generate(daemon: Daemon) -> None:
    told = await in_thread(client(daemon).generate, model="haiku", prompt="Hi", system="Be brief")
    assert told.response == "You said: Hi"
    assert daemon.body()["system"][-1]["text"].endswith("Be brief")


@ensureDeferred
async def test_loading_costs_nothing(daemon: Daemon) -> None:
    before = len(daemon.turns())
    for body, reason in (
        ({}, "load"),
        ({"messages": None}, "load"),
        ({"keep_alive": 0}, "unload"),
    ):
        for path in ("/api/chat", "/api/generate"):
            told = await treq.json_content(await daemon.post(path, {"model": "opus", **body}))
            assert (told["done"], told["done_reason"]) == (True, reason)
            # Ollama's client for Go says null for no messages.
            [said] = {"message", "response"} & set(told)
            assert said == ("message" if path == "/api/chat" else "response")
    assert len(daemon.turns()) == before
    response = await daemon.post("/api/generate", {"model": "gpt-4"})
    assert response.code == 404


@ensureDeferred
async def test_bodies_as_curl_sends_them(daemon: Daemon) -> None:
    body = json.dumps({"model": "haiku", "prompt": "Hi", "stream": False}).encode()
    curl = {"content-type": "application/x-www-form-urlencoded"}
    for headers in ({}, curl):
        response = await treq.post(f"{daemon.url}/api/generate", data=body, headers=headers)
        assert (await treq.json_content(response))["response"] == "You said: Hi"
    for headers in ({"origin": "null"}, {"sec-fetch-site": "none"}, {"content-type": "text/plain"}):
        response = await treq.post(f"{daemon.url}/api/generate", data=body, headers=headers)
        assert response.code in (403, 415)
        assert list(await treq.json_content(response)) == ["error"]


@ensureDeferred
async def test_a_form_is_not_parsed_as_one(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[bytes] = []
    monkeypatch.setattr("twisted.web.http.parse_qs", lambda data, *_: parsed.append(data) or {})
    client = await connect(
        daemon.port[0],
        b"POST /api/chat HTTP/1.1\r\nhost: localhost\r\ncontent-length: 7\r\n"
        b"content-type: application/x-www-form-urlencoded\r\n\r\na=b&c=d",
    )
    assert b"HTTP/1.1 400 " in await client.replied()
    assert not parsed  # Twisted has no bounds for it, and keeps what it finds
    client.transport.loseConnection()


@ensureDeferred
async def test_two_types_are_none(daemon: Daemon) -> None:
    client = await connect(
        daemon.port[0],
        b"POST /api/chat HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n"
        b"content-type: multipart/form-data; boundary=x\r\ncontent-type: x\r\n\r\n{}",
    )
    assert b"HTTP/1.1 415 " in await client.replied()
    client.transport.loseConnection()


@ensureDeferred
async def test_models(daemon: Daemon) -> None:
    listed = await in_thread(client(daemon).list)
    names = [model.model for model in listed.models]
    assert "claude-opus-4:latest" in names
    shown = await in_thread(client(daemon).show, "claude-opus-4:latest")
    assert "tools" in shown.capabilities
    architecture = shown.modelinfo["general.architecture"]
    assert shown.modelinfo[f"{architecture}.context_length"] >= 200_000
    assert (await treq.json_content(await treq.get(f"{daemon.url}/api/version"))) == {
        "version": VERSION
    }
    pulled = await in_thread(client(daemon).pull, "claude-opus-4")
    assert pulled.status == "success"

    def steps() -> list[Any]:
        return [step.status for step in client(daemon).pull("opus", stream=True)]

    assert (await in_thread(steps))[-1] == "success"


@ensureDeferred
async def test_models_that_run(daemon: Daemon) -> None:
    await in_thread(client(daemon).generate, model="claude-haiku-4-5", prompt="Hi")
    running = (await in_thread(client(daemon).ps)).models
    [one] = [model for model in running if model.model == "haiku:latest"]
    assert one.context_length == 1_000_000
    assert one.expires_at > one.expires_at.now(one.expires_at.tzinfo)


@ensureDeferred
async def test_what_there_is_not(daemon: Daemon) -> None:
    for name, why in NOT_HERE.items():
        response = await daemon.post(f"/api/{name}", {"model": "opus"})
        told = await treq.json_content(response)
        assert (response.code, told) == (501, {"error": f"/api/{name}: {why}"})
    response = await treq.get(f"{daemon.url}/api/nothing")
    assert response.code == 404
    told = await treq.json_content(response)
    assert list(told) == ["error"]
    assert all(route in told["error"] for route in ROUTES)
    response = await treq.get(f"{daemon.url}/api/chat")
    assert (response.code, response.headers.getRawHeaders("allow")) == (405, ["POST"])


@ensureDeferred
async def test_refusals(daemon: Daemon) -> None:
    with pytest.raises(ollama.ResponseError, match="model not found") as caught:
        await in_thread(client(daemon).chat, model="gpt-4", messages=said("x"))
    assert caught.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match="temperature") as caught:
        await ask(daemon, options={"temperature": 99})
    assert caught.value.status_code == 400
    response = await daemon.post("/api/chat", b"{")
    assert list(await treq.json_content(response)) == ["error"]
    assert response.code == 400


@ensureDeferred
async def test_a_key_and_its_models(make_daemon: Any, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("app: s3cret models=haiku requests=1/day\n")
    keys.chmod(0o600)
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"), api_key_file=str(keys))
    with pytest.raises(ollama.ResponseError, match="a key is needed") as caught:
        await in_thread(client(daemon).list)
    assert caught.value.status_code == 401
    sdk = client(daemon, authorization="Bearer s3cret")
    names = [model.model for model in (await in_thread(sdk.list)).models]
    assert "haiku:latest" in names
    assert "opus:latest" not in names
    for act in (sdk.show, sdk.pull):
        with pytest.raises(ollama.ResponseError, match="may not use the model"):
            await in_thread(act, "opus")
    with pytest.raises(ollama.ResponseError, match="may not use the model"):
        await in_thread(sdk.chat, model="opus", messages=said("x"))
    await in_thread(sdk.chat, model="haiku", messages=said("x"))
    with pytest.raises(ollama.ResponseError, match="used up its quota of requests/day"):
        await in_thread(sdk.chat, model="haiku", messages=said("x"))
