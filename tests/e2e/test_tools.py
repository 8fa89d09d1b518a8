"""Client tools: native calls, parked processes, replays, choices."""

from __future__ import annotations

import base64
from typing import Any

import pytest
import treq
from harness import AFRESH, Daemon, in_thread
from openai import OpenAI
from pytest_twisted import ensureDeferred
from test_word_for_word import arrived, png, text

from claudeproxy.messages import normalise_tool_id

MODEL = "claude-sonnet-4"
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "minLength": 1}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": n, "description": f"{n}.", "parameters": SCHEMA}}
    for n in ("get_weather", "get_time", "Zebra")
]
TWO_CALLS = '[[call get_weather {"city":"Paris"}]][[call get_time {"city":"Rome"}]]'


async def ask(daemon: Daemon, messages: Any, **fields: Any) -> tuple[Any, str]:
    """The answer, and the way it was served."""
    fields = {"model": MODEL, "tools": TOOLS, "messages": messages, **fields}
    response = await daemon.post("/v1/chat/completions", fields)
    way = response.headers.getRawHeaders("x-claudemax-process", [""])[0]
    return await treq.json_content(response), way


async def called(daemon: Daemon, order: str = TWO_CALLS, **fields: Any) -> list[Any]:
    """A conversation up to its calls."""
    messages: list[Any] = [{"role": "user", "content": order}]
    answer, _ = await ask(daemon, messages, **fields)
    assert answer["choices"][0]["finish_reason"] == "tool_calls", answer
    messages.append(answer["choices"][0]["message"])
    return messages


def results(messages: list[Any], *contents: Any) -> list[Any]:
    calls = messages[-1]["tool_calls"]
    return [
        {"role": "tool", "tool_call_id": call["id"], "content": content}
        for call, content in zip(calls, contents, strict=True)
    ]


@ensureDeferred
async def test_tools_reach_the_model_as_they_are(daemon: Daemon) -> None:
    await ask(daemon, [{"role": "user", "content": "x"}])
    assert daemon.body()["tools"] == [
        {"name": name, "description": f"{name}.", "input_schema": SCHEMA}
        for name in ("get_time", "get_weather", "Zebra")
    ]


@ensureDeferred
async def test_a_long_description_arrives_whole(daemon: Daemon) -> None:
    long = "first line\n" + "d" * 5000
    tool = {
        "type": "function",
        "function": {"name": "t", "description": long, "parameters": SCHEMA},
    }
    await ask(daemon, [{"role": "user", "content": "x"}], tools=[tool])
    assert daemon.body()["tools"][0]["input_schema"]["description"] == long


@ensureDeferred
async def test_calls_stream_while_they_are_written(daemon: Daemon) -> None:
    def stream() -> dict[int, dict[str, Any]]:
        sdk = OpenAI(base_url=daemon.url + "/v1", api_key="x", max_retries=0)
        calls: dict[int, dict[str, Any]] = {}
        chunks = sdk.chat.completions.create(
            model=MODEL,
            tools=TOOLS,
            messages=[{"role": "user", "content": TWO_CALLS}],
            stream=True,
        )
        for chunk in chunks:
            for call in chunk.choices[0].delta.tool_calls or [] if chunk.choices else []:
                known = calls.setdefault(call.index, {"pieces": []})
                known.update({"id": call.id, "name": call.function.name} if call.id else {})
                known["pieces"].append(call.function.arguments)
            reason = chunk.choices[0].finish_reason if chunk.choices else None
        calls[-1] = {"reason": reason}
        return calls

    calls = await in_thread(stream)
    assert calls[-1]["reason"] == "tool_calls"
    assert [calls[i]["name"] for i in (0, 1)] == ["get_weather", "get_time"]
    assert [calls[i]["id"].isalnum() for i in (0, 1)] == [True, True]
    assert "".join(calls[0]["pieces"]) == '{"city":"Paris"}'
    assert len(calls[0]["pieces"]) > 2


