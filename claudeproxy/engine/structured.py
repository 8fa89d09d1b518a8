"""Answers bound by a JSON schema.

The API's own constrained output comes first (``output_config.format``): JSON as plain text. What
it refuses, and "any JSON object", goes by the CLI's ``StructuredOutput`` tool, whose arguments
are then the answer's text. Either way the daemon itself holds the answer against the schema.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

import jsonschema
from attrs import evolve
from jsonschema.validators import extend, validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable

from claudeproxy.cli.tools import SCHEMA_TOOL
from claudeproxy.messages import (
    ArgumentsDelta,
    Assembly,
    BlockStarted,
    Event,
    Failure,
    FailureError,
    Finished,
    Kind,
    Message,
    Request,
    Text,
    TextDelta,
    ToolUse,
)

MAX_REMEMBERED = 1_000

MAX_SCHEMA = 50_000
"""Characters of a schema; checking so many takes half a second."""

MAX_COST = 5_000
"""Subschemas that one value may be held against."""

_TOO_MUCH = frozenset(
    "minimum maximum exclusiveMinimum exclusiveMaximum multipleOf minLength maxLength "
    "maxItems uniqueItems minProperties maxProperties patternProperties propertyNames "
    "if then else not contains oneOf".split()
)
"""Keywords the API's constrained output refuses."""


class Form(Enum):
    """How a schema is put to the model."""

    NONE = "none"
    NATIVE = "native"
    TOOL = "tool"


class Structure:
    """Chooses the form, and remembers which schemas the upstream refused."""

    def __init__(self) -> None:
        self._refused: dict[bytes, None] = {}

    def form(self, request: Request) -> Form:
        """How ``request``'s schema, if it has one, is put to the model."""
        if request.schema is None:
            return Form.NONE
        if not request.schema or _key(request.schema) in self._refused:
            return Form.TOOL
        return Form.TOOL if closed(request.schema) is None else Form.NATIVE

    def refused(self, request: Request, failure: Failure) -> bool:
        """Whether ``failure`` is the upstream's refusal of the schema; then it is remembered."""
        message = failure.message.lower()
        words = ("output_config", "output_format", "structured output")
        if failure.kind is not Kind.INVALID or not any(word in message for word in words):
            return False
        assert request.schema is not None
        self._refused[_key(request.schema)] = None
        if len(self._refused) > MAX_REMEMBERED:
            del self._refused[next(iter(self._refused))]
        return True


