"""YAML, read by ``PyYAML``, whose nodes know where they stand in the text.

``ruamel.yaml`` would write the whole file anew: lists indented its way, brackets respaced, and an
entry appended behind the comment that introduces the next section.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import yaml

from . import tree
from .change import UNSAFE, Change, Item, Step
from .tree import Node, margin


def load(text: str) -> Any:
    """The plain value; ``None`` of an empty text.

    :raises ValueError: when it is not one document of YAML.
    """
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        said = " ".join(str(getattr(error, "problem", error)).split())
        raise ValueError(where + said) from None
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def changed(text: str, changes: Sequence[Change]) -> str:
    """``text`` with the changes made.

    :raises Unfit: where a path leads through something else.
    :raises ValueError: when it is written in a way (anchors, ``? key``) that cannot be changed.
    """
    try:
        return tree.changed(text, changes, _YAML())
    except yaml.YAMLError:  # of what has been changed so far
        raise ValueError(UNSAFE) from None


class _YAML:
    def parse(self, text: str) -> Node | None:
        root = yaml.compose(text, yaml.SafeLoader)
        return None if root is None else _node(root)

    def begin(self, text: str, value: Any) -> str:
        gap = "\n" if text and not text.endswith("\n") else ""
        return text + gap + _block(value, "") + "\n"

    def insert(self, text: str, node: Node, step: Step, value: Any) -> str:
        wrapped = [value] if isinstance(step, Item) else {step: value}
        members = node.members
        if not members:
            return self.replace(text, node, wrapped)
        if node.flow:
            end = members[-1].end
            return f"{text[:end]}, {json.dumps(wrapped)[1:-1]}{text[end:]}"
        first = node.start if isinstance(step, Item) else members[0].outer
        pad = " " * (first - text.rfind("\n", 0, first) - 1)
        return _below(text, node.end, _block(wrapped, pad))

    def replace(self, text: str, node: Node, value: Any) -> str:
        if not isinstance(value, (dict, list)):
            gap = " " if node.start == node.end else ""
            return text[: node.start] + gap + _scalar(value) + text[node.end :]
        if node.children and not node.flow:
            pad = " " * (node.start - text.rfind("\n", 0, node.start) - 1)
            return text[: node.start] + _block(value, pad)[len(pad) :] + text[node.end :]
        if node.children:
            return text[: node.start] + json.dumps(value) + text[node.end :]
        # Empty, or a scalar: its block goes below its key, which may have a comment.
        head = text[: node.start].rstrip(" ")
        if not head or head.endswith("\n"):
            return head + _block(value, "") + text[node.end :]
        pad = margin(text, node.outer) + "  "
        return _below(head + text[node.end :], len(head), _block(value, pad))


def _below(text: str, at: int, lines: str) -> str:
    """``text`` with ``lines`` below the line of ``at``."""
    end = text.find("\n", at)
    return f"{text}\n{lines}\n" if end < 0 else f"{text[:end]}\n{lines}{text[end:]}"


def _scalar(value: Any) -> str:
    """In one line; a dumped scalar may be followed by the end of its document."""
    return yaml.safe_dump(value, width=1 << 30, allow_unicode=True).split("\n")[0]


class _Dumper(yaml.SafeDumper):
    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """Lists within mappings are indented, as the clients' own examples have them."""
        super().increase_indent(flow, False)


def _block(value: Any, pad: str) -> str:
    text = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1 << 30)
    return "\n".join(pad + line for line in text.rstrip("\n").split("\n"))


def _node(node: yaml.Node, outer: int | None = None) -> Node:
    start, end = node.start_mark.index, node.end_mark.index
    outer = start if outer is None else outer
    children: dict[str, Node] | list[Node] | None = None
    if isinstance(node, yaml.MappingNode):
        children = {str(key.value): _node(one, key.start_mark.index) for key, one in node.value}
    elif isinstance(node, yaml.SequenceNode):
        children = [_node(one) for one in node.value]
    elif isinstance(node, yaml.ScalarNode) and node.style in ("|", ">"):
        end -= len(node.value) - len(node.value.rstrip("\n"))
    flow = bool(getattr(node, "flow_style", False))  # a scalar has none
    if children and not flow:
        members = list(children.values() if isinstance(children, dict) else children)
        end = max(member.end for member in members)
    return Node(start, end, outer, lambda: _plain(node), children, flow)


def _plain(node: yaml.Node) -> Any:
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_document(node)
    finally:
        loader.dispose()
