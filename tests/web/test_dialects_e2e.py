"""Every dialect through the daemon, the real CLI and the stand-in, with the official SDKs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import anthropic
import openai
import pytest
import treq
from harness import Daemon, in_thread
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.web.resource import Resource
from twisted.web.server import Site

from claudeproxy.engine import engine

pytestmark = [
    pytest.mark.cli,
    pytest.mark.filterwarnings("ignore:The model:DeprecationWarning"),
]

MODEL = "claude-sonnet-4-5"
ADD = {"type": "function", "name": "add", "parameters": {"type": "object", "properties": {}}}
ANTHROPIC_ADD = {"name": "add", "input_schema": {"type": "object", "properties": {}}}
POINT = {
    "type": "object",
    "properties": {"x": {"type": "number"}},
    "required": ["x"],
    "additionalProperties": False,
}


def openai_sdk(daemon: Daemon) -> openai.OpenAI:
    return openai.OpenAI(base_url=daemon.url + "/v1", api_key="none", max_retries=0)


def anthropic_sdk(daemon: Daemon) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=daemon.url, api_key="none", max_retries=0)


# -- Responses --


async def respond(daemon: Daemon, input: Any, **fields: Any) -> Any:
    """The raw reply of the SDK: headers, and the response by ``parse()``."""
    create = openai_sdk(daemon).responses.with_raw_response.create
    return await in_thread(create, model=MODEL, input=input, **fields)


@ensureDeferred
async def test_a_response_is_stored_gone_on_from_and_forgotten(daemon: Daemon) -> None:
    client = openai_sdk(daemon)
    first = (await respond(daemon, "Hello", instructions="Be brief")).parse()
    assert first.output_text == "You said: Hello"
    assert first.status == "completed"
    assert daemon.body()["system"][-1]["text"].endswith("Be brief")
    raw = await respond(daemon, "And?", previous_response_id=first.id, instructions="Be brief")
    second = raw.parse()
    assert second.output_text == "You said: And?"
    assert raw.headers["x-claudemax-process"] == "kept"
    said = [block["text"] for m in daemon.body()["messages"] for block in m["content"]]
    assert [text for text in said if not text.startswith("<")] == [
        "Hello",
        "You said: Hello",
        "And?",
    ]
    found = await in_thread(client.responses.retrieve, second.id)
    assert found.to_dict() == second.to_dict()
    await in_thread(client.responses.delete, first.id)
    for use in (
        lambda: client.responses.retrieve(first.id),
        lambda: client.responses.delete(first.id),
    ):
        with pytest.raises(openai.NotFoundError):
            await in_thread(use)
    with pytest.raises(openai.BadRequestError) as caught:
        await respond(daemon, "x", previous_response_id=second.id)
    assert caught.value.code == "previous_response_not_found"
    assert caught.value.param == "previous_response_id"


@ensureDeferred
async def test_a_streamed_response_is_what_is_stored(daemon: Daemon) -> None:
    client = openai_sdk(daemon)

    def stream() -> tuple[list[Any], Any]:
        with client.responses.stream(
            model=MODEL, input="[[think hm]][[say Hi there]]", reasoning={"effort": "high"}
        ) as events:
            return list(events), events.get_final_response()

    events, final = await in_thread(stream)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == final.output_text == "Hi there"
    assert final.output[0].summary[0].text == "hm"
    stored = await in_thread(client.responses.retrieve, final.id)
    assert stored.output_text == "Hi there"
    assert stored.usage == final.usage
    item = {"type": "item_reference", "id": stored.output[1].id}
    items = [{"role": "user", "content": "a"}, item, {"role": "user", "content": "b"}]
    assert (await respond(daemon, items)).parse().output_text == "You said: b"
    assert "Hi there" in json.dumps(daemon.body())


@ensureDeferred
async def test_a_tool_loop_of_responses(daemon: Daemon) -> None:
    tools: Any = [ADD, {"type": "web_search"}]
    raw = await respond(daemon, '[[call add {"a": 1}]]', tools=tools)
    first = raw.parse()
    assert raw.headers["x-claudemax-ignored"] == "tools.web_search"
    (call,) = first.output
    assert (call.name, call.arguments) == ("add", '{"a": 1}')
    result = [{"type": "function_call_output", "call_id": call.call_id, "output": "two"}]
    raw = await respond(daemon, result, tools=tools, previous_response_id=first.id)
    assert raw.headers["x-claudemax-process"] == "parked"
    assert raw.parse().output_text == "The tool said: two"


PATCH = {"type": "custom", "name": "patch"}
PATCHED = '[[call patch {"input": "a\\n\\u00e9\\ud83d\\ude00"}]]'


@ensureDeferred
async def test_a_custom_tool_of_responses(daemon: Daemon) -> None:
    client = openai_sdk(daemon)

    def stream(**fields: Any) -> tuple[list[Any], Any]:
        tools: Any = [PATCH]
        with client.responses.stream(model=MODEL, tools=tools, **fields) as events:
            return list(events), events.get_final_response()

    events, first = await in_thread(stream, input=PATCHED)
    kind = "response.custom_tool_call_input"
    deltas = [event.delta for event in events if event.type == f"{kind}.delta"]
    assert "".join(deltas) == "a\né😀"
    assert len(deltas) > 1
    (call,) = first.output
    assert (call.type, call.name, call.input) == ("custom_tool_call", "patch", "a\né😀")
    output = {"type": "custom_tool_call_output", "call_id": call.call_id, "output": "done"}
    sent = daemon.body()
    raw = await respond(daemon, [output], tools=[PATCH], previous_response_id=first.id)
    assert raw.headers["x-claudemax-process"] == "parked"
    assert raw.parse().output_text == "The tool said: done"
    replayed = [{"role": "user", "content": PATCHED}, call.to_dict(), output]
    raw = await respond(daemon, [*replayed, {"role": "user", "content": "x"}], tools=[PATCH])
    assert raw.parse().output_text == "You said: x"
    assert daemon.body()["tools"] == sent["tools"]
    forced = (await respond(daemon, "x", tools=[PATCH], tool_choice="required")).parse()
    assert forced.output[0].type == "custom_tool_call"


@ensureDeferred
async def test_a_custom_tool_of_chat(daemon: Daemon) -> None:
    create: Callable[..., Any] = openai_sdk(daemon).chat.completions.create
    tools = [{"type": "custom", "custom": {"name": "patch"}}]
    asked = {"model": MODEL, "tools": tools, "tool_choice": "required"}
    messages: list[Any] = [{"role": "user", "content": PATCHED}]
    first = (await in_thread(create, messages=messages, **asked)).choices[0]
    (call,) = first.message.tool_calls
    assert (call.type, call.custom.name, call.custom.input) == ("custom", "patch", "a\né😀")
    assert first.finish_reason == "tool_calls"
    messages += [first.message, {"role": "tool", "tool_call_id": call.id, "content": "done"}]
    answer = await in_thread(create, messages=messages, model=MODEL, tools=tools)
    assert answer.choices[0].message.content == "The tool said: done"

    def stream() -> list[Any]:
        return list(create(messages=messages[:1], stream=True, **asked))

    deltas = [c.choices[0].delta.to_dict() for c in await in_thread(stream) if c.choices]
    calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
    assert "".join(call["custom"].get("input", "") for call in calls) == "a\né😀"


@ensureDeferred
async def test_what_a_response_was_made_from(daemon: Daemon) -> None:
    client = openai_sdk(daemon)
    first = (await respond(daemon, "Hello")).parse()
    then: Any = [{"role": "developer", "content": "Be brief"}, {"role": "user", "content": "And?"}]
    second = (await respond(daemon, then, previous_response_id=first.id)).parse()
    assert first.created_at <= first.completed_at
    listed = client.responses.input_items.list

    def texts(**query: Any) -> list[str]:
        return [item.content[0].text for item in listed(second.id, **query)]

    said = ["Hello", "You said: Hello", "Be brief", "And?"]
    assert await in_thread(texts, order="asc") == said
    assert await in_thread(texts, limit=1) == said[::-1]  # by pages, the SDK asks for them all
    page = await in_thread(listed, first.id)
    assert [item.id for item in page.data] == [f"msg_{first.id.removeprefix('resp_')}i0"]
    with pytest.raises(openai.NotFoundError):
        await in_thread(listed, "resp_nowhere")
    with pytest.raises(openai.BadRequestError, match="limit"):
        await in_thread(listed, first.id, limit=1000)


@ensureDeferred
async def test_counting_tokens_of_a_response(daemon: Daemon) -> None:
    client = openai_sdk(daemon)
    before = len(daemon.turns())
    first = (await respond(daemon, "Hello " * 400)).parse()
    count = client.responses.input_tokens.with_raw_response.count
    raw = await in_thread(count, model=MODEL, input="Hello")
    assert raw.headers["x-claudemax-estimate"] == "true"
    assert raw.parse().object == "response.input_tokens"
    assert 0 < raw.parse().input_tokens < 20
    raw = await in_thread(count, model=MODEL, input="Hello", previous_response_id=first.id)
    assert raw.parse().input_tokens > 1000
    assert len(daemon.turns()) == before + 1
    with pytest.raises(openai.BadRequestError, match="gpt-4"):
        await in_thread(count, model="gpt-4", input="Hello")


@ensureDeferred
async def test_an_unknown_model_of_responses(daemon: Daemon) -> None:
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as caught:
            await in_thread(
                openai_sdk(daemon).responses.create, model="gpt-4", input="ping", stream=stream
            )
        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    answer = await daemon.post("/v1/chat/completions", {"model": "gpt-4", "input": "ping"})
    assert answer.code == 404
    await treq.content(answer)


@pytest.mark.parametrize(
    ("prompt", "fields", "reason"),
    [
        ("[[wait 0.1]][[repeat 99 word]]", {"max_output_tokens": 20}, "max_output_tokens"),
        ("[[say no]][[stop refusal]]", {}, "content_filter"),
    ],
)
@ensureDeferred
async def test_incomplete_responses(
    daemon: Daemon, prompt: str, fields: dict[str, Any], reason: str
) -> None:
    before = len(daemon.turns())
    response = (await respond(daemon, prompt, **fields)).parse()
    assert (response.status, response.incomplete_details.reason) == ("incomplete", reason)
    assert len(daemon.turns()) == before + 1


@ensureDeferred
async def test_structured_output_of_responses(daemon: Daemon) -> None:
    form = {"format": {"type": "json_schema", "name": "point", "schema": POINT}}
    assert (await respond(daemon, '[[say {"x": 1}]]', text=form)).parse().output_text == '{"x": 1}'
    broken = {"format": {**form["format"], "schema": {"type": "nope"}}}
    with pytest.raises(openai.BadRequestError) as caught:
        await respond(daemon, "x", text=broken)
    assert caught.value.param == "text.format.schema"


@ensureDeferred
async def test_a_response_that_fails_on_the_way(daemon: Daemon) -> None:
    client = openai_sdk(daemon)
    seen = []

    def stream() -> None:
        prompt = "[[pause 0.1]][[say hello there]][[error-mid 529 busy]]"
        for event in client.responses.create(model=MODEL, input=prompt, stream=True):
            seen.append(event)

    with pytest.raises(openai.APIError, match="busy"):
        await in_thread(stream)
    assert seen[-1].type == "response.failed"
    assert seen[-1].response.error.message == "busy"
    with pytest.raises(openai.NotFoundError):
        await in_thread(client.responses.retrieve, seen[0].response.id)


@ensureDeferred
async def test_a_response_that_fails_at_once(daemon: Daemon) -> None:
    with pytest.raises(openai.BadRequestError, match="no such luck"):
        await respond(daemon, "[[error 400 no such luck]]", stream=True)


@ensureDeferred
async def test_stored_responses_survive_a_restart(make_daemon: Any) -> None:
    first = await make_daemon(environ={"XDG_STATE_HOME": ""})
    response = (await respond(first, "Hello")).parse()
    file = first.home / ".local/state/claudemax/responses.sqlite"
    assert file.exists()
    again = await make_daemon(environ={"XDG_STATE_HOME": str(file.parent.parent)})
    raw = await respond(again, "And?", previous_response_id=response.id)
    assert raw.parse().output_text == "You said: And?"
    assert raw.headers["x-claudemax-process"] == "warm"


@ensureDeferred
async def test_no_store(make_daemon: Any) -> None:
    daemon = await make_daemon(no_store=True, no_ledger=True)
    raw = await respond(daemon, "Hello", store=True)
    response = raw.parse()
    assert raw.headers["x-claudemax-ignored"] == "store"
    assert response.store is False
    with pytest.raises(openai.NotFoundError, match="--no-store"):
        await in_thread(openai_sdk(daemon).responses.retrieve, response.id)
    with pytest.raises(openai.BadRequestError):
        await respond(daemon, "x", previous_response_id=response.id)
    assert not list(daemon.home.rglob("*.sqlite"))


@ensureDeferred
async def test_a_responses_body_on_the_chat_route(daemon: Daemon) -> None:
    body = {"model": MODEL, "input": [{"role": "user", "content": "Hi"}]}
    answer = await treq.json_content(await daemon.post("/chat/completions", body))
    assert answer["choices"][0]["message"]["content"] == "You said: Hi"


# -- Anthropic Messages --


async def ask(daemon: Daemon, messages: Any, **fields: Any) -> Any:
    """The raw reply of the SDK: headers, and the message by ``parse()``."""
    create = anthropic_sdk(daemon).messages.with_raw_response.create
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    return await in_thread(
        create, **{"model": MODEL, "max_tokens": 2000, **fields}, messages=messages
    )


@ensureDeferred
async def test_a_message(daemon: Daemon) -> None:
    raw = await ask(
        daemon, "Hello", system=[{"type": "text", "text": "Be brief"}], extra_body={"top_k": 5}
    )
    message = raw.parse()
    assert [block.to_dict() for block in message.content] == [
        {"type": "text", "text": "You said: Hello", "citations": []}
    ]
    assert (message.stop_reason, message.model) == ("end_turn", MODEL)
    assert message.usage.input_tokens > 0
    assert raw.headers["x-claudemax-ignored"] == "top_k"
    assert raw.headers["request-id"] == raw.headers["x-request-id"]
    assert daemon.body()["system"][-1]["text"].endswith("Be brief")
    assert daemon.body()["max_tokens"] == 2000


@ensureDeferred
async def test_a_streamed_message(daemon: Daemon) -> None:
    client = anthropic_sdk(daemon)

    def stream(**fields: Any) -> tuple[list[str], Any]:
        messages: Any = [{"role": "user", "content": "[[think hm]][[say Hi]]"}]
        with client.messages.stream(
            model=MODEL, max_tokens=4000, messages=messages, **fields
        ) as events:
            return [event.type for event in events], events.get_final_message()

    thinking = {"type": "enabled", "budget_tokens": 2000}
    kinds, message = await in_thread(stream, thinking=thinking)
    assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")
    assert [block.type for block in message.content] == ["thinking", "text"]
    assert (message.content[0].thinking, message.content[1].text) == ("hm", "Hi")
    assert message.content[0].signature
    _, message = await in_thread(stream)
    assert [block.type for block in message.content] == ["text"]


@ensureDeferred
async def test_a_tool_loop_of_messages(daemon: Daemon) -> None:
    first = (await ask(daemon, '[[call add {"a": 1}]]', tools=[ANTHROPIC_ADD])).parse()
    assert first.stop_reason == "tool_use"
    (call,) = first.content
    assert (call.name, call.input) == ("add", {"a": 1})
    assert call.id.startswith("toolu_")
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "two"}
    messages = [
        {"role": "user", "content": '[[call add {"a": 1}]]'},
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": [result]},
    ]
    raw = await ask(daemon, messages, tools=[ANTHROPIC_ADD])
    assert raw.headers["x-claudemax-process"] == "parked"
    assert raw.parse().content[0].text == "The tool said: two"


@ensureDeferred
async def test_a_message_with_what_a_search_found(daemon: Daemon) -> None:
    texts = [{"type": "text", "text": "it is b"}]
    found = {"type": "search_result", "source": "https://a.example/b", "title": "B"}
    found["content"] = texts
    first = (await ask(daemon, "[[call add {}]]", tools=[ANTHROPIC_ADD])).parse()
    result = {"type": "tool_result", "tool_use_id": first.content[0].id, "content": [found]}
    messages = [
        {"role": "user", "content": "[[call add {}]]"},
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": [result, found, {"type": "text", "text": "And?"}]},
    ]
    answer = (await ask(daemon, messages, tools=[ANTHROPIC_ADD])).parse()
    assert answer.content[0].text == "You said: And?"
    *_, asked = (m for m in daemon.body()["messages"] if m["role"] == "user")
    blocks = [{k: v for k, v in b.items() if k != "cache_control"} for b in asked["content"]]
    assert blocks[0]["content"] == [found]
    assert blocks[1] == found


@ensureDeferred
async def test_a_late_system_message_does_not_cost_the_process(daemon: Daemon) -> None:
    first = (await ask(daemon, "Hello", system="Be brief")).parse()
    messages = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": first.content},
        {"role": "system", "content": "The user is in a hurry."},
        {"role": "user", "content": "And?"},
    ]
    raw = await ask(daemon, messages, system="Be brief")
    assert raw.headers["x-claudemax-process"] == "kept"
    assert raw.parse().content[0].text == "You said: And?"
    assert daemon.body()["system"][-1]["text"].endswith("Be brief")
    assert "<system-reminder>\\nThe user is in a hurry.\\n" in json.dumps(daemon.body()["messages"])


@ensureDeferred
async def test_how_messages_end(daemon: Daemon) -> None:
    stopped = (await ask(daemon, "[[say a b c d]]", stop_sequences=["c"])).parse()
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "c")
    assert stopped.content[0].text == "a b "
    cut = (await ask(daemon, "[[wait 0.1]][[repeat 99 word]]", max_tokens=20)).parse()
    assert cut.stop_reason == "max_tokens"
    refused = (await ask(daemon, "[[say no]][[stop refusal]]")).parse()
    assert refused.stop_reason == "refusal"


@ensureDeferred
async def test_structured_output_of_messages(daemon: Daemon) -> None:
    config = {"format": {"type": "json_schema", "schema": POINT}}
    message = (await ask(daemon, '[[say {"x": 1}]]', output_config=config)).parse()
    assert message.content[0].text == '{"x": 1}'


@ensureDeferred
async def test_counting_tokens(daemon: Daemon) -> None:
    count = anthropic_sdk(daemon).messages.with_raw_response.count_tokens
    before = len(daemon.turns())
    raw = await in_thread(count, model=MODEL, messages=[{"role": "user", "content": "Hello"}])
    assert raw.headers["x-claudemax-estimate"] == "true"
    assert 10 < raw.parse().input_tokens < 20
    assert len(daemon.turns()) == before


@ensureDeferred
async def test_a_message_that_fails_on_the_way(daemon: Daemon) -> None:
    client = anthropic_sdk(daemon)
    prompt = "[[pause 0.1]][[say hello there]][[error-mid 529 busy]]"

    def stream() -> None:
        messages: Any = [{"role": "user", "content": prompt}]
        with client.messages.stream(model=MODEL, max_tokens=99, messages=messages) as events:
            for _ in events:
                pass

    with pytest.raises(anthropic.APIStatusError) as caught:
        await in_thread(stream)
    error: Any = caught.value.body
    details = {"kind": "overloaded"}
    assert error["error"] == {"type": "overloaded_error", "message": "busy", "details": details}


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"messages": []}, anthropic.BadRequestError),
        ({"model": "gpt-4"}, anthropic.NotFoundError),
        ({"tools": [{"type": "web_search_20250305", "name": "x"}]}, anthropic.BadRequestError),
        ({"messages": "[[error 429 slow]]"}, anthropic.RateLimitError),
        ({"messages": "[[error 400 bad]]"}, anthropic.BadRequestError),
    ],
)
@ensureDeferred
async def test_messages_that_fail_at_once(
    daemon: Daemon, fields: dict[str, Any], error: type[anthropic.APIStatusError]
) -> None:
    with pytest.raises(error) as caught:
        await ask(daemon, **{"messages": "Hello", **fields})
    body: Any = caught.value.body
    assert (body["type"], body["request_id"]) == ("error", caught.value.request_id)


# -- legacy completions --


@ensureDeferred
async def test_completions(daemon: Daemon) -> None:
    create: Callable[..., Any] = openai_sdk(daemon).completions.create
    before = len(daemon.turns())
    answer = await in_thread(create, model=MODEL, prompt=["a", "b"], n=2, echo=True)
    texts = [(choice.index, choice.text) for choice in answer.choices]
    assert texts == [
        (0, "aYou said: a"),
        (1, "aYou said: a"),
        (2, "bYou said: b"),
        (3, "bYou said: b"),
    ]
    assert len(daemon.turns()) == before + 4

    def stream() -> list[Any]:
        return list(create(model=MODEL, prompt="Hi there", stop="there", stream=True))

    chunks = await in_thread(stream)
    assert "".join(chunk.choices[0].text for chunk in chunks) == "You said: Hi "
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert chunks[-1].usage.prompt_tokens > 0
    with pytest.raises(openai.BadRequestError, match="suffix"):
        await in_thread(create, model=MODEL, prompt="a", suffix="b")


# -- what belongs to no one dialect --


@pytest.mark.expected_errors
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("wrong", [lambda index: 0, lambda index: index + 1, lambda index: -1])
@ensureDeferred
async def test_an_answer_under_a_wrong_index_is_an_error(
    daemon: Daemon,
    monkeypatch: pytest.MonkeyPatch,
    wrong: Callable[[int], int],
    stream: bool,
) -> None:
    right = engine._to
    monkeypatch.setattr(engine, "_to", lambda sink, index: right(sink, wrong(index)))
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "n": 2}
    response = await daemon.post("/v1/chat/completions", {**body, "stream": stream})
    text = await treq.text_content(response)
    assert "the daemon failed; its log says why" in text
    assert "[DONE]" not in text
    assert response.code == 500 or stream


@ensureDeferred
async def test_models_for_both_families(daemon: Daemon) -> None:
    ours = await in_thread(openai_sdk(daemon).models.list)
    theirs = await in_thread(anthropic_sdk(daemon).models.list)
    names = [model.id for model in ours.data]
    assert names == [model.id for model in theirs.data]
    assert "opus" in names
    for name in ("opus", "anthropic/opus", "claude-opus-4", "claude-sonnet-4-5"):
        found = await in_thread(openai_sdk(daemon).models.retrieve, name)
        assert (found.id, found.object) == (name, "model")
    model = await in_thread(anthropic_sdk(daemon).models.retrieve, "haiku")
    assert (model.id, model.type) == ("haiku", "model")


@ensureDeferred
async def test_what_models_tell(daemon: Daemon) -> None:
    """Sizes, capabilities and price, to both SDKs; and which model has answered."""
    model = await in_thread(anthropic_sdk(daemon).models.retrieve, "claude-sonnet-4-5")
    assert (model.max_input_tokens, model.max_tokens) == (200_000, 64_000)
    assert model.capabilities.image_input.supported
    assert model.capabilities.thinking.types.disabled.supported
    assert not model.capabilities.effort.supported
    modern = await in_thread(anthropic_sdk(daemon).models.retrieve, "opus")
    assert modern.max_input_tokens == 1_000_000
    assert modern.capabilities.effort.max.supported
    assert not modern.capabilities.thinking.types.disabled.supported
    told = (await in_thread(openai_sdk(daemon).models.retrieve, "claude-sonnet-4-5")).model_dump()
    sizes = ("context_length", "max_model_len", "max_input_tokens")
    assert {told[name] for name in sizes} == {200_000}
    assert told["max_output_tokens"] == 64_000
    assert told["pricing"] == {
        "prompt": "0.000003",
        "completion": "0.000015",
        "input_cache_read": "0.0000003",
        "input_cache_write": "0.00000375",
    }
    unknown = await in_thread(openai_sdk(daemon).models.retrieve, "claude-unheard-of-9")
    assert unknown.model_dump()["pricing"] is None
    for stream in (False, True):
        body = {"model": "haiku", "messages": [{"role": "user", "content": "x"}], "stream": stream}
        response = await daemon.post("/v1/chat/completions", body)
        await treq.content(response)
        [answered_by] = response.headers.getRawHeaders("x-claudemax-model")
        assert answered_by.startswith("claude-haiku-")
    listed = (await in_thread(openai_sdk(daemon).models.list)).data
    resolved = {one.id: one.model_dump()["resolved"] for one in listed}
    assert resolved["haiku"] == resolved["claude-haiku-4"] == answered_by


@pytest.mark.parametrize("path", ["/models", "/models/opus"])
@ensureDeferred
async def test_without_v1(daemon: Daemon, path: str) -> None:
    response = await treq.get(daemon.url + path)
    assert response.code == 200
    assert (await treq.json_content(response))["object"] in ("model", "list")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/responses", {"input": "Hi"}),
        ("/completions", {"prompt": "Hi"}),
        ("/messages", {"max_tokens": 99, "messages": [{"role": "user", "content": "Hi"}]}),
        ("/messages/count_tokens", {"messages": [{"role": "user", "content": "Hi"}]}),
    ],
)
@ensureDeferred
async def test_turns_without_v1(daemon: Daemon, path: str, body: dict[str, Any]) -> None:
    response = await daemon.post(path, {"model": MODEL, **body})
    assert response.code == 200, await treq.text_content(response)
    await treq.content(response)


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/responses/x/y", "/v1/messages/batches"])
@ensureDeferred
async def test_an_unknown_route_says_what_there_is(daemon: Daemon, path: str) -> None:
    response = await daemon.post(path, {})
    body = await treq.json_content(response)
    assert response.code == 404
    assert "/v1/chat/completions" in body["error"]["message"]
    if "messages" in path:
        assert (body["type"], body["error"]["type"]) == ("error", "not_found_error")
    else:
        assert (body["error"]["code"], body["error"]["type"]) == (
            "unknown_url",
            "invalid_request_error",
        )


@pytest.mark.parametrize(
    ("path", "in_anthropics"),
    [("/claude/v1/messages", True), ("/claude/v1/models?x=/messages", False)],
)
@ensureDeferred
async def test_refusals_below_a_path(daemon: Daemon, path: str, in_anthropics: bool) -> None:
    root = Resource()
    root.putChild(b"claude", daemon.api.resource)
    port = reactor.listenTCP(0, Site(root), interface="127.0.0.1")  # type: ignore[attr-defined]
    url = f"http://127.0.0.1:{port.getHost().port}{path}"
    response = await treq.delete(url, persistent=False)
    body = await treq.json_content(response)
    await port.stopListening()
    assert response.code == 405
    assert (body.get("type") == "error") is in_anthropics


@pytest.mark.parametrize(
    ("method", "headers", "data", "status", "kind"),
    [
        ("GET", {}, b"", 405, "invalid_request_error"),
        ("POST", {"content-type": "text/plain"}, b"{}", 415, "invalid_request_error"),
        ("POST", {"content-type": "application/json"}, b"{", 400, "invalid_request_error"),
        ("POST", {"host": "evil.example"}, b"{}", 403, "permission_error"),
    ],
)
@ensureDeferred
async def test_refusals_in_anthropics_shape(
    daemon: Daemon, method: str, headers: dict[str, str], data: bytes, status: int, kind: str
) -> None:
    url = daemon.url + "/v1/messages"
    response = await treq.request(method, url, headers=headers, data=data)
    body = await treq.json_content(response)
    assert (response.code, body["type"], body["error"]["type"]) == (status, "error", kind)
