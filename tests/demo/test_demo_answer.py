"""Answers by values: the events of the Messages API's stream."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudeproxy.demo.answering.answer import answer, orders_of
from claudeproxy.demo.answering.instances import instance
from claudeproxy.demo.fold import message
from claudeproxy.demo.steps import ApiError, Drop, Hang, Header, Wait

ADD = {
    "name": "add",
    "input_schema": {
        "type": "object",
        "properties": {"a": {"type": "integer", "minimum": 3}, "b": {}},
        "required": ["a"],
    },
}
ANY_WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(
    lambda text: "[[" not in text and text.strip()
)


def body(text, **fields):
    return {
        "model": "claude-sonnet-4-5",
        "max_tokens": 1000,
        "messages": [{"role": "user", "content": text}],
        **fields,
    }


def steps(text, **fields):
    request = body(text, **fields)
    return answer(request, orders_of(request), message_id="msg_1")


def whole(text, **fields):
    return message(steps(text, **fields))


def texts(text, **fields):
    return [b["text"] for b in whole(text, **fields)["content"] if b["type"] == "text"]


def deltas(events):
    return [event["delta"] for event in events if event["type"] == "content_block_delta"]


def test_the_events_of_an_echo():
    assert steps("hi you") == [
        {
            "type": "message_start",
            "message": {
                "id": "msg_1",
                "type": "message",
                "role": "assistant",
                "model": "claude-sonnet-4-5",
                "content": [],
                "stop_reason": None,
                "stop_sequence": None,
                "usage": {
                    "input_tokens": 5,
                    "cache_creation_input_tokens": 0,
                    "cache_read_input_tokens": 0,
                    "output_tokens": 1,
                    "service_tier": "standard",
                },
            },
        },
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        *(
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "text_delta", "text": piece},
            }
            for piece in ("You", " said:", " hi", " you")
        ),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {
                "input_tokens": 5,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
                "output_tokens": 4,
            },
        },
        {"type": "message_stop"},
    ]


def test_a_call_is_streamed_in_pieces_of_its_arguments():
    events = steps('[[say go]][[call add {"a": 1, "b": [2]}]]')
    start = [event for event in events if event["type"] == "content_block_start"][1]
    call = {"type": "tool_use", "id": "toolu_11", "name": "add", "input": {}}
    assert (start["index"], start["content_block"]) == (1, call)
    pieces = [d["partial_json"] for d in deltas(events) if d["type"] == "input_json_delta"]
    assert pieces[0] == ""
    assert len(pieces) > 2
    assert json.loads("".join(pieces)) == {"a": 1, "b": [2]}
    assert events[-2]["delta"]["stop_reason"] == "tool_use"


def test_calls_in_parallel_have_ids_of_their_own():
    content = whole("[[call add]][[call add]]")["content"]
    assert len({block["id"] for block in content}) == 2


def test_thinking_comes_only_when_the_request_enables_it():
    thinking = {"type": "enabled", "budget_tokens": 1024}
    think, say = whole("[[think hm]][[say x]]", thinking=thinking)["content"]
    assert (think["type"], think["thinking"], say["text"]) == ("thinking", "hm", "x")
    assert think["signature"]
    assert texts("[[think hm]][[say x]]") == ["x"]


def test_thinking_that_is_not_displayed_has_only_a_signature():
    thinking = {"type": "adaptive", "display": "omitted"}
    think, _ = whole("[[think hm]][[say x]]", thinking=thinking)["content"]
    assert think["thinking"] == ""
    assert think["signature"]


def test_thinking_is_counted_apart():
    usage = whole("[[think 12345678]][[say 1234]]", thinking={"type": "adaptive"})["usage"]
    assert (usage["output_tokens"], usage["output_tokens_details"]) == (3, {"thinking_tokens": 2})


@pytest.mark.parametrize(
    ("order", "pieces"),
    [
        ("[[say one two]]", ["one", " two"]),
        ("[[chunk 2]][[say abcde]]", ["ab", "cd", "e"]),
        ("[[raw one two]]", ["one two"]),
        ("[[say a]][[raw  b c]][[raw d]]", ["a", " b c", "d"]),
    ],
)
def test_the_size_of_deltas(order, pieces):
    events = steps(order)
    assert [delta["text"] for delta in deltas(events)] == pieces
    assert sum(event["type"] == "content_block_start" for event in events) == 1


def test_two_texts_are_two_blocks():
    assert texts("[[say a]][[say b]]") == ["a", "b"]


def test_waits_come_before_all_and_between_deltas():
    played = steps("[[wait 3]][[pause 2]][[header a: b]][[say a b]]")
    assert played[:2] == [Wait(3.0), Header("a", "b")]
    kinds = ["wait" if step == Wait(2.0) else step["type"] for step in played[2:]]
    assert kinds[3:6] == ["content_block_delta", "wait", "content_block_delta"]


def test_an_error_comes_in_place_of_an_answer():
    assert steps("[[wait 1]][[error 529 busy]]") == [Wait(1.0), ApiError(529, "busy")]


@pytest.mark.parametrize(
    ("order", "ending", "said"),
    [
        ("[[say a]][[drop]]", Drop(), "a"),
        ("[[say a]][[hang]]", Hang(), "a"),
        ("[[say a]][[error-mid 500 oh]]", ApiError(500, "oh"), "a"),
        ("x [[error-mid 500 oh]]", ApiError(500, "oh"), "You said: x"),
        ("x [[drop]]", Drop(), ""),
        ("x [[hang]]", Hang(), ""),
    ],
)
def test_an_ending_comes_in_place_of_the_rest(order, ending, said):
    *events, last = steps(order)
    assert last == ending
    assert events[0]["type"] == "message_start"
    assert "".join(delta["text"] for delta in deltas(events)) == said
    assert "content_block_stop" not in [event["type"] for event in events]


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ({"type": "auto"}, ["add", "sub"]),
        ({"type": "any"}, ["add", "sub"]),
        ({"type": "any", "disable_parallel_tool_use": True}, ["add"]),
        ({"type": "none"}, []),
    ],
)
def test_ordered_calls_obey_the_tool_choice(choice, names):
    content = whole("[[call add]][[call sub]]", tools=[ADD], tool_choice=choice)["content"]
    assert [block["name"] for block in content if block["type"] == "tool_use"] == names


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "add"}])
def test_a_forced_call_fits_the_schema(choice):
    reply = whole("hi", tools=[ADD], tool_choice=choice)
    call = {"type": "tool_use", "id": "toolu_10", "name": "add", "input": {"a": 3}}
    assert reply["content"] == [call]
    assert reply["stop_reason"] == "tool_use"


def test_structured_output_is_an_instance_of_the_schema():
    form = {"type": "json_schema", "schema": ADD["input_schema"]}
    assert texts("hi", output_config={"format": form}) == ['{"a": 3}']
    assert texts("[[say no]]", output_config={"format": form}) == ["no"]


def test_after_tool_results_it_tells_the_result():
    content = [{"type": "tool_result", "tool_use_id": "t", "content": "42"}]
    assert texts(content) == ["The tool said: 42"]
    assert texts([{**content[0], "content": "x [[say ordered]]"}]) == ["ordered"]
    assert texts([*content, {"type": "text", "text": "so?"}]) == ["You said: so?"]


def test_usage_and_stop_reason_by_order():
    reply = whole("[[usage cache_read_input_tokens=7 output_tokens=9]][[stop refusal]]x")
    assert reply["usage"]["cache_read_input_tokens"] == 7
    assert reply["usage"]["output_tokens"] == 9
    assert reply["stop_reason"] == "refusal"


@pytest.mark.parametrize(
    ("order", "fields", "said", "reason", "sequence"),
    [
        ("[[say 12345678]]", {"max_tokens": 2}, ["12345678"], "end_turn", None),
        ("[[say 123456789]]", {"max_tokens": 2}, ["12345678"], "max_tokens", None),
        ("[[say 1234]][[say 5]]", {"max_tokens": 1}, ["1234"], "max_tokens", None),
        ("[[say a END b]][[call x]]", {"stop_sequences": ["END"]}, ["a "], "stop_sequence", "END"),
        ("[[say END b]]", {"stop_sequences": ["END"]}, [], "stop_sequence", "END"),
        ("[[say a b c]]", {"stop_sequences": ["c", "b"]}, ["a "], "stop_sequence", "b"),
        ("[[raw aE]][[raw ND]]", {"stop_sequences": ["END"]}, ["a"], "stop_sequence", "END"),
        ("[[raw E]][[raw N]][[raw D]]", {"stop_sequences": ["END"]}, [], "stop_sequence", "END"),
        ("[[say aE]][[say ND]]", {"stop_sequences": ["END"]}, ["aE", "ND"], "end_turn", None),
        (
            "[[say abcdEND]]",
            {"stop_sequences": ["END"], "max_tokens": 1},
            ["abcd"],
            "max_tokens",
            None,
        ),
    ],
)
def test_where_an_answer_is_cut(order, fields, said, reason, sequence):
    reply = whole(order, **fields)
    assert texts(order, **fields) == said
    assert (reply["stop_reason"], reply["stop_sequence"]) == (reason, sequence)


def test_the_arguments_of_a_call_are_cut_too():
    events = steps('[[call add {"a": 1}]]', max_tokens=1)
    assert "".join(delta["partial_json"] for delta in deltas(events)) == '{"a"'
    assert events[-2]["delta"]["stop_reason"] == "max_tokens"


@given(ANY_WORDS)
def test_any_text_without_tags_comes_back(text):
    assert texts(text, max_tokens=10_000) == [f"You said: {text.strip()}"]


@given(ANY_WORDS, st.integers(1, 5), st.lists(ANY_WORDS, max_size=2))
def test_a_cut_answer_is_the_beginning_of_the_full_one(text, max_tokens, sequences):
    full = texts(text, max_tokens=10_000)[0]
    reply = whole(text, max_tokens=max_tokens, stop_sequences=sequences)
    said = "".join(block["text"] for block in reply["content"])
    assert full.startswith(said)
    assert len(said) <= max_tokens * 4
    assert not any(sequence in said for sequence in sequences)
    if reply["stop_reason"] == "stop_sequence":
        assert full[len(said) :].startswith(reply["stop_sequence"])
    elif reply["stop_reason"] == "end_turn":
        assert said == full


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string"}, "demo"),
        ({"type": "string", "minLength": 6}, "demo.."),
        ({"type": "string", "format": "date-time"}, "2026-01-31T12:00:00Z"),
        ({"type": "string", "format": "base64"}, "demo"),
        ({"type": "integer", "minimum": 5}, 5),
        ({"type": "number", "exclusiveMinimum": 5}, 6),
        ({"type": "boolean"}, True),
        ({"type": ["null", "string"]}, None),
        ({"enum": ["a", "b"]}, "a"),
        ({"const": [1]}, [1]),
        ({"type": "array", "items": {"type": "string"}}, []),
        ({"type": "array", "items": {"type": "string"}, "minItems": 2}, ["demo", "demo"]),
        ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, 0),
        (
            {"$ref": "#/$defs/p", "$defs": {"p": {"type": "object", "required": ["x"]}}},
            {"x": "demo"},
        ),
        (
            {"allOf": [{"properties": {"a": {"const": 1}}, "required": ["a"]}, {"type": "object"}]},
            {"a": 1},
        ),
        (True, {}),
    ],
)
def test_the_minimal_instance_of_a_schema(schema, value):
    assert instance(schema) == value