@ensureDeferred
async def test_the_parked_process_goes_on(daemon: Daemon) -> None:
    before = len(daemon.turns())
    messages = await called(daemon)
    for call in messages[-1]["tool_calls"]:
        call["id"] = "call_" + call["id"][:5] + "-" + call["id"][5:]
        call["id"] = call["id"].removeprefix("call_")
    messages += reversed(results(messages, "sunny", "noon"))
    answer, way = await ask(daemon, messages)
    assert way == "parked"
    assert answer["choices"][0]["message"]["content"] == "The tool said: noon"
    assert len(daemon.turns()) == before + 2
    parked = arrived(daemon.body())
    messages.append({"role": "assistant", "content": "The tool said: noon"})
    messages.append({"role": "user", "content": "thanks"})
    answer, way = await ask(daemon, messages)
    assert way == "kept"
    kept = arrived(daemon.body())
    answer, way = await ask(daemon, messages)
    assert way in AFRESH
    assert arrived(daemon.body()) == kept
    assert kept[: len(parked)] == parked


PARKED_RESULTS: list[Any] = [
    "x" * 200_000,
    "  spaces \n",
    [text("one"), text("two")],
    [text("see"), {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{png()}"}}],
    [
        text("y" * 120_000),
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{png()}"}},
    ],
    '{"json": [1, 2]}',
    "\x00\x1b[1m\u2028",
]
REPLAYED_RESULTS: list[Any] = [
    "",
    "x" * 400_000,
    [
        {
            "type": "file",
            "file": {
                "filename": "n.txt",
                "file_data": "data:text/plain;base64," + base64.b64encode(b"note").decode(),
            },
        }
    ],
    [text("a"), {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}],
]


@pytest.mark.parametrize("content", PARKED_RESULTS + REPLAYED_RESULTS, ids=range(11))
@ensureDeferred
async def test_parked_or_replayed_the_result_is_the_same(daemon: Daemon, content: Any) -> None:
    messages = await called(daemon, '[[call get_time {"city":"Rome"}]]')
    messages += results(messages, content)
    before = len(daemon.turns())
    _, way = await ask(daemon, messages)
    assert way in (("parked",) if content in PARKED_RESULTS else AFRESH)
    first = arrived(daemon.body())
    _, way = await ask(daemon, messages)
    assert way in AFRESH
    assert arrived(daemon.body()) == first
    assert len(daemon.turns()) == before + 2


@ensureDeferred
async def test_a_user_message_after_the_results_is_replayed(daemon: Daemon) -> None:
    messages = await called(daemon)
    messages += [*results(messages, "sunny", "noon"), {"role": "user", "content": "and then?"}]
    answer, way = await ask(daemon, messages)
    assert way in AFRESH
    assert answer["choices"][0]["message"]["content"] == "You said: and then?"
    assert arrived(daemon.body())[-1]["content"][-1] == text("and then?")


@ensureDeferred
async def test_another_limit_for_the_answer_to_the_results(daemon: Daemon) -> None:
    messages = await called(daemon, max_tokens=500)
    messages += results(messages, "sunny", "noon")
    _, way = await ask(daemon, messages, max_tokens=700)
    assert way in AFRESH and daemon.body()["max_tokens"] == 700


@ensureDeferred
async def test_combiners_at_the_root_of_a_schema_are_told_in_words(daemon: Daemon) -> None:
    branches = [{"properties": {"a": {"type": "string"}}, "required": ["a"]}, {"type": "object"}]
    function = {"name": "t", "parameters": {"type": "object", "anyOf": branches}}
    await ask(
        daemon,
        [{"role": "user", "content": "x"}],
        tools=[{"type": "function", "function": function}],
    )
    (sent,) = daemon.body()["tools"]
    assert sent["input_schema"]["properties"] == {"a": {"type": "string"}}
    assert "anyOf" in sent["input_schema"]["description"]


@ensureDeferred
async def test_missing_results_are_named(daemon: Daemon) -> None:
    messages = await called(daemon)
    first, second = messages[-1]["tool_calls"]
    messages.append({"role": "tool", "tool_call_id": first["id"], "content": "sunny"})
    before = len(daemon.turns())
    answer, _ = await ask(daemon, messages)
    assert answer["error"]["type"] == "invalid_request_error"
    assert second["id"] in answer["error"]["message"]
    assert first["id"] not in answer["error"]["message"]
    assert len(daemon.turns()) == before


@ensureDeferred
async def test_an_edited_history_is_replayed(daemon: Daemon) -> None:
    messages = await called(daemon)
    messages += results(messages, "sunny", "noon")
    messages[0] = {"role": "user", "content": "something else"}
    answer, way = await ask(daemon, messages)
    assert way in AFRESH
    assert "choices" in answer


@ensureDeferred
async def test_a_parked_process_that_died_is_not_missed(daemon: Daemon) -> None:
    messages = await called(daemon)
    ids = {call["id"] for call in messages[-1]["tool_calls"]}
    processes = daemon.api.engine.processes
    (held,) = [p for p in processes if {normalise_tool_id(call) for call in p.calls} == ids]
    held.kill()
    await held.ended
    messages += results(messages, "sunny", "noon")
    answer, way = await ask(daemon, messages)
    assert way in AFRESH and answer["choices"][0]["finish_reason"] == "stop"


@ensureDeferred
async def test_a_result_that_comes_too_late_is_replayed(make_daemon: Any) -> None:
    daemon = await make_daemon(park=0.0)
    messages = await called(daemon)
    (parked,) = [p for p in daemon.api.engine.processes if p.calls]
    messages += results(messages, "sunny", "noon")
    answer, way = await ask(daemon, messages)
    assert (way, answer["choices"][0]["finish_reason"]) == ("rewound", "stop")
    assert (parked.turns, parked.calls) == (2, frozenset())
    assert len(daemon.turns()) == 2


@ensureDeferred
async def test_a_result_that_never_comes_leaves_the_process_as_good_as_new(
    make_daemon: Any,
) -> None:
    daemon = await make_daemon(processes=1)
    await called(daemon)
    (parked,) = [p for p in daemon.api.engine.processes if p.calls]
    answer, way = await ask(daemon, [{"role": "user", "content": "something else"}], tools=[])
    assert (way, answer["choices"][0]["message"]["content"]) == (
        "rewound",
        "You said: something else",
    )
    assert daemon.api.engine.processes == {parked}
    assert len(daemon.turns()) == 2


@pytest.mark.slow
@ensureDeferred
async def test_a_call_answered_after_more_than_a_minute(make_daemon: Any) -> None:
    """A minute is what MCP clients wait for by themselves."""
    from twisted.internet import reactor
    from twisted.internet.task import deferLater

    daemon = await make_daemon()
    messages = await called(daemon)
    await deferLater(reactor, 65, lambda: None)
    messages += results(messages, "sunny", "noon")
    answer, way = await ask(daemon, messages)
    assert (way, answer["choices"][0]["finish_reason"]) == ("parked", "stop")
    assert len(daemon.turns()) == 2


@pytest.mark.parametrize("model", ["claude-sonnet-4", "claude-sonnet-4-5"])
@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("none", {"type": "none"}),
        ("required", {"type": "any"}),
        ({"type": "function", "function": {"name": "Zebra"}}, {"type": "tool", "name": "Zebra"}),
    ],
)
@ensureDeferred
async def test_tool_choice_holds_for_exactly_its_turn(
    daemon: Daemon, model: str, choice: Any, sent: Any
) -> None:
    asked: list[Any] = [{"role": "user", "content": '[[call get_time {"city":"x"}]]'}]
    answer, _ = await ask(daemon, asked, tool_choice=choice, model=model, temperature=1)
    assert daemon.body()["tool_choice"] == sent
    message = answer["choices"][0]["message"]
    if choice == "none":
        assert "tool_calls" not in message
        follow = [*asked, message, {"role": "user", "content": "x"}]
    else:
        assert daemon.body()["thinking"] == {"type": "disabled"}
        follow = [*asked, message]
        follow += results(follow, *["r"] * len(message["tool_calls"]))
    answer, way = await ask(daemon, follow, model=model)
    assert way in ("kept", "parked")
    assert "tool_choice" not in daemon.body()
    assert daemon.body()["thinking"]["type"] != "disabled"


