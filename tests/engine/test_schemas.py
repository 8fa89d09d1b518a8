"""Schemas that bind an answer: closing them, and holding an answer against them."""

from __future__ import annotations

from typing import Any

import pytest

from claudeproxy.engine.structured import check_schema, closed, fault
from claudeproxy.messages import FailureError

NAME = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


def test_open_objects_are_closed() -> None:
    assert closed(NAME) == {**NAME, "additionalProperties": False}
    nested = {"type": "array", "items": {"anyOf": [NAME]}}
    assert closed(nested) == {
        "type": "array",
        "items": {"anyOf": [{**NAME, "additionalProperties": False}]},
    }


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": "object", "properties": {}},
        {**NAME, "additionalProperties": True},
        {**NAME, "additionalProperties": {"type": "string"}},
        {"type": "object", "properties": {"a": {"type": "integer", "minimum": 1}}},
        {"type": "object", "properties": {"a": {"type": "array", "minItems": 2}}},
    ],
)
def test_what_cannot_be_closed(schema: Any) -> None:
    assert closed(schema) is None


def test_a_property_may_have_a_keywords_name() -> None:
    schema = {"type": "object", "properties": {"minimum": {"type": "string"}, "not": {}}}
    assert closed(schema) == {**schema, "additionalProperties": False}


@pytest.mark.parametrize(
    ("schema", "text", "words"),
    [
        (NAME, '{"name": "x"}', None),
        (NAME, '{"name": 5}', "$.name"),
        (NAME, "{}", "required"),
        (NAME, "name", "no JSON"),
        ({}, "{}", None),
        ({}, "[]", "no JSON object"),
        ({"$ref": "#/$defs/none"}, "{}", "not in it"),
        ({"$ref": "https://a.example/schema"}, "{}", "not in it"),
        ({"$ref": "#"}, "{}", "without end"),
        (NAME, "[" * 100_000, "too deeply"),
        ({"properties": {"a": {"pattern": "^(a+)+$"}}}, '{"a": "' + "a" * 40 + '!"}', None),
        ({"patternProperties": {"^(a+)+$": False}, "additionalProperties": False},
         '{"' + "a" * 40 + '!": 1}', None),
        ({"properties": {"a": {}}, "additionalProperties": False}, '{"b": 1}', "Additional"),
    ],
)  # fmt: skip
def test_faults_of_an_answer(schema: Any, text: str, words: str | None) -> None:
    found = fault(schema, text)
    assert found is None if words is None else found is not None and words in found, found


@pytest.mark.parametrize("schema", [{"type": "thing"}, {"required": "a"}, {"properties": []}])
def test_schemas_that_are_none(schema: Any) -> None:
    with pytest.raises(FailureError) as refused:
        check_schema(schema, "schema")
    assert refused.value.failure.param == "schema"
