"""What the Messages API refuses in the schema of `output_config.format`.

Source: platform.claude.com/docs/en/build-with-claude/structured-outputs, and the 400s quoted in
agentjido/req_llm/issues/302, sherifkozman/the-llm-council/pull/55, ax-llm/ax/issues/458 and
ghostlobster/memorize-everything/issues/93.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from claudeproxy.demo.checks import need

_PATH = "output_config.format.schema"
_NUMBER = ("exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum", "multipleOf")
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
    for part in _parts(schema):
        _check(part)


def _parts(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    candidates = [schema.get("items")]
    for name in ("properties", "$defs", "definitions"):
        candidates += (schema.get(name) or {}).values()
    for name in ("anyOf", "allOf"):
        candidates += schema.get(name) or []
    return (part for part in candidates if isinstance(part, Mapping))
