"""The main job: a conversation through the daemon, the real CLI and the stand-in."""

from __future__ import annotations

import json
from typing import Any

import pytest
import treq
from harness import Daemon, in_thread, until
from openai import OpenAI
from pytest_twisted import ensureDeferred


def client(daemon: Daemon) -> OpenAI:
    return OpenAI(base_url=daemon.url + "/v1", api_key="none", max_retries=0)


@ensureDeferred
async def test_whole_answer(daemon: Daemon) -> None:
    answer = await daemon.chat([{"role": "user", "content": "Hello"}])
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "claude-sonnet-4-5"
    assert answer["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "You said: Hello", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]


@ensureDeferred
async def test_streamed_answer_chunk_by_chunk(daemon: Daemon) -> None:
    response = await daemon.post(
        "/v1/chat/completions",
        {
            "model": "claude-sonnet-4-5",
            "messages": [{"role": "user", "content": "Hi"}],
            "stream": True,
            "stream_options": {"include_usage": True},
        },
    )
    assert response.code == 200
    assert response.headers.getRawHeaders("content-type") == ["text/event-stream; charset=utf-8"]
    assert response.headers.getRawHeaders("x-request-id")[0].startswith("req_")
    lines = (await treq.text_content(response)).split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    assert len({(c["id"], c["created"], c["model"], c["object"]) for c in chunks}) == 1
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    text = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks[:-1])
    assert text == "You said: Hi"
    assert [c["choices"][0]["finish_reason"] for c in chunks[:-1]] == [None] * (len(chunks) - 2) + [
        "stop"
    ]
    assert all(c["usage"] is None for c in chunks[:-1])
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["total_tokens"] > 0


@ensureDeferred
async def test_usage_comes_unasked_on_the_finish_chunk_and_can_be_switched_off(
    daemon: Daemon,
) -> None:
    def ask(**options: Any) -> list[Any]:
        stream = client(daemon).chat.completions.create(
            model="sonnet",
            messages=[{"role": "user", "content": "[[usage cache_read_input_tokens=7]]"}],
            stream=True,
            **options,
        )
        return [chunk.usage for chunk in stream]

    unasked = await in_thread(ask)
    assert unasked[:-1] == [None] * (len(unasked) - 1)
    assert unasked[-1].prompt_tokens_details.cached_tokens == 7
    assert unasked[-1].prompt_tokens > 7
    off = await in_thread(ask, stream_options={"include_usage": False})
    assert off == [None] * len(off)


@ensureDeferred
async def test_openai_sdk_holds_a_conversation(daemon: Daemon) -> None:
    def talk() -> list[str | None]:
        sdk = client(daemon)
        messages: list[Any] = [{"role": "system", "content": "Be brief."}]
        said = []
        for question in ("one", "two", "three"):
            messages.append({"role": "user", "content": question})
            answer = sdk.chat.completions.create(model="claude-opus-4", messages=messages)
            messages.append(answer.choices[0].message.model_dump())
            said.append(answer.choices[0].message.content)
        return said

    before = len(daemon.turns())
    assert await in_thread(talk) == ["You said: one", "You said: two", "You said: three"]
    assert len(daemon.turns()) == before + 3


@ensureDeferred
async def test_hello_is_lean(daemon: Daemon, mode: str) -> None:
    await daemon.chat([{"role": "user", "content": "Hello"}], model="claude-sonnet-4")
    sent = daemon.turns()[-1]
    assert sent.size < (2800 if mode == "subscription" else 2500)
    assert sent.body["tools"] == []


@ensureDeferred
async def test_health_and_models_are_instant_and_start_nothing(daemon: Daemon, mode: str) -> None:
    await until(lambda: daemon.api.engine.processes and not daemon.api.engine.keeper.starting)
    processes = set(daemon.api.engine.processes)
    health = await treq.json_content(await treq.get(daemon.url + "/health"))
    assert (health["status"], health["provider"]) == ("ok", "claude-code-cli")
    assert health["timestamp"].endswith("Z")
    assert health["cli_version"].startswith("2.")
    assert health["logged_in"] is (True if mode == "subscription" else None)
    models = await treq.json_content(await treq.get(daemon.url + "/v1/models"))
    ids = [model["id"] for model in models["data"]]
    assert ids[:3] == ["claude-opus-4", "claude-sonnet-4", "claude-haiku-4"]
    assert {"opus", "claude-opus-5-5"} <= set(ids)
    one = await treq.json_content(await treq.get(daemon.url + "/v1/models/claude-opus-4"))
    assert one == models["data"][0]
    assert set(daemon.api.engine.processes) <= processes  # one before it may end meanwhile


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ("claude-opus-4", "claude-opus-5-5"),
        ("openai/claude-sonnet-4", "claude-sonnet-5-5"),
        ("anthropic/haiku", "claude-haiku-5-5"),
        ("claude-sonnet-4-5-20250929", "claude-sonnet-4-5-20250929"),
        ("claude-opus-5-5", "claude-opus-5-5"),
    ],
)
@ensureDeferred
async def test_model_names(daemon: Daemon, asked: str, sent: str) -> None:
    await until(lambda: len(daemon.api.engine.catalogue.entries()) > 6)
    answer = await daemon.chat([{"role": "user", "content": "x"}], model=asked)
    assert answer["model"] == asked
    assert daemon.body()["model"] == sent
