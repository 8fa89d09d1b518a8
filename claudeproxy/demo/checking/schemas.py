"""What the Messages API refuses in the schema of `output_config.format`.

Source: platform.claude.com/docs/en/build-with-claude/structured-outputs, and the 400s quoted in
agentjido/req_llm/issues/302, sherifkozman/the-llm-council/pull/55, ax-llm/ax/issues/458 and
ghostlobster/memorize-everything/issues/93.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from claudeproxy.demo.checking.basics import need

_PATH = "output_config.format.schema"
_NUMBER = ("exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum", "multipleOf")
_KNOWN = frozenset(
    "type title description default enum const properties required additionalProperties items "
    "minItems anyOf allOf $ref $defs definitions pattern format".split()
)
_UNSUPPORTED: Mapping[str, tuple[str, ...]] = {
    "integer": _NUMBER,
    "number": _NUMBER,
    "string": ("maxLength", "minLength"),
    "array": ("maxItems", "uniqueItems"),
}


def check_output_schema(schema: Any) -> None:
    """Refuse a schema that the API cannot compile into a grammar."""
    need(isinstance(schema, Mapping), f"{_PATH}: Input should be a valid dictionary")
    _check(schema)
    _check_circles(schema, schema, frozenset())


def _check(schema: Mapping[str, Any]) -> None:
    kinds = schema.get("type", "object" if "properties" in schema else ())
    for kind in [kinds] if isinstance(kinds, str) else kinds:
        found = [name for name in _UNSUPPORTED.get(kind, ()) if name in schema]
        are = "property" if len(found) == 1 else "properties"
        verb = "is" if len(found) == 1 else "are"
        names = ", ".join(f"'{name}'" for name in found) if len(found) == 1 else ", ".join(found)
        need(not found, f"{_PATH}: For '{kind}' type, {are} {names} {verb} not supported")
        if kind == "object":
            need(
                schema.get("additionalProperties") is False,
                f"{_PATH}: For 'object' type, 'additionalProperties' must be explicitly set to "
                "false",
            )
        if kind == "array":
            need(
                schema.get("minItems", 0) in (0, 1),
                f"{_PATH}: For 'array' type, 'minItems' values other than 0 or 1 are not supported",
            )
    for name in schema:
        need(name in _KNOWN, f"{_PATH}: Schema keyword '{name}' is not supported")
    look = re.search(r"\(\?[^:]|\\[bB1-9]", schema.get("pattern", ""))
    need(look is None, f"{_PATH}: Invalid regex in pattern field: lookaround is not supported")
    for part in _parts(schema):
        _check(part)


def _check_circles(
    schema: Mapping[str, Any], root: Mapping[str, Any], open: frozenset[str]
) -> None:
    """Refuse a reference that leads back to itself."""
    reference = schema.get("$ref")
    if isinstance(reference, str):
        need(reference.startswith("#"), f"{_PATH}: External $ref '{reference}' is not supported")
        need(
            reference not in open and reference != "#",
            f"{_PATH}: Circular reference detected in schema definitions: {reference}",
        )
        _check_circles(_resolved(reference, root), root, open | {reference})
    for part in _parts({n: v for n, v in schema.items() if n not in ("$defs", "definitions")}):
        _check_circles(part, root, open)


def _resolved(reference: str, root: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Any = root
    for step in reference.removeprefix("#/").split("/"):
        found = found.get(step) if isinstance(found, Mapping) else None
    need(isinstance(found, Mapping), f"{_PATH}: Cannot resolve $ref '{reference}'")
    return dict(found)


def _parts(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    candidates = [schema.get("items")]
    for name in ("properties", "$defs", "definitions"):
        candidates += (schema.get(name) or {}).values()
    for name in ("anyOf", "allOf"):
        candidates += schema.get(name) or []
    return (part for part in candidates if isinstance(part, Mapping))
