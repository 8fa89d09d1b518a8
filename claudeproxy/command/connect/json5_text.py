"""JSON5, and with it JSON and JSON with comments.

The ``json5`` package reads it: alone in its field it is widely used, without dependencies and
released this year. It keeps no comments, and the one package that does (``json-five``) has rested
since 2024; so where values stand is found here, in a text that ``json5`` has accepted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import json5

from . import tree
from .change import Change, Step
from .tree import Node, margin

_SPACE = re.compile(r"(?:\s|//[^\n\r\u2028\u2029]*|/\*.*?\*/)*", re.DOTALL)
_STRING = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'", re.DOTALL)
_ATOM = re.compile(r"[^\s,:{}\[\]/\"']+")
_SAME_LINE = re.compile(r"[ \t]*(?://[^\n]*|/\*[^\n]*?\*/[ \t]*(?=\n))?")


def load(text: str) -> Any:
    """The plain value; ``None`` of an empty text.

    :raises ValueError: when it is not JSON5.
    """
    try:
        return json5.loads(text) if text[_SPACE.match(text).end() :] else None  # type: ignore[union-attr]
    except ValueError as error:
        said = str(error).replace("\n", "\\n")  # where a string does not end on its line
        raise ValueError(re.sub(r"^<string>:(\d+) ", r"line \1: ", said)) from None
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def changed(text: str, changes: Sequence[Change]) -> str:
    """``text`` with the changes made.

    :raises Unfit: where a path leads through something else.
    """
    return tree.changed(text, changes, _JSON())


class _JSON:
    def parse(self, text: str) -> Node | None:
        at = _skip(text, 0)
        return _node(text, at, at) if at < len(text) else None

    def begin(self, text: str, value: Any) -> str:
        gap = "\n" if text and not text.endswith("\n") else ""
        return f"{text}{gap}{json.dumps(value, indent=2, ensure_ascii=False)}\n"

    def insert(self, text: str, node: Node, step: Step, value: Any) -> str:
        members, closing = node.members, margin(text, node.start)
        name = f"{json.dumps(step)}: " if isinstance(step, str) else ""
        if not members:
            pad = closing + _unit(text)
            inner = text[node.start + 1 : node.end - 1].rstrip()
            body = name + _dumped(value, text, pad)
            return f"{text[: node.start + 1]}{inner}\n{pad}{body}\n{closing}{text[node.end - 1 :]}"
        last = members[-1]
        at, comma = last.end, _skip(text, last.end)
        before, after = ",", ""
        if text[comma] == ",":
            at, before, after = comma + 1, "", ","
        one_line = "\n" not in text[node.start : last.outer]
        if one_line and not isinstance(value, (dict, list)):
            return f"{text[:at]}{before} {name}{json.dumps(value)}{after}{text[at:]}"
        pad = closing + _unit(text) if one_line else margin(text, members[0].outer)
        head, rest = text[:at] + before, text[at:]
        note = _SAME_LINE.match(rest)
        if note and note[0].strip():
            head, rest = head + note[0].rstrip(), rest[note.end() :]
        end = ""
        if "\n" not in rest[: _skip(rest, 0)]:
            end, rest = "\n" + closing, rest.lstrip()
        return f"{head}\n{pad}{name}{_dumped(value, text, pad)}{after}{end}{rest}"

    def replace(self, text: str, node: Node, value: Any) -> str:
        pad = margin(text, node.outer)
        return text[: node.start] + _dumped(value, text, pad) + text[node.end :]


def _dumped(value: Any, text: str, pad: str) -> str:
    lines = json.dumps(value, indent=_unit(text), ensure_ascii=False).split("\n")
    return ("\n" + pad).join(lines)


def _unit(text: str) -> str:
    """One step of indentation, as the file has it."""
    found = re.search(r"^([ \t]+)[\"'\w{\[]", text, re.MULTILINE)
    return found[1] if found else "  "


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found
    return found.end()


def _node(text: str, at: int, outer: int) -> Node:
    opening = text[at]
    if opening not in "{[":
        found = (_STRING if opening in "\"'" else _ATOM).match(text, at)
        assert found
        return Node(at, found.end(), outer, lambda: json5.loads(found[0]))
    pairs: dict[str, Node] = {}
    items: list[Node] = []
    place = _skip(text, at + 1)
    while text[place] not in "}]":
        begins = place
        if opening == "{":
            name = (_STRING if text[place] in "\"'" else _ATOM).match(text, place)
            assert name
            key = json5.loads(name[0]) if text[place] in "\"'" else name[0]
            place = _skip(text, _skip(text, name.end()) + 1)
            pairs[key] = child = _node(text, place, begins)
        else:
            child = _node(text, place, begins)
            items.append(child)
        place = _skip(text, child.end)
        if text[place] == ",":
            place = _skip(text, place + 1)
    end = place + 1
    children = pairs if opening == "{" else items
    return Node(at, end, outer, lambda: json5.loads(text[at:end]), children)
