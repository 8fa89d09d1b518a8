"""What the CLI would change: told otherwise, and put right again."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudeproxy.cli.altered import (
    EXACT,
    digits,
    held_as_said,
    integers_change,
    needs_mapping,
    restored,
    texts_change,
    told,
)
from claudeproxy.cli.names import ToolNames
from claudeproxy.cli.wire import MessageReader, message_line
from claudeproxy.messages import (
    ArgumentsDelta,
    Message,
    Text,
    Tool,
    ToolUse,
    lenient_schema,
    tool_schema,
)

HALF = {"enum": ["½", "1", EXACT + 1]}
SCHEMA = {
    "type": "object",
    "properties": {
        "a": HALF,
        "list": {"type": "array", "prefixItems": [HALF], "items": {"type": "string"}},
        "either": {"anyOf": [{"type": "null"}, {"$ref": "#/properties/a"}]},
        "№": {"type": "object", "properties": {"ﬁ": {"const": "²"}}},
        "self": {"$ref": "#"},
        "free": {"type": "string"},
    },
}
CLIENTS = {
    "a": "½",
    "list": ["½", "½"],
    "either": "½",
    "№": {"ﬁ": "²", "other": "²"},
    "self": {"a": "½"},
    "free": "½",
}
MODELS = {
    "a": "1\u20442",
    "list": ["1\u20442", "½"],
    "either": "1\u20442",
    "No": {"fi": "2", "other": "²"},
    "self": {"a": "1\u20442"},
    "free": "½",
}


def test_a_call_is_told_in_the_models_values_and_comes_back_in_the_clients() -> None:
    assert needs_mapping(SCHEMA)
    assert told(CLIENTS, SCHEMA) == MODELS
    assert restored(MODELS, SCHEMA) == CLIENTS
    assert restored({"a": EXACT}, SCHEMA) == {"a": EXACT + 1}
    assert restored({"a": True, "free": "1\u20442"}, SCHEMA) == {"a": True, "free": "1\u20442"}


def test_values_are_found_behind_references_branches_and_items() -> None:
    schema = {
        "$defs": {
            "half": HALF,
            "again": {"$ref": "#/$defs/half"},
            "loop": {"$ref": "#/$defs/loop"},
        },
        "properties": {
            "list": {"items": {"$ref": "#/$defs/again"}},
            "either": {"anyOf": [True, HALF]},
            "loop": {"$ref": "#/$defs/loop"},
        },
    }
    clients = {"list": ["½", "1"], "either": "½", "loop": "½"}
    models = {"list": ["1\u20442", "1"], "either": "1\u20442", "loop": "½"}
    assert told(clients, schema) == models
    assert restored(models, schema) == clients


@given(st.recursive(st.text() | st.integers() | st.booleans() | st.none(),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))  # fmt: skip
def test_what_no_schema_knows_is_not_touched(value: Any) -> None:
    assert restored(value, {}) == value == told(value, {})


@pytest.mark.parametrize("cut", range(1, 12))
def test_such_arguments_come_in_one_piece(cut: int) -> None:
    names = ToolNames.of([Tool("t", "", SCHEMA), Tool("plain", "", {"type": "object"})])
    for name, pieces in (("t", ['{"a": "½"}']), ("plain", ['{"a": "1\u20442"}'])):
        reader = MessageReader(names)
        block = {"type": "tool_use", "id": "i", "name": names.upstream(name)}
        reader.event({"type": "content_block_start", "index": 0, "content_block": block})
        written = '{"a": "1\u20442"}'
        found = []
        for piece in (written[:cut], written[cut:]):
            delta = {"type": "input_json_delta", "partial_json": piece}
            found += reader.event({"type": "content_block_delta", "index": 0, "delta": delta})
        found += reader.event({"type": "content_block_stop", "index": 0})
        deltas = [event.json for event in found if isinstance(event, ArgumentsDelta)]
        assert "".join(deltas) == pieces[0]
        assert (len(deltas) == 1) is (name == "t")
        assert reader.callable


def test_digits_are_kept_where_they_would_be_lost() -> None:
    assert digits({"a": [EXACT, EXACT + 1, -EXACT - 1, 2**60, 1.5, True, None]}) == {
        "a": [EXACT, str(EXACT + 1), str(-EXACT - 1), 2**60, 1.5, True, None]
    }
    line = message_line(
        Message("assistant", (ToolUse("i", "t", {"id": EXACT + 1}),)), "", ToolNames.of(()),
        query=False,
    )  # fmt: skip
    assert json.loads(line)["message"]["content"][0]["input"] == {"id": str(EXACT + 1)}


def test_an_integer_beyond_the_largest_double() -> None:
    """It arrives as ``null``: the CLI's Infinity."""
    huge = 10**310
    assert digits({"a": [huge, -huge]}) == {"a": [str(huge), str(-huge)]}
    assert integers_change({"default": huge})
    assert not held_as_said([ToolUse("i", "t", {"a": huge})])
    assert needs_mapping({"enum": [huge]})
    assert restored({"a": huge}, {"properties": {"a": {"enum": [huge]}}}) == {"a": huge}


