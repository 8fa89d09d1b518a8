"""Validates an answer against its schema, whatever the upstream made of the schema."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import jsonschema
from jsonschema.validators import extend, validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable

from claudeproxy.messages import FailureError

MAX_SCHEMA = 50_000
"""Characters of a schema; it takes half a second to check as many."""

MAX_COST = 5_000
"""Subschemas against which one value may have to be checked."""


def check_schema(schema: Mapping[str, Any], param: str) -> None:
    """``param``: where the schema stands in the body.

    :raises FailureError: 400 for something that is not a JSON schema, and for a schema so large or
        entangled that validating an answer would keep the daemon busy.
    """
    if len(json.dumps(schema)) > MAX_SCHEMA:
        raise FailureError.invalid(f"the schema is longer than {MAX_SCHEMA:,} characters", param)
    if _Cost(schema).of(schema) > MAX_COST:
        raise FailureError.invalid("the schema refers to itself too often", param)
    if not isinstance(schema.get("$schema", ""), str):
        raise FailureError.invalid("$schema must be a string", param)
    try:
        # Formats are not checked: Python does not know all regular expressions of JavaScript.
        _validator(schema).check_schema(dict(schema), format_checker=jsonschema.FormatChecker(()))
    except jsonschema.SchemaError as error:
        why = f"not a JSON schema: {error.json_path}: {error.message}"
        raise FailureError.invalid(why, param) from None


class _Cost:
    """How many subschemas one value is checked against, with all local references followed."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._known: dict[str, int] = {}

    def of(self, schema: Any) -> int:
        """The cost of ``schema``; a reference from within itself counts once."""
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
    """What is wrong with ``text`` as an instance of ``schema``; ``None`` if nothing is.

    Regular expressions are not checked: they could keep the daemon busy forever. References to
    anything outside the schema are not followed.
    """
    try:
        value = json.loads(text)
        if not schema:
            return None if isinstance(value, dict) else "it is not a JSON object"
        checker = _validator(schema)(dict(schema), registry=Registry())
        worst = jsonschema.exceptions.best_match(checker.iter_errors(value))
    except Unresolvable as error:
        return f"the schema refers to {error.ref}, which is not in it"
    except RecursionError:
        return "it is nested too deeply, or the schema refers to itself without end"
    except ValueError as error:
        return f"it is not JSON: {error}"
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
    return extend(kind, changed)


def _anything(*_: Any) -> Iterable[jsonschema.ValidationError]:
    return ()
