"""What bounds and shapes an answer, and that each turn costs exactly one upstream request."""

from __future__ import annotations

import json
from typing import Any

import pytest
import treq
from harness import Daemon
from pytest_twisted import ensureDeferred

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


SLOWLY = "[[chunk 2]][[pause 0.02]]"
"""As any real model answers: over more than the few milliseconds that the brake takes."""


async def ask(daemon: Daemon, order: str, **fields: Any) -> Any:
    """The answer to one question, which has to cost one upstream request."""
    before = len(daemon.turns())
    answer = await daemon.chat([{"role": "user", "content": order}], **fields)
    assert len(daemon.turns()) == before + 1
    return answer


def ending(answer: Any) -> tuple[str | None, str]:
    choice = answer["choices"][0]
    return choice["message"]["content"], choice["finish_reason"]


@pytest.mark.parametrize("model", ["claude-sonnet-4", "claude-sonnet-4-5"])
@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
@ensureDeferred
async def test_max_tokens(daemon: Daemon, field: str, model: str) -> None:
    answer = await ask(daemon, SLOWLY + "[[repeat 50 word]]", model=model, **{field: 5})
    assert daemon.body()["max_tokens"] == 5
    assert ending(answer) == ("word " * 4, "length")


@ensureDeferred
async def test_no_limit_follows_a_limit_on_the_same_process(daemon: Daemon) -> None:
    asked = [{"role": "user", "content": "x"}]
    answer = await daemon.chat(asked, max_tokens=2000, stop=["zzz"], model="claude-sonnet-4")
    asked += [answer["choices"][0]["message"], {"role": "user", "content": "y"}]
    await daemon.chat(asked, model="claude-sonnet-4")
    body = daemon.body()
    assert body["max_tokens"] > 2000
    assert "stop_sequences" not in body


@pytest.mark.parametrize(
    ("stop", "text"),
    [
        ("three", "one two "),
        (["x", "two three"], "one "),
        ("\n", "one two three"),
        (["o t", "three"], "one tw"[:0] + "one tw"),
        ([f"no{i}" for i in range(20)] + ["ee"], "one two thr"),
    ],
)
@ensureDeferred
async def test_stop(daemon: Daemon, stop: Any, text: str) -> None:
    answer = await ask(daemon, "[[chunk 1]][[say one two three\nfour]]", stop=stop)
    assert ending(answer) == (text, "stop")


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("refusal", "content_filter"),
        ("pause_turn", "stop"),
        ("model_context_window_exceeded", "length"),
        ("something_new", "stop"),
        ("max_tokens", "length"),
    ],
)
@ensureDeferred
async def test_stop_reasons(daemon: Daemon, reason: str, finish: str) -> None:
    answer = await ask(daemon, f"{SLOWLY}[[say so far]][[stop {reason}]]")
    assert ending(answer) == ("so far", finish)


@ensureDeferred
async def test_n_answers(daemon: Daemon) -> None:
    before = len(daemon.turns())
    answer = await daemon.chat([{"role": "user", "content": "x"}], n=3)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert len(daemon.turns()) == before + 3
    one = await daemon.chat([{"role": "user", "content": "x"}])
    assert answer["usage"]["total_tokens"] == 3 * one["usage"]["total_tokens"]


@ensureDeferred
async def test_n_streamed_and_failing(daemon: Daemon) -> None:
    body = {"model": "sonnet", "n": 2, "stream": True}
    body["messages"] = [{"role": "user", "content": "x"}]
    response = await daemon.post("/v1/chat/completions", body)
    chunks = (await treq.text_content(response)).split("\n\n")
    assert chunks.count("data: [DONE]") == 1
    ends = [json.loads(c[6:])["choices"][0] for c in chunks if '"finish_reason":"stop"' in c]
    assert sorted(end["index"] for end in ends) == [0, 1]
    body["messages"] = [{"role": "user", "content": "[[error 500 broken]]"}]
    response = await daemon.post("/v1/chat/completions", body)
    assert response.code == 500
    assert (await treq.json_content(response))["error"]["type"] == "server_error"


@ensureDeferred
async def test_sampling_where_the_model_takes_it(daemon: Daemon) -> None:
    await ask(daemon, "x", temperature=0.3)
    assert daemon.body()["temperature"] == 0.3
    assert daemon.body()["thinking"] == {"type": "disabled"}
    await ask(daemon, "x", top_p=0.5)
    assert daemon.body()["top_p"] == 0.5


@ensureDeferred
async def test_what_cannot_be_honoured_is_named(daemon: Daemon) -> None:
    body = {
        "model": "claude-sonnet-4",
        "messages": [{"role": "user", "content": "x"}],
        "temperature": 0.3,
        "seed": 1,
        "logprobs": True,
        "presence_penalty": 0.5,
        "user": "me",
        "unheard_of": 1,
    }
    response = await daemon.post("/v1/chat/completions", body)
    await treq.content(response)
    (named,) = response.headers.getRawHeaders("x-claudemax-ignored")
    assert set(named.split(", ")) == {"seed", "presence_penalty", "logprobs", "temperature"}
    assert "temperature" not in daemon.body()


