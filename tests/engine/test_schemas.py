"""Schemas that bind an answer: closing them, and holding an answer against them."""

from __future__ import annotations

from typing import Any

import pytest

from claudeproxy.engine.constrained import closed
from claudeproxy.engine.validation import check_schema, fault
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
        (NAME, "name", "not JSON"),
        ({}, "{}", None),
        ({}, "[]", "not a JSON object"),
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


@pytest.mark.parametrize("pattern", [r"^\p{L}+$", r"^(?<year>\d{4})$", r"^[\u{1F600}]$", "(?i)a"])
def test_regular_expressions_of_any_language(pattern: str) -> None:
    check_schema({"type": "object", "properties": {"a": {"pattern": pattern}}}, "schema")


def test_the_error_names_the_place_in_the_schema() -> None:
    with pytest.raises(FailureError) as refused:
        check_schema({"properties": {"a": {"exclusiveMinimum": True}}}, "schema")
    assert "$.properties.a.exclusiveMinimum: True" in refused.value.failure.message


def test_what_binds_nothing_is_left_out() -> None:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "discriminator": {"propertyName": "a"},
        "properties": {
            "a": {"type": "integer", "minimum": -(2**53) + 1, "maximum": 2**53 - 1, "example": 1},
            "b": {"type": "string", "format": "email", "pattern": "^(?!a).*$", "x-own": {}},
            "example": {"oneOf": [{"type": "string"}, {"type": "null"}], "default": None},
        },
    }
    assert closed(schema) == {
        "type": "object",
        "properties": {
            "a": {"type": "integer"},
            "b": {"type": "string", "format": "email"},
            "example": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
        },
        "additionalProperties": False,
    }


NODE = {"type": "object", "properties": {"next": {"$ref": "#/$defs/n"}}}


@pytest.mark.parametrize(
    "part",
    [
        {"type": "integer", "minimum": 0},
        {"type": "string", "pattern": "^(?i)a$"},
        {"type": "string", "pattern": "^(?=a).*$"},
        {"type": "string", "format": "base64"},
        {"enum": [{"a": 1}]},
        {"const": [1]},
        {"type": "array", "prefixItems": [{"type": "string"}]},
        {"allOf": [{"$ref": "#/$defs/n"}]},
        {"$ref": "https://example.com/a"},
        {"$ref": "#/$defs/none"},
        {"$ref": "#"},
        {"$ref": "#/$defs/n"},
        {"anyOf": [{"type": "string"}], "oneOf": [{"type": "string"}]},
        {"type": "array", "items": True},
        {"const": 2**53 + 1},
    ],
)
def test_what_constrained_output_does_not_take(part: Any) -> None:
    schema = {"type": "object", "properties": {"a": part}, "$defs": {"n": NODE}}
    assert closed(schema) is None


def test_a_reference_that_comes_to_an_end_is_taken() -> None:
    leaf = {"type": "object", "properties": {"x": {"type": "string"}}}
    schema = {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/l"}, "b": {"$ref": "#/$defs/l"}},
        "$defs": {"l": leaf},
    }
    taken = closed(schema)
    assert taken is not None and taken["$defs"]["l"]["additionalProperties"] is False
