"""JSON schemas as the Messages API accepts them for a tool: draft 2020-12, an object at the root.

Keywords of older drafts are translated, those that say nothing (``null``) are left out, and
anything else that is wrong is refused with its path. For the newest CLI leaves out a tool whose
schema is broken, and every CLI leaves out *all* tools if one is broken at its root.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ._failure import FailureError

NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
"""Keywords that hold schemas by name."""

LISTED = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
"""Keywords that hold a list of schemas."""

SINGLE = frozenset(
    "items additionalProperties contains propertyNames not if then else unevaluatedItems "
    "unevaluatedProperties contentSchema".split()
)
"""Keywords that hold one schema."""

COMBINERS = ("anyOf", "oneOf", "allOf")

TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")

_ANY_VALUE = frozenset({"const", "default"})
_PROPERTY = re.compile(r"[a-zA-Z0-9_.-]{1,64}")


def property_fits(name: str) -> bool:
    """Whether the API accepts ``name`` for a property at the root of a tool's schema."""
    return _PROPERTY.fullmatch(name) is not None and name != "__proto__"


def mapped(schema: Mapping[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
    """``schema`` with ``change`` applied to each schema directly within it."""
    out = dict(schema)
    for name, value in schema.items():
        if name in NAMED and isinstance(value, Mapping):
            out[name] = {key: change(part) for key, part in value.items()}
        elif name in LISTED and isinstance(value, list):
            out[name] = [change(part) for part in value]
        elif name in SINGLE:
            out[name] = change(value)
    return out


def subschemas(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The schemas directly within ``schema``, as far as they are objects."""
    found: list[Any] = []
    mapped(schema, found.append)
    return (part for part in found if isinstance(part, Mapping))


def tool_schema(schema: Mapping[str, Any], path: str) -> dict[str, Any]:
    """``schema`` in a form that can be sent; ``path`` is where it stands in the body.

    :raises FailureError: 400 with the path of a keyword or property that cannot be sent.
    """
    sent: dict[str, Any] = _sent(schema, path, root=True)
    return sent


def lenient_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """``schema`` without what :func:`tool_schema` would refuse, except for the names of properties
    at the root. It is for an answer that is validated against the whole schema afterwards."""
    sent: dict[str, Any] = _sent(schema, None, root=False)
    return sent


def _sent(schema: Any, path: str | None, *, root: bool) -> Any:
    if not isinstance(schema, Mapping):
        if isinstance(schema, bool) or path is None:
            return schema if isinstance(schema, bool) else {}
        raise FailureError.invalid(f"{path}: must be a schema", path)
    out: dict[str, Any] = {}
    for name, value in _modern(schema).items():
        where = None if path is None else f"{path}.{name}"
        wrong = _wrong(name, value)
        if wrong is None:
            out[name] = _within(name, value, where, root)
        elif where is not None:
            raise FailureError.invalid(f"{where}: {wrong}", where)
    return out


def _within(name: str, value: Any, path: str | None, root: bool) -> Any:
    if name in NAMED:
        out = {}
        for key, part in value.items():
            where = None if path is None else f"{path}.{key}"
            if name == "properties" and (key == "__proto__" or (root and not property_fits(key))):
                if where is None:
                    continue
                raise FailureError.invalid(
                    f"{where}: the Messages API accepts no property of this name: it must be 1 to "
                    "64 letters, digits, '_', '-' or '.'",
                    where,
                )
            out[key] = _sent(part, where, root=False)
        return out
    if name in LISTED:
        branch = root and name in COMBINERS  # whose properties become the root's
        return [
            _sent(part, None if path is None else f"{path}[{i}]", root=branch)
            for i, part in enumerate(value)
        ]
    return _sent(value, path, root=False) if name in SINGLE else value


def _modern(schema: Mapping[str, Any]) -> dict[str, Any]:
    """``schema`` translated to draft 2020-12, without keywords that say nothing."""
    out = {n: v for n, v in schema.items() if v is not None or n in _ANY_VALUE}
    if out.get("properties") == []:
        out["properties"] = {}  # as PHP writes an empty object
    if isinstance(out.get("required"), bool):
        del out["required"]
    if isinstance(out.get("items"), list):
        items = out.pop("items")
        if items:
            out.setdefault("prefixItems", items)
        if "additionalItems" in out:
            out["items"] = out.pop("additionalItems")
    for bound in ("minimum", "maximum"):
        strict = f"exclusive{bound.title()}"
        if isinstance(out.get(strict), bool) and out.pop(strict) and bound in out:
            out[strict] = out.pop(bound)
    return out


_Check = tuple[Callable[[Any], bool], str]


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _names(value: Any) -> bool:
    return (
        isinstance(value, list)
        and all(isinstance(one, str) for one in value)
        and len(set(value)) == len(value)
    )


def _types(value: Any) -> bool:
    if isinstance(value, str):
        return value in TYPES
    return _names(value) and bool(value) and all(one in TYPES for one in value)


_STRING: _Check = (lambda value: isinstance(value, str), "must be a string")
_FLAG: _Check = (lambda value: isinstance(value, bool), "must be true or false")
_LIST: _Check = (lambda value: isinstance(value, list), "must be a list")
_NUMBER: _Check = (_number, "must be a number")
_COUNT: _Check = (
    lambda value: _number(value) and value >= 0 and value == int(value),
    "must be an integer of at least 0",
)
_CHECKS: Mapping[str, _Check] = {
    "type": (_types, f"must be one or several of {', '.join(TYPES)}"),
    "enum": _LIST,
    "examples": _LIST,
    "required": (_names, "must be a list of different names"),
    "dependentRequired": (
        lambda value: isinstance(value, Mapping) and all(map(_names, value.values())),
        "must hold lists of names",
    ),
    "multipleOf": (lambda value: _number(value) and value > 0, "must be a number above 0"),
    **dict.fromkeys("title description $ref $comment pattern format".split(), _STRING),
    **dict.fromkeys("uniqueItems deprecated readOnly writeOnly".split(), _FLAG),
    **dict.fromkeys("minimum maximum exclusiveMinimum exclusiveMaximum".split(), _NUMBER),
    **dict.fromkeys(
        "minLength maxLength minItems maxItems minProperties maxProperties minContains "
        "maxContains".split(),
        _COUNT,
    ),
    **dict.fromkeys(NAMED, (lambda value: isinstance(value, Mapping), "must be an object")),
    **dict.fromkeys(
        LISTED, (lambda value: isinstance(value, list) and bool(value), "must be a list of schemas")
    ),
}


def _wrong(name: str, value: Any) -> str | None:
    """What is wrong with the keyword ``name``; schemas within it are not checked."""
    check = _CHECKS.get(name)
    return None if check is None or check[0](value) else check[1]