@pytest.mark.parametrize(
    ("model", "effort", "sent"),
    [
        ("claude-sonnet-4", "minimal", "low"),
        ("claude-sonnet-4", "xhigh", "xhigh"),
        ("claude-sonnet-4", "none", "low"),
        ("claude-sonnet-4", None, "medium"),
    ],
)
@ensureDeferred
async def test_effort(daemon: Daemon, model: str, effort: str | None, sent: str) -> None:
    await ask(daemon, "x", model=model, reasoning_effort=effort)
    assert daemon.body()["output_config"]["effort"] == sent


@ensureDeferred
async def test_effort_of_a_model_that_thinks_within_a_budget(daemon: Daemon) -> None:
    await ask(daemon, "x", reasoning_effort="low")
    assert daemon.body()["thinking"] == {"type": "enabled", "budget_tokens": 2048}
    await ask(daemon, "x", reasoning_effort="none")
    assert daemon.body()["thinking"] == {"type": "disabled"}
    await ask(daemon, "x", reasoning_effort="high", max_tokens=3000)
    assert daemon.body()["thinking"] == {"type": "enabled", "budget_tokens": 2999}


@ensureDeferred
async def test_thinking_comes_out_as_reasoning(daemon: Daemon) -> None:
    answer = await ask(daemon, "[[think step by step]][[say done]]")
    message = answer["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("step by step", "done")
    assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] > 0


@ensureDeferred
async def test_json_schema_by_the_api(daemon: Daemon) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "p", "schema": SCHEMA, "strict": True}}
    answer = await ask(daemon, "x", response_format=form)
    assert set(json.loads(ending(answer)[0] or "")) == {"name", "age"}
    sent = daemon.body()["output_config"]["format"]
    assert sent == {"type": "json_schema", "schema": SCHEMA}
    assert daemon.body()["tools"] == []


@ensureDeferred
async def test_a_schema_the_api_would_refuse_goes_by_tool(daemon: Daemon) -> None:
    ages = {"type": "object", "properties": {"age": {"type": "integer", "minimum": 18}}}
    form = {"type": "json_schema", "json_schema": {"name": "p", "schema": ages}}
    answer = await ask(daemon, "x", response_format=form)
    text, finish = ending(answer)
    assert finish == "stop"
    json.loads(text or "")
    assert [tool["name"] for tool in daemon.body()["tools"]] == ["answer"]


@ensureDeferred
async def test_a_schema_the_upstream_refuses_goes_by_tool_and_is_remembered(
    make_daemon: Any,
) -> None:
    from claudeproxy.demo.steps import ApiError

    def refuses(received: Any) -> ApiError | None:
        if "format" in received.body.get("output_config", {}):
            return ApiError(400, "output_config: Extra inputs are not permitted")
        return None

    daemon = await make_daemon(script=refuses)
    form = {"type": "json_schema", "json_schema": {"name": "p", "schema": SCHEMA}}
    asked = [{"role": "user", "content": "x"}]
    answer = await daemon.chat(asked, response_format=form)
    assert set(json.loads(ending(answer)[0] or "")) == {"name", "age"}
    assert len(daemon.turns()) == 2
    await daemon.chat(asked, response_format=form)
    assert len(daemon.turns()) == 3


@ensureDeferred
async def test_json_object(daemon: Daemon) -> None:
    answer = await ask(daemon, "some JSON", response_format={"type": "json_object"})
    assert isinstance(json.loads(ending(answer)[0] or ""), dict)


@ensureDeferred
async def test_a_whole_answer_gets_one_repair(daemon: Daemon) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "p", "schema": SCHEMA}}
    before = len(daemon.turns())
    asked = [{"role": "user", "content": '[[say {"name": 1}]]'}]
    answer = await daemon.chat(asked, response_format=form)
    assert set(json.loads(ending(answer)[0] or "")) == {"name", "age"}
    assert len(daemon.turns()) == before + 2


@ensureDeferred
async def test_a_streamed_answer_that_breaks_its_schema_ends_in_an_error(daemon: Daemon) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "p", "schema": SCHEMA}}
    body = {
        "model": "claude-sonnet-4-5",
        "messages": [{"role": "user", "content": '[[say {"name": 1}]]'}],
        "response_format": form,
        "stream": True,
    }
    response = await daemon.post("/v1/chat/completions", body)
    events = (await treq.text_content(response)).split("\n\n")
    assert "does not satisfy the schema" in json.loads(events[-2][6:])["error"]["message"]
    assert "data: [DONE]" not in events


@ensureDeferred
async def test_with_tools_the_schema_binds_the_final_answer(daemon: Daemon) -> None:
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    form = {"type": "json_schema", "json_schema": {"name": "p", "schema": SCHEMA}}
    asked: list[Any] = [{"role": "user", "content": "[[call look {}]]"}]
    fields = {"tools": [tool], "response_format": form, "model": "claude-sonnet-4"}
    answer = await daemon.chat(asked, **fields)
    message = answer["choices"][0]["message"]
    asked += [
        message,
        {"role": "tool", "content": "r", "tool_call_id": message["tool_calls"][0]["id"]},
    ]
    answer = await daemon.chat(asked, **fields)
    assert set(json.loads(ending(answer)[0] or "")) == {"name", "age"}


@ensureDeferred
async def test_a_broken_schema(daemon: Daemon) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "p", "schema": {"type": "nonsense"}}}
    before = len(daemon.turns())
    answer = await daemon.chat([{"role": "user", "content": "x"}], response_format=form)
    assert answer["error"]["param"] == "response_format.json_schema.schema"
    assert len(daemon.turns()) == before
