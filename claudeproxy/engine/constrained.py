"""Schemas as the API's own constrained output accepts them (``output_config.format``).

The accepted keywords are documented at
platform.claude.com/docs/en/build-with-claude/structured-outputs. Any other keyword is either an
annotation, and left out, or makes the schema unfit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from claudeproxy.cli.altered import integers_change
from claudeproxy.messages import NAMED, mapped, subschemas

_TAKEN = frozenset(
    "type title description default enum const properties required additionalProperties items "
    "minItems anyOf allOf $ref $defs definitions pattern format".split()
)

_BINDING = frozenset(
    "minimum maximum exclusiveMinimum exclusiveMaximum multipleOf minLength maxLength maxItems "
    "uniqueItems minProperties maxProperties patternProperties propertyNames contains minContains "
    "maxContains if then else not prefixItems additionalItems unevaluatedItems "
    "unevaluatedProperties dependencies dependentRequired dependentSchemas $dynamicRef "
    "$recursiveRef".split()
)
"""Keywords that constrain an answer and are not accepted. All others are annotations."""

_FORMATS = frozenset("date-time time date duration email hostname uri ipv4 ipv6 uuid".split())
_SAFE = 2**53 - 1  # the bounds that zod gives to every integer
_UNTAKEN_PATTERN = re.compile(r"\(\?(?!:)|\\[bB1-9kpP]")


def closed(schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """``schema`` as constrained output accepts it; ``None`` if it does not.

    It requires all objects to be closed. It is safe to close an open one: what satisfies the closed
    schema satisfies the open one. ``anyOf`` in place of ``oneOf`` is less safe, but the answer is
    validated against the original schema afterwards. An integer that the CLI would change is not
    accepted either: in a tool's schema it is mapped back.
    """
    if _recursive(schema) or integers_change(schema):
        return None
    try:
        taken: dict[str, Any] = _closed(schema)
    except ValueError:
        return None
    return taken


def _closed(schema: Any) -> Any:
    if not isinstance(schema, Mapping):
        raise ValueError("a schema that is not an object")
    out = dict(schema)
    if "oneOf" in out:
        if "anyOf" in out:
            raise ValueError("two unions in one schema")
        out["anyOf"] = out.pop("oneOf")
    for bound, value in (("minimum", -_SAFE), ("maximum", _SAFE)):
        if out.get("type") == "integer" and out.get(bound) == value:
            del out[bound]
    if out.get("format") in _FORMATS:
        out.pop("pattern", None)  # it only spells out the format
    if _BINDING & out.keys() or not _fits(out):
        raise ValueError("a keyword that constrained output does not accept")
    out = {name: value for name, value in out.items() if name in _TAKEN}
    free = out.pop("additionalProperties", None) not in (None, False)
    out = mapped(out, _closed)
    if out.get("type") == "object" or "properties" in out:
        if free or not out.get("properties"):
            raise ValueError("an object whose properties are meant to be free")
        out["additionalProperties"] = False
    return out


def _fits(schema: Mapping[str, Any]) -> bool:
    """Whether the values of its keywords are accepted."""
    values = [*(schema.get("enum") or ()), schema.get("const")]
    parts = schema.get("allOf") or ()
    return (
        schema.get("minItems", 0) in (0, 1)
        and not any(isinstance(value, (dict, list)) for value in values)
        and not any(isinstance(part, Mapping) and "$ref" in part for part in parts)
        and schema.get("format", "date") in _FORMATS
        and not _UNTAKEN_PATTERN.search(schema.get("pattern", ""))
        and str(schema.get("$ref", "#")).startswith("#")
    )


def _recursive(schema: Mapping[str, Any]) -> bool:
    """Whether a reference within ``schema`` leads back to itself."""
    leads = {"#": frozenset(_references(schema, within=False))}
    for keyword in NAMED:
        named = schema.get(keyword)
        for name, part in named.items() if isinstance(named, Mapping) else ():
            leads[f"#/{keyword}/{name}"] = frozenset(_references(part, within=True))
    for start in leads:
        reached: set[str] = set()
        ahead = set(leads[start])
        while ahead:
            reference = ahead.pop()
            if reference == start or reference not in leads:
                return True  # a circle, or outside of what is searched
            if reference not in reached:
                reached.add(reference)
                ahead |= leads[reference]
    return False


def _references(schema: Any, *, within: bool) -> Iterable[str]:
    if not isinstance(schema, Mapping):
        return
    if isinstance(schema.get("$ref"), str):
        yield schema["$ref"]
    aside = () if within else ("$defs", "definitions")
    for part in subschemas({n: v for n, v in schema.items() if n not in aside}):
        yield from _references(part, within=True)
