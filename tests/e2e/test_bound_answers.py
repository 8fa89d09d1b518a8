"""Schemas that real libraries make, and what tools would lose on their way: nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import treq
from harness import AFRESH, Daemon
from pytest_twisted import ensureDeferred
from test_word_for_word import arrived, png

from claudeproxy.cli.wire import MOVED

MADE = json.loads((Path(__file__).parent / "schemas.json").read_text())
"""What zod 4 (``z.toJSONSchema``, three targets) and pydantic 2 (``model_json_schema``) make."""

LOOK = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
MODEL = "claude-sonnet-4"


def bound(schema: Any, **fields: Any) -> dict[str, Any]:
    form = {"type": "json_schema", "json_schema": {"name": "p", "schema": schema}}
    return {"model": MODEL, "response_format": form, **fields}


def said(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


async def ask(daemon: Daemon, messages: Any, **fields: Any) -> tuple[Any, Any]:
    """The answer, and its headers."""
    body = {"model": MODEL, "messages": messages, **fields}
    response = await daemon.post("/v1/chat/completions", body)
    return await treq.json_content(response), response.headers


def way(headers: Any) -> Any:
    return headers.getRawHeaders("x-claudemax-process")[0]


def ignored(headers: Any) -> Any:
    return headers.getRawHeaders("x-claudemax-ignored", [""])[0]


def tool_of(properties: Any, **more: Any) -> Any:
    parameters = {"type": "object", "properties": properties, **more}
    return {"type": "function", "function": {"name": "t", "parameters": parameters}}


@pytest.mark.parametrize("made", MADE)
@ensureDeferred
async def test_a_schema_of_a_library_binds_the_answer(daemon: Daemon, made: str) -> None:
    """In one request each: the stand-in refuses what constrained output is not known to take."""
    before = len(daemon.turns())
    answer, _ = await ask(daemon, said("x"), **bound(MADE[made]))
    assert "choices" in answer, answer
    json.loads(answer["choices"][0]["message"]["content"])
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert len(daemon.turns()) == before + 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "items": {"type": "string", "maxLength": 9}, "minItems": 2},
        {"type": "object", "properties": {"größe": {"type": "integer", "minimum": 7}}},
        {"$ref": "#/$defs/a", "$defs": {"a": {"type": "object", "minProperties": 0,
                                              "properties": {"a": {"$ref": "#/$defs/a"}}}}},
        {"type": "integer", "minimum": 7},
    ],
)  # fmt: skip
@ensureDeferred
async def test_what_cannot_be_arguments_is_boxed(daemon: Daemon, schema: Any, stream: bool) -> None:
    response = await daemon.post(
        "/v1/chat/completions", {"messages": said("x"), **bound(schema, stream=stream)}
    )
    text = await treq.text_content(response)
    if stream:
        chunks = [json.loads(line[6:]) for line in text.splitlines() if line[:7] == "data: {"]
        content = "".join(
            choice["delta"].get("content") or "" for c in chunks for choice in c["choices"]
        )
    else:
        content = json.loads(text)["choices"][0]["message"]["content"]
    value = json.loads(content)
    assert isinstance(value, {"array": list, "integer": int}.get(schema.get("type"), dict))
    (tool,) = daemon.body()["tools"]
    assert list(tool["input_schema"]["properties"]) == ["answer"]


@ensureDeferred
async def test_a_boxed_answer_that_is_cut_is_out_of_its_box(daemon: Daemon) -> None:
    schema = {"type": "array", "maxItems": 3, "items": {"type": "string"}}
    # A model takes its time, and the CLI is braked meanwhile.
    asked = said('[[chunk 2]][[pause 0.02]][[call answer {"answer": ["x", "y]][[stop max_tokens]]')
    answer, _ = await ask(daemon, asked, **bound(schema))
    (choice,) = answer["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ('["x", "y', "length")


@ensureDeferred
async def test_a_boxed_schemas_references_lead_where_they_did(daemon: Daemon) -> None:
    schema = {"type": "array", "maxItems": 3, "items": {"$ref": "#/$defs/a"},
              "$defs": {"a": {"enum": ["x"], "properties": {"$ref": {"$ref": "#"}}}}}  # fmt: skip
    answer, _ = await ask(daemon, said('[[call answer {"answer": ["x"]}]]'), **bound(schema))
    assert json.loads(answer["choices"][0]["message"]["content"]) == ["x"]
    inner = daemon.body()["tools"][0]["input_schema"]["properties"]["answer"]
    assert inner["items"] == {"$ref": "#/properties/answer/$defs/a"}
    named = inner["$defs"]["a"]["properties"]
    assert named == {"$ref": {"$ref": "#/properties/answer"}}


@ensureDeferred
async def test_json_object_is_more_than_an_empty_one(daemon: Daemon) -> None:
    form = {"type": "json_object"}
    order = '[[call answer {"a": {"b": 1}}]]'
    answer, _ = await ask(daemon, said(order), response_format=form)
    assert json.loads(answer["choices"][0]["message"]["content"]) == {"a": {"b": 1}}
    (tool,) = daemon.body()["tools"]
    assert tool["input_schema"] == {"type": "object", "additionalProperties": True}
    assert daemon.body()["tool_choice"]["type"] == "tool"


@ensureDeferred
async def test_a_large_integer_of_a_schema_is_the_answers(daemon: Daemon) -> None:
    """Constrained output would bind the answer to another number, as the CLI loses its digits."""
    before = len(daemon.turns())
    schema = {"type": "object", "properties": {"id": {"const": 2**53 + 1}}, "required": ["id"]}
    answer, _ = await ask(daemon, said(f'[[call answer {{"id": {2**53}}}]]'), **bound(schema))
    assert json.loads(answer["choices"][0]["message"]["content"]) == {"id": 2**53 + 1}
    assert len(daemon.turns()) == before + 1


BOUND = {"type": "object", "properties": {"age": {"type": "integer", "minimum": 18}}}


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("auto", {"type": "any"}),
        ("none", {"type": "tool", "name": "answer", "disable_parallel_tool_use": True}),
        ("required", {"type": "any"}),
        ({"type": "function", "function": {"name": "look"}}, {"type": "tool", "name": "look"}),
    ],
)
@ensureDeferred
async def test_the_clients_choice_holds_beside_the_answers_tool(
    daemon: Daemon, choice: Any, sent: Any
) -> None:
    answer, _ = await ask(daemon, said("x"), tools=[LOOK], tool_choice=choice, **bound(BOUND))
    assert daemon.body()["tool_choice"] == sent
    names = [tool["name"] for tool in daemon.body()["tools"]]
    reason = answer["choices"][0]["finish_reason"]
    if sent.get("name") == "look" or choice == "required":
        assert (names, reason) == (["look"], "tool_calls")
    else:
        assert (names, reason) == (["answer", "look"], "stop")


@ensureDeferred
async def test_a_tool_loop_under_a_schema_keeps_its_process(daemon: Daemon) -> None:
    fields = {"tools": [LOOK], **bound(BOUND)}
    before = len(daemon.turns())
    asked = said("[[call look {}]]")
    answer, _ = await ask(daemon, asked, **fields)
    message = answer["choices"][0]["message"]
    assert message["tool_calls"][0]["function"]["name"] == "look"
    asked += [message, {"role": "tool", "content": "r",
                        "tool_call_id": message["tool_calls"][0]["id"]}]  # fmt: skip
    answer, headers = await ask(daemon, asked, **fields)
    assert way(headers) == "parked"
    assert json.loads(answer["choices"][0]["message"]["content"]) == {}
    asked += [answer["choices"][0]["message"], *said("once more")]
    _, headers = await ask(daemon, asked, **fields)
    assert way(headers) in AFRESH  # the process before held a call, the client holds a text
    assert len(daemon.turns()) == before + 3
    assert arrived(daemon.body())[-2]["content"] == [{"type": "text", "text": "{}"}]


@ensureDeferred
async def test_a_clients_tool_may_be_called_as_ours_is(daemon: Daemon) -> None:
    theirs = {"type": "function", "function": {"name": "answer", "parameters": {"type": "object"}}}
    answer, _ = await ask(daemon, said("[[call answer {}]]"), tools=[theirs], **bound(BOUND))
    assert answer["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "answer"
    names = [tool["name"] for tool in daemon.body()["tools"]]
    assert names == ["answer", "answer_2"]


@ensureDeferred
async def test_under_plain_names_the_answers_tool_is_plain_too(make_daemon: Any) -> None:
    daemon = await make_daemon(plain_tool_names=True)
    answer, _ = await ask(daemon, said("x"), **bound(BOUND))
    assert json.loads(answer["choices"][0]["message"]["content"]) == {}
    assert [tool["name"] for tool in daemon.turns()[-1].body["tools"]] == ["answer"]


@ensureDeferred
async def test_an_unmet_schema_is_not_asked_for_again_by_itself(make_daemon: Any) -> None:
    """Neither by an SDK, nor, with ``--no-repair``, by the daemon."""
    daemon = await make_daemon(no_repair=True)
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
    body = {"messages": said('[[say {"age": "x"}]]'), **bound(schema)}
    response = await daemon.post("/v1/chat/completions", body)
    assert response.code == 502
    assert response.headers.getRawHeaders("x-should-retry") == ["false"]
    assert "does not satisfy" in (await treq.json_content(response))["error"]["message"]
    assert len(daemon.turns()) == 1


# -- tools --


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"properties": None}, {"properties": {}}),
        ({"properties": []}, {"properties": {}}),
        ({"properties": {}, "required": None}, {"properties": {}}),
        ({"properties": {"a": {"type": None, "enum": None, "default": None}}},
         {"properties": {"a": {"default": None}}}),
        ({"properties": {"a": {"type": "array", "items": [{"type": "string"}]}}},
         {"properties": {"a": {"type": "array", "prefixItems": [{"type": "string"}]}}}),
        ({"properties": {"a": {"type": "number", "minimum": 1, "exclusiveMinimum": True}}},
         {"properties": {"a": {"type": "number", "exclusiveMinimum": 1}}}),
        ({"properties": {"a": {"type": "string", "required": True}}},
         {"properties": {"a": {"type": "string"}}}),
        ({"properties": {"a": {"properties": {"$filter": True, "größe": {}}}}},
         {"properties": {"a": {"properties": {"$filter": True, "größe": {}}}}}),
    ],
)  # fmt: skip
@ensureDeferred
async def test_a_tool_that_the_cli_would_leave_out_is_carried(
    daemon: Daemon, given: Any, sent: Any
) -> None:
    function = {"name": "t", "parameters": {"type": "object", **given}}
    await ask(daemon, said("x"), tools=[LOOK, {"type": "function", "function": function}])
    schemas = {tool["name"]: tool["input_schema"] for tool in daemon.body()["tools"]}
    schemas["t"].setdefault("properties", {})
    assert schemas["t"] == {"type": "object", **sent}


@pytest.mark.parametrize(
    ("parameters", "path"),
    [
        ({"properties": {"$filter": {}}}, ".properties.$filter"),
        ({"properties": {"ids[]": {}}}, ".properties.ids[]"),
        ({"properties": {"a" * 65: {}}}, ".properties." + "a" * 65),
        ({"anyOf": [{"properties": {"größe": {}}}]}, ".anyOf[0].properties.größe"),
        ({"properties": {"a": {"properties": {"__proto__": {}}}}},
         ".properties.a.properties.__proto__"),
        ({"properties": {"a": "string"}}, ".properties.a"),
        ({"properties": {"a": {"type": "any"}}}, ".properties.a.type"),
        ({"properties": {"a": {"items": {"enum": "x"}}}}, ".properties.a.items.enum"),
        ({"properties": {}, "required": "x"}, ".required"),
    ],
)  # fmt: skip
@ensureDeferred
async def test_a_tool_that_cannot_be_carried_is_refused_by_its_path(
    daemon: Daemon, parameters: Any, path: str
) -> None:
    before = len(daemon.turns())
    function = {"name": "t", "parameters": {"type": "object", **parameters}}
    answer, _ = await ask(daemon, said("x"), tools=[{"type": "function", "function": function}])
    assert answer["error"]["param"] == f"tools[0].function.parameters{path}"
    assert answer["error"]["type"] == "invalid_request_error"
    tool = {"name": "t", "input_schema": function["parameters"]}
    body = {"model": MODEL, "max_tokens": 9, "messages": said("x"), "tools": [tool]}
    response = await daemon.post("/v1/messages", body)
    assert response.code == 400
    message = (await treq.json_content(response))["error"]["message"]
    assert message.startswith(f"tools[0].input_schema{path}: ")
    assert len(daemon.turns()) == before


@pytest.mark.parametrize("stream", [False, True])
@ensureDeferred
async def test_values_that_arrive_altered_come_back_as_the_clients(
    daemon: Daemon, stream: bool
) -> None:
    tool = tool_of({
        "size": {"enum": ["½", "1"]}, "who": {"$ref": "#/$defs/who"}, "free": {"type": "string"},
        "id": {"enum": [2**53 + 1]}, "in": {"properties": {"№": {"const": "ﬁ"}}},
    }, **{"$defs": {"who": {"type": "array", "items": {"enum": ["👩\u200d💻"]}}}})  # fmt: skip
    order = json.dumps(
        {"size": "1\u20442", "who": ["👩💻"], "free": "1\u20442", "id": 2**53, "in": {"No": "fi"}},
        ensure_ascii=False,
    )
    fields = {"tools": [tool], "stream": stream, "model": MODEL}
    response = await daemon.post(
        "/v1/chat/completions", {"messages": said(f"[[call t {order}]]"), **fields}
    )
    assert ignored(response.headers) == "tools.text, tools.integers"
    text = await treq.text_content(response)
    if stream:
        chunks = [json.loads(line[6:]) for line in text.splitlines() if line[:7] == "data: {"]
        pieces = [
            call["function"]["arguments"]
            for chunk in chunks
            for choice in chunk["choices"]
            for call in choice["delta"].get("tool_calls", ())
        ]
        written = "".join(pieces)
    else:
        message = json.loads(text)["choices"][0]["message"]
        written = message["tool_calls"][0]["function"]["arguments"]
    assert json.loads(written) == {
        "size": "½",
        "who": ["👩\u200d💻"],
        "free": "1\u20442",
        "id": 2**53 + 1,
        "in": {"№": "ﬁ"},
    }
    (sent,) = daemon.body()["tools"]
    assert sent["input_schema"]["properties"]["size"]["enum"] == ["1\u20442", "1"]


@ensureDeferred
async def test_a_parked_call_and_a_replayed_one_say_the_same(daemon: Daemon) -> None:
    """The model knows its own value of an enum, whichever process goes on."""
    tools = [tool_of({"size": {"enum": ["½"]}})]
    asked = said('[[call t {"size": "1\u20442"}]]')
    answer, _ = await ask(daemon, asked, tools=tools)
    message = answer["choices"][0]["message"]
    assert json.loads(message["tool_calls"][0]["function"]["arguments"]) == {"size": "½"}
    asked += [message, {"role": "tool", "content": "r",
                        "tool_call_id": message["tool_calls"][0]["id"]}]  # fmt: skip
    _, headers = await ask(daemon, asked, tools=tools)
    assert way(headers) == "parked"
    parked = arrived(daemon.body())
    _, headers = await ask(daemon, asked, tools=tools)
    assert way(headers) in AFRESH
    assert arrived(daemon.body()) == parked


# -- what a conversation would lose --


@ensureDeferred
async def test_large_integers_of_a_call_keep_their_digits(daemon: Daemon) -> None:
    """As strings: no process is kept that would have lost them."""
    large = 2**60 + 1
    asked = said(f'[[call look {{"id": {large}, "n": [{large}, 5]}}]]')
    answer, _ = await ask(daemon, asked, tools=[LOOK])
    message = answer["choices"][0]["message"]
    arguments = message["tool_calls"][0]["function"]["arguments"]
    assert json.loads(arguments) == {"id": large, "n": [large, 5]}
    asked += [message, {"role": "tool", "content": "r",
                        "tool_call_id": message["tool_calls"][0]["id"]}]  # fmt: skip
    _, headers = await ask(daemon, asked, tools=[LOOK])
    assert way(headers) in AFRESH
    (call,) = arrived(daemon.body())[1]["content"]
    assert call["input"] == {"id": str(large), "n": [str(large), 5]}


@ensureDeferred
async def test_an_answer_of_no_content_is_not_lost(daemon: Daemon) -> None:
    asked = said("[[say (no content)]]")
    answer, _ = await ask(daemon, asked)
    assert answer["choices"][0]["message"]["content"] == "(no content)"
    _, headers = await ask(daemon, [*asked, answer["choices"][0]["message"], *said("and?")])
    assert way(headers) in AFRESH
    pieces = arrived(daemon.body())[1]
    assert pieces["role"] == "assistant"
    assert "".join(piece["text"] for piece in pieces["content"]) == "(no content)"


@pytest.mark.parametrize("around", [["one", "two"], []])
@ensureDeferred
async def test_a_system_prompt_may_say_the_clis_own_word(daemon: Daemon, around: Any) -> None:
    word = "__SYSTEM_PROMPT_DYNAMIC_BOUNDARY__"
    parts = [around[0], word, around[1]] if around else [word]
    system = [{"role": "system", "content": part} for part in parts]
    await ask(daemon, [*system, *said("x")])
    text = daemon.body()["system"][-1]["text"]
    assert text.rstrip("\n") == "\n\n".join(parts)


@pytest.mark.parametrize("said_too", [[{"type": "text", "text": "bad"}], []])
@ensureDeferred
async def test_an_image_in_a_failed_calls_result_follows_it(daemon: Daemon, said_too: Any) -> None:
    image = {"type": "base64", "media_type": "image/png", "data": png()}
    failed = {
        "type": "tool_result", "tool_use_id": "toolu_1", "is_error": True,
        "content": [*said_too, {"type": "image", "source": image}],
    }  # fmt: skip
    call = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}
    messages = [
        *said("x"),
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [failed, {"type": "text", "text": "so?"}]},
    ]
    tool = {"name": "look", "input_schema": {"type": "object"}}
    body = {"model": MODEL, "max_tokens": 9, "messages": messages, "tools": [tool]}
    response = await daemon.post("/v1/messages", body)
    assert response.code == 200, await treq.text_content(response)
    result, picture, text = arrived(daemon.body())[-1]["content"]
    assert result["content"] == (said_too or [{"type": "text", "text": MOVED}])
    assert result["is_error"]
    assert picture == {"type": "image", "source": image}
    assert text["text"] == "so?"


@ensureDeferred
async def test_a_limit_above_the_models_own_is_named(daemon: Daemon) -> None:
    _, headers = await ask(daemon, said("x"), max_tokens=64_001, model="claude-sonnet-4-5")
    assert ignored(headers) == "max_tokens"
    assert daemon.body()["max_tokens"] == 64_000
    _, headers = await ask(daemon, said("x"), max_tokens=64_000, model="claude-sonnet-4-5")
    assert ignored(headers) == ""
    assert daemon.body()["max_tokens"] == 64_000