@ensureDeferred
async def test_no_parallel_calls(daemon: Daemon) -> None:
    messages = await called(daemon, parallel_tool_calls=False)
    assert len(messages[-1]["tool_calls"]) == 1
    choice = {"type": "auto", "disable_parallel_tool_use": True}
    assert daemon.body()["tool_choice"] == choice
    _, way = await ask(daemon, messages + results(messages, "r"))
    assert way == "parked"
    assert "tool_choice" not in daemon.body()


@ensureDeferred
async def test_legacy_functions(daemon: Daemon) -> None:
    functions = [tool["function"] for tool in TOOLS]
    asked: list[Any] = [{"role": "user", "content": TWO_CALLS}]
    answer = await daemon.chat(asked, functions=functions, function_call="auto", model=MODEL)
    choice = answer["choices"][0]
    assert choice["finish_reason"] == "function_call"
    assert choice["message"]["function_call"] == {
        "name": "get_weather",
        "arguments": '{"city":"Paris"}',
    }
    asked += [choice["message"], {"role": "function", "name": "get_weather", "content": "sunny"}]
    answer = await daemon.chat(asked, functions=functions, model=MODEL)
    assert answer["choices"][0]["message"]["content"] == "The tool said: sunny"


@pytest.mark.parametrize(
    "order",
    ["[[call nobody {}]]", '[[call get_time {"city": ]]', '[[call get_time {"city": NaN}]]'],
)
@ensureDeferred
async def test_calls_the_cli_would_answer_itself(daemon: Daemon, order: str) -> None:
    """An unknown tool, arguments that do not parse: the client gets them, and one request."""
    before = len(daemon.turns())
    messages = await called(daemon, "[[chunk 1]][[pause 0.02]][[say wait]]" + order)
    assert len(daemon.turns()) == before + 1
    messages += results(messages, "no such thing")
    answer, way = await ask(daemon, messages)
    assert way in AFRESH
    assert len(daemon.turns()) == before + 2
    assert "choices" in answer, answer


