"""What the CLI changes silently, and how that is avoided or undone.

It normalises the texts of a tool's definition (NFKC, without invisible characters), and turns
integers into doubles, in definitions and in the arguments of calls. All of this is measured: see
``docs/cli-protocol.rst``.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from claudeproxy.messages import COMBINERS, Block, Text, ToolUse

EXACT = 2**53
"""Larger integers lose digits in the CLI."""

NOTHING = "(no content)"
"""The CLI leaves out a message of the assistant whose only text is this."""

_INVISIBLE = frozenset({"Cf", "Co", "Cn"})


def normal(text: str) -> str:
    """``text`` as it arrives upstream when it is part of a tool's definition."""
    if text.isascii():
        return text
    kept = unicodedata.normalize("NFKC", text)
    return "".join(char for char in kept if unicodedata.category(char) not in _INVISIBLE)


def texts_change(value: Any) -> bool:
    """Whether any text within ``value``, part of a tool's definition, is changed on its way."""
    return any(isinstance(one, str) and normal(one) != one for one in _scalars(value))


def integers_change(value: Any) -> bool:
    """Whether any integer within ``value`` is changed on its way."""
    return any(_inexact(one) for one in _scalars(value))


def digits(value: Any) -> Any:
    """``value`` with the integers that would lose digits written as strings."""
    if isinstance(value, Mapping):
        return {name: digits(part) for name, part in value.items()}
    if isinstance(value, list):
        return [digits(part) for part in value]
    return str(value) if _inexact(value) else value


def held_as_said(answer: Iterable[Block]) -> bool:
    """Whether a process keeps the answer that it gave in its conversation, word for word."""
    blocks = tuple(answer)
    texts = [block for block in blocks if isinstance(block, Text)]
    calls = [block for block in blocks if isinstance(block, ToolUse)]
    if not calls and "".join(block.text for block in texts).strip() == NOTHING:
        return False
    return not any(integers_change(block.input) for block in calls)


def _inexact(value: Any) -> bool:
    return isinstance(value, int) and abs(value) > EXACT and _as_double(value) != value


def _as_double(value: int) -> int | None:
    """``value`` as a double; ``None`` if it is too large for one, which becomes ``null`` in
    JSON."""
    try:
        return int(float(value))
    except OverflowError:
        return None


def _scalars(value: Any) -> Iterator[Any]:
    """All scalars within ``value``, and all names of its objects."""
    if isinstance(value, Mapping):
        yield from value
        for part in value.values():
            yield from _scalars(part)
    elif isinstance(value, list):
        for part in value:
            yield from _scalars(part)
    else:
        yield value


# -- the arguments of a call --


def needs_mapping(schema: Mapping[str, Any]) -> bool:
    """Whether the model sees other values or property names than the client's."""
    return any(map(_told_otherwise, _everywhere(schema)))


def _told_otherwise(schema: Mapping[str, Any]) -> bool:
    named = schema.get("properties")
    names = list(named) if isinstance(named, Mapping) else []
    return any(_arriving(value) != value for value in (*_values(schema), *names))


def restored(arguments: Any, schema: Mapping[str, Any]) -> Any:
    """``arguments`` as the model wrote them, with the client's own values and names."""
    return _walk(arguments, [schema], schema, back=True)


def told(arguments: Any, schema: Mapping[str, Any]) -> Any:
    """``arguments`` of a call in the history, with the values and names that the model sees."""
    return _walk(arguments, [schema], schema, back=False)


def _walk(value: Any, schemas: Iterable[Any], root: Mapping[str, Any], *, back: bool) -> Any:
    bound = list({id(one): one for one in _applying(schemas, root, set())}.values())
    if isinstance(value, Mapping):
        out = {}
        for name, part in value.items():
            properties = [s["properties"] for s in bound if _is_object(s.get("properties"))]
            own = _match(name, [key for named in properties for key in named], back)
            parts = [named[key] for named in properties for key in named if key in (name, own)]
            out[own] = _walk(part, parts, root, back=back)
        return out
    if isinstance(value, list):
        items = [s["items"] for s in bound if "items" in s]
        return [_walk(part, [*_placed(bound, i), *items], root, back=back)
                for i, part in enumerate(value)]  # fmt: skip
    return _match(value, [one for s in bound for one in _values(s)], back)


def _match(value: Any, known: list[Any], back: bool) -> Any:
    """The counterpart of ``value`` if it has one among those ``known``, or else ``value``."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return value
    if not back:
        return _arriving(value) if value in known and isinstance(value, str) else value
    if value in known:
        return value
    return next((one for one in known if _same(one, value)), value)


def _same(known: Any, value: Any) -> bool:
    return type(known) is type(value) and _arriving(known) == _arriving(value)


def _arriving(value: Any) -> Any:
    if isinstance(value, str):
        return normal(value)
    return _as_double(value) if _inexact(value) else value


def _values(schema: Mapping[str, Any]) -> list[Any]:
    listed = schema.get("enum")
    values = [*(listed if isinstance(listed, list) else ()), schema.get("const")]
    return [value for value in values if isinstance(value, (str, int))]


def _placed(schemas: Iterable[Mapping[str, Any]], index: int) -> Iterator[Any]:
    for schema in schemas:
        placed = schema.get("prefixItems") or ()
        if index < len(placed):
            yield placed[index]


def _applying(
    schemas: Iterable[Any], root: Mapping[str, Any], seen: set[str]
) -> Iterator[Mapping[str, Any]]:
    """``schemas`` and all that apply to the same value: their branches and references."""
    for schema in schemas:
        if not isinstance(schema, Mapping):
            continue
        yield schema
        for name in COMBINERS:
            yield from _applying(schema.get(name) or (), root, seen)
        reference = schema.get("$ref")
        if isinstance(reference, str) and reference.startswith("#") and reference not in seen:
            seen.add(reference)
            yield from _applying([_target(root, reference)], root, seen)


def _target(root: Any, reference: str) -> Any:
    for step in reference.lstrip("#/").split("/"):
        root = root.get(step) if step and isinstance(root, Mapping) else root
    return root


def _everywhere(schema: Any) -> Iterator[Mapping[str, Any]]:
    """Every object within ``schema``: all of its schemas, and some objects that are not schemas."""
    if isinstance(schema, Mapping):
        yield schema
    inner: Iterable[Any] = schema.values() if isinstance(schema, Mapping) else schema
    for part in inner:
        if isinstance(part, (Mapping, list)):
            yield from _everywhere(part)


def _is_object(value: Any) -> bool:
    return isinstance(value, Mapping)
