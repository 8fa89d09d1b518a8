"""A minimal instance of a JSON schema, for forced tool calls and structured output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SIMPLE: Mapping[str, Any] = {"boolean": True, "null": None}
_FORMATS: Mapping[str, str] = {
    "date-time": "2026-01-31T12:00:00Z",
    "date": "2026-01-31",
    "time": "12:00:00Z",
    "duration": "P1D",
    "email": "demo@example.com",
    "hostname": "example.com",
    "uri": "https://example.com/",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uuid": "6ba7b810-9dad-41d1-80b4-00c04fd430c8",
}


def instance(schema: Any) -> Any:
    """A minimal value that fits a JSON schema.

    Knows const, enum, $ref into the schema itself, allOf (merged), anyOf/oneOf (the first), type,
    properties/required, items/prefixItems/minItems, minimum, minLength and maxLength, and the
    formats of constrained output; of other keywords nothing is promised. A recursive schema ends
    where nothing more is required.
    """
    return _build(schema, schema)


def _build(schema: Any, root: Any) -> Any:
    if not isinstance(schema, Mapping):
        return {}
    if "$ref" in schema:
        return _build(_resolve(schema["$ref"], root), root)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for union in ("anyOf", "oneOf"):
        if schema.get(union):
            return _build(schema[union][0], root)
    if schema.get("allOf"):
        return _merged(schema, root)
    return _typed(schema, root)


def _resolve(reference: str, root: Any) -> Any:
    found = root
    for part in reference.lstrip("#/").split("/"):
        found = found.get(part, {}) if part else found
    return found


def _merged(schema: Mapping[str, Any], root: Any) -> Any:
    values = [_build(part, root) for part in schema["allOf"]]
    values.append(_typed(schema, root) if "type" in schema or "properties" in schema else {})
    objects = [value for value in values if isinstance(value, dict)]
    if len(objects) < len(values):
        return next(value for value in values if not isinstance(value, dict))
    return {key: value for part in objects for key, value in part.items()}


def _typed(schema: Mapping[str, Any], root: Any) -> Any:
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = kind[0]
    if kind == "object":
        properties = schema.get("properties", {})
        return {key: _build(properties.get(key, {}), root) for key in schema.get("required", ())}
    if kind == "array":
        items = [_build(item, root) for item in schema.get("prefixItems", ())]
        missing = max(0, schema.get("minItems", 0) - len(items))
        return items + [_build(schema.get("items", {}), root) for _ in range(missing)]
    if kind in ("integer", "number"):
        above = schema.get("exclusiveMinimum")
        return schema.get("minimum", 0 if above is None else above + 1)
    if kind == "string" and schema.get("format") in _FORMATS:
        return _FORMATS[schema["format"]]
    if kind == "string":
        return "demo".ljust(schema.get("minLength", 0), ".")[: schema.get("maxLength")]
    return _SIMPLE.get(kind)