SEARCH = {"type": "function", "function": {"name": "ToolSearch", "parameters": SCHEMA}}


@ensureDeferred
async def test_under_plain_names_no_tool_of_another_conversation_is_sent(make_daemon: Any) -> None:
    daemon = await make_daemon(plain_tool_names=True, processes=2)
    for told in ("One's own.", "Another's.", "One's own."):
        tool = {"type": "function", "function": {"name": "look", "description": told}}
        await ask(daemon, [{"role": "user", "content": "x"}], tools=[tool])
        assert [tool["description"] for tool in daemon.body()["tools"]] == [told]
        await daemon.at_rest()


@ensureDeferred
async def test_under_plain_names_a_reserved_one_is_refused(make_daemon: Any) -> None:
    daemon = await make_daemon(plain_tool_names=True)
    answer, _ = await ask(daemon, [{"role": "user", "content": "x"}], tools=[SEARCH])
    assert answer["error"]["param"] == "tools"
    messages = await called(daemon)
    assert [tool["name"] for tool in daemon.turns()[-1].body["tools"]] == [
        "get_time",
        "get_weather",
        "Zebra",
    ]
    answer, way = await ask(daemon, [*messages, *results(messages, "sunny", "noon")])
    assert (way, answer["choices"][0]["message"]["content"]) == ("parked", "The tool said: noon")


@ensureDeferred
async def test_no_name_is_reserved_otherwise(daemon: Daemon) -> None:
    asked = [{"role": "user", "content": "[[call ToolSearch {}]]"}]
    answer, _ = await ask(daemon, asked, tools=[SEARCH])
    call = answer["choices"][0]["message"]["tool_calls"][0]["function"]
    assert call["name"] == "ToolSearch"


@ensureDeferred
async def test_tools_have_the_names_the_cli_gives_them(daemon: Daemon) -> None:
    """And the same ones on every process, in the history and in a forced choice: the cached prefix
    depends on it."""
    await ask(daemon, [{"role": "user", "content": "x"}])
    body = daemon.turns()[-1].body
    names = [tool["name"] for tool in body["tools"]]
    prefix = names[0].removesuffix("get_time")
    assert prefix.startswith("mcp__c") and prefix.endswith("__") and len(prefix) == 16
    assert names == [f"{prefix}{name}" for name in ("get_time", "get_weather", "Zebra")]
    forced = {"type": "function", "function": {"name": "get_time"}}
    await ask(daemon, [{"role": "user", "content": "y"}], tool_choice=forced)
    body = daemon.turns()[-1].body
    assert body["tool_choice"]["name"] == f"{prefix}get_time"
    calls = [{"id": "call1", "type": "function", "function": {"name": "old", "arguments": "{}"}}]
    told = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "call1", "content": "so"},
    ]
    await ask(daemon, told)
    replayed = daemon.turns()[-1].body["messages"]
    (use,) = (b for m in replayed if m["role"] == "assistant" for b in m["content"])
    assert use["name"] == f"{prefix}old"
