"""Changes single values of a text and leaves every other character where it is.

Libraries that write a whole file anew keep its comments at best: they indent lists anew, change
quotes, and put what follows a list's last comment behind it. So values are found by their place in
the text, and only the lines in between are written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from attrs import field, frozen

from .change import Change, Item, Path, Step, names, nested, unfit


@frozen
class Node:
    """A value and where it stands: characters ``start`` to ``end``, from ``outer`` if its key is
    counted in. ``children``: by key, or by number in a list; ``None`` for a scalar."""

    start: int
    end: int
    outer: int
    plain: Callable[[], Any] = field(repr=False)
    """What it holds, as plain values."""
    children: dict[str, Node] | list[Node] | None = None
    flow: bool = False
    """In YAML: whether it stands in brackets."""

    @property
    def members(self) -> list[Node]:
        """The children in their order."""
        children = self.children or ()
        return list(children.values() if isinstance(children, dict) else children)


class Syntax(Protocol):
    """One format."""

    def parse(self, text: str) -> Node | None:
        """The root; ``None`` if there is nothing but space and comments."""

    def begin(self, text: str, value: Any) -> str:
        """``text``, which holds nothing, with ``value`` in it."""

    def insert(self, text: str, node: Node, step: Step, value: Any) -> str:
        """``text`` with ``value`` as the last child of ``node``."""

    def replace(self, text: str, node: Node, value: Any) -> str:
        """``text`` with ``value`` instead of ``node``."""


def changed(text: str, changes: Sequence[Change], syntax: Syntax) -> str:
    """``text`` with the changes made.

    :raises Unfit: where a path leads through something else.
    """
    for change in changes:
        text = _put(text, change.path, change.value, syntax)
    return text


def _put(text: str, path: Path, value: Any, syntax: Syntax) -> str:
    node = syntax.parse(text)
    if node is None:
        return syntax.begin(text, nested(path, value))
    for depth, step in enumerate(path):
        if node.children is None and node.plain() is None:
            return syntax.replace(text, node, nested(path[depth:], value))
        child = _child(node, step, path[:depth])
        if child is None:
            return syntax.insert(text, node, step, nested(path[depth + 1 :], value))
        node = child
    if isinstance(value, dict) and isinstance(node.children, dict):
        for key, one in value.items():
            text = _put(text, (*path, key), one, syntax)
        return text
    return text if node.plain() == value else syntax.replace(text, node, value)


def _child(node: Node, step: Step, above: Path) -> Node | None:
    if isinstance(step, Item):
        if not isinstance(node.children, list):
            raise unfit(above, "a list")
        return next((child for child in node.children if names(child.plain(), step)), None)
    if not isinstance(node.children, dict):
        raise unfit(above, "a mapping")
    return node.children.get(step)


def margin(text: str, at: int) -> str:
    """The space that begins the line of ``at``."""
    line = text[text.rfind("\n", 0, at) + 1 : at]
    return line[: len(line) - len(line.lstrip())]