def closed(schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """``schema`` as the API's constrained output takes it, or ``None`` where it would be refused.

    It wants every object closed. Closing an open one is safe: what satisfies the closed schema
    satisfies the open one.
    """
    try:
        taken: dict[str, Any] = _closed(schema)
    except ValueError:
        return None
    return taken


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    if _TOO_MUCH & schema.keys() or schema.get("minItems", 0) not in (0, 1):
        raise ValueError("a keyword that constrained output does not take")
    out: dict[str, Any] = {}
    for name, value in schema.items():
        if name in ("properties", "$defs", "definitions"):
            if not isinstance(value, dict):
                raise ValueError("no object of schemas")
            out[name] = {key: _closed(entry) for key, entry in value.items()}
        elif name in ("items", "anyOf", "allOf", "prefixItems"):
            out[name] = _closed(value)
        else:
            out[name] = value
    if schema.get("type") == "object" or "properties" in schema:
        if schema.get("additionalProperties") not in (None, False) or not schema.get("properties"):
            raise ValueError("an object whose properties are meant to be free")
        out["additionalProperties"] = False
    return out


def check_schema(schema: Mapping[str, Any], param: str) -> None:
    """:raises FailureError: 400 for a schema that is none, ``param`` naming its place, or that is
    so large or so entangled that holding an answer against it would keep the daemon busy."""
    if len(json.dumps(schema)) > MAX_SCHEMA:
        raise FailureError.invalid(f"a schema of over {MAX_SCHEMA} characters", param)
    if _Cost(schema).of(schema) > MAX_COST:
        raise FailureError.invalid("the schema refers to itself too often", param)
    if not isinstance(schema.get("$schema", ""), str):
        raise FailureError.invalid("$schema must be a string", param)
    try:
        _validator(schema).check_schema(dict(schema))
    except jsonschema.SchemaError as error:
        raise FailureError.invalid(f"not a JSON schema: {error.message}", param) from None


class _Cost:
    """How many subschemas are looked at for one value, every local reference followed."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._known: dict[str, int] = {}

    def of(self, schema: Any) -> int:
        """The cost of ``schema``; that of a reference within itself counts once."""
        if isinstance(schema, list):
            return sum(map(self.of, schema))
        if not isinstance(schema, Mapping):
            return 0
        parts = (value for name, value in schema.items() if name not in ("$defs", "definitions"))
        reference = schema.get("$ref")
        target = self._target(reference) if isinstance(reference, str) else 0
        return 1 + target + sum(map(self.of, parts))

    def _target(self, reference: str) -> int:
        if reference not in self._known:
            self._known[reference] = 1
            found: Any = self._root
            for step in reference.removeprefix("#").strip("/").split("/"):
                found = found.get(step) if step and isinstance(found, Mapping) else found
            self._known[reference] = self.of(found)
        return self._known[reference]


def fault(schema: Mapping[str, Any], text: str) -> str | None:
    """What is wrong with ``text`` as an instance of ``schema``; none when nothing is.

    What could keep the daemon busy for ever is not looked at: regular expressions. References
    lead nowhere outside the schema.
    """
    try:
        value = json.loads(text)
        if not schema:
            return None if isinstance(value, dict) else "it is no JSON object"
        checker = _validator(schema)(dict(schema), registry=Registry())
        worst = jsonschema.exceptions.best_match(checker.iter_errors(value))
    except Unresolvable as error:
        return f"the schema refers to {error.ref}, which is not in it"
    except RecursionError:
        return "it is nested too deeply, or the schema refers to itself without end"
    except ValueError as error:
        return f"it is no JSON: {error}"
    return None if worst is None else f"{worst.json_path}: {worst.message}"


def _validator(schema: Mapping[str, Any]) -> Any:
    """The validator of the draft that ``schema`` names, without its regular expressions."""
    kind = validator_for(schema, default=jsonschema.Draft202012Validator)

    def unless_patterns(name: str) -> Any:
        def check(*args: Any) -> Iterable[jsonschema.ValidationError]:
            return () if "patternProperties" in args[3] else kind.VALIDATORS[name](*args) or ()

        return check

    changed: dict[str, Any] = {"pattern": _anything, "patternProperties": _anything}
    for name in ("additionalProperties", "unevaluatedProperties"):
        if name in kind.VALIDATORS:
            changed[name] = unless_patterns(name)
    return extend(kind, changed)  # type: ignore[no-untyped-call]


def _anything(*_: Any) -> Iterable[jsonschema.ValidationError]:
    return ()


def repair(request: Request, answer: Assembly, why: str) -> Request:
    """The conversation that asks once more, with the answer that failed and what it failed by."""
    correction = (
        f"That answer does not satisfy the required JSON schema ({why}). "
        "Answer again, with the corrected JSON only."
    )
    failed = Message("assistant", (Text(answer.text()),))
    messages = (*request.messages, failed, Message("user", (Text(correction),)))
    return evolve(request, messages=messages)


class ToolAnswer:
    """Turns an answer by tool into one whose JSON was written as text."""

    def __init__(self) -> None:
        self._ours: set[int] = set()
        self._others = False

    def translate(self, events: Iterable[Event]) -> list[Event]:
        """The events as the client is to see them."""
        return [self._event(event) for event in events]

    def _event(self, event: Event) -> Event:
        if isinstance(event, BlockStarted) and isinstance(event.block, ToolUse):
            if event.block.name == SCHEMA_TOOL:
                self._ours.add(event.index)
                return BlockStarted(event.index, Text(""))
            self._others = True
        elif isinstance(event, ArgumentsDelta) and event.index in self._ours:
            return TextDelta(event.index, event.json)
        elif isinstance(event, Finished) and event.stop_reason == "tool_use" and not self._others:
            return evolve(event, stop_reason="end_turn")
        return event


def _key(schema: Mapping[str, Any]) -> bytes:
    return hashlib.sha256(json.dumps(schema, sort_keys=True).encode()).digest()
