"""What is to be set in a client's settings, and what they hold afterwards, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen


@frozen
class Item:
    """The entry of a list whose ``field`` is ``value``; appended where there is none."""

    field: str
    value: str


Step = str | Item
Path = tuple[Step, ...]


@frozen
class Change:
    """A mapping at ``path`` is merged into what is there, key by key; all else takes its place."""

    path: Path
    value: Any


UNSAFE = "it is written in a way that cannot be changed safely; see --print"


class Unfit(Exception):
    """The settings are not of the shape that the client documents. The message says where."""


def merged(data: Any, changes: Sequence[Change]) -> Any:
    """``data`` with the changes made.

    :raises Unfit: where a path leads through something else.
    """
    for change in changes:
        data = _put(data, change.path, change.value, ())
    return data


def _put(data: Any, path: Path, value: Any, above: Path) -> Any:
    if not path:
        if isinstance(data, Mapping) and isinstance(value, Mapping):
            return {**data, **{k: _put(data.get(k), (), v, above) for k, v in value.items()}}
        return value
    step, rest = path[0], path[1:]
    if isinstance(step, Item):
        items = list(_holding(data, list, above))
        at = next((i for i, item in enumerate(items) if names(item, step)), len(items))
        items[at : at + 1] = [_put(items[at] if at < len(items) else {}, rest, value, above)]
        return items
    old = _holding(data, dict, above)
    return {**old, step: _put(old.get(step), rest, value, (*above, step))}


def _holding(data: Any, kind: type, above: Path) -> Any:
    if data is None:
        return kind()
    if not isinstance(data, kind):
        raise unfit(above, "a list" if kind is list else "a mapping")
    return data


def names(item: Any, step: Item) -> bool:
    """Whether ``item`` is the entry that ``step`` means."""
    return isinstance(item, Mapping) and item.get(step.field) == step.value


def nested(path: Path, value: Any) -> Any:
    """What stands at the end of ``path`` with all that leads there, where nothing is yet."""
    for step in reversed(path):
        value = [value] if isinstance(step, Item) else {step: value}
    return value


def unfit(path: Path, wanted: str) -> Unfit:
    """That what is at ``path`` is not what is ``wanted``."""
    where = ".".join(step for step in path if isinstance(step, str)) or "all of it"
    return Unfit(f"{where} is not {wanted}")