@pytest.mark.parametrize(
    ("schema", "needed"),
    [
        ({"properties": {"a": {"enum": ["x", 5, True, EXACT]}, "b": {"const": "é"}}}, False),
        ({"description": "½", "default": EXACT + 1}, False),
        ({"properties": ["№"]}, False),
        ({"properties": {"№": {}}}, True),
        ({"properties": {"a": {"items": {"const": "½"}}}}, True),
        ({"$defs": {"a": {"anyOf": [{"enum": [EXACT + 1]}]}}}, True),
    ],
    ids=range(6),
)
def test_which_schemas_tell_the_model_something_else(schema: Any, needed: bool) -> None:
    assert needs_mapping(schema) is needed


@pytest.mark.parametrize(
    ("value", "texts", "integers"),
    [
        ("½", True, False),
        ("plain", False, False),
        ({"a": ["x", {"№": 5}], "b": None}, True, False),
        ({"a": ["x", {"b": EXACT + 1}], "é": EXACT}, False, True),
        ({"a": "zero\u200bwidth"}, True, False),
    ],
)
def test_what_of_a_definition_does_not_arrive_as_it_is(
    value: Any, texts: bool, integers: bool
) -> None:
    assert (texts_change(value), integers_change(value)) == (texts, integers)


@pytest.mark.parametrize(
    ("answer", "held"),
    [
        ([Text("(no "), Text("content)")], False),
        ([Text("(no content)")], False),
        ([Text("(no content)\n")], False),
        ([Text("(no content).")], True),
        ([Text("(no content)"), ToolUse("i", "t", {})], True),
        ([ToolUse("i", "t", {"a": [EXACT + 1]})], False),
        ([ToolUse("i", "t", {"a": EXACT})], True),
    ],
)
def test_which_answers_a_process_holds_as_they_were_said(answer: Any, held: bool) -> None:
    assert held_as_said(answer) is held


def test_a_schema_in_the_words_of_the_draft() -> None:
    old = {
        "type": "object",
        "additionalProperties": None,
        "required": ["a"],
        "properties": {
            "a": {"items": [{}], "additionalItems": False, "maximum": 3, "exclusiveMaximum": True},
            "items": {"minimum": 1, "exclusiveMinimum": False, "required": False, "const": None},
        },
    }
    assert tool_schema(old, "p") == {
        "type": "object",
        "required": ["a"],
        "properties": {
            "a": {"prefixItems": [{}], "items": False, "exclusiveMaximum": 3},
            "items": {"minimum": 1, "const": None},
        },
    }


def test_a_lenient_schema_goes_without_what_is_wrong() -> None:
    wrong = {"type": "any", "enum": "x", "properties": {"größe": {"$ref": 1, "type": "string"}}}
    assert lenient_schema(wrong) == {"properties": {"größe": {"type": "string"}}}
