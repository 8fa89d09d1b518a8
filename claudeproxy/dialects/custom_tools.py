"""OpenAI's custom tools, which take text instead of a JSON object.

The API has no such tools. A custom tool is sent as a tool with a single property, and what the
model writes into that is the input.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from claudeproxy.messages import Tool, parse_arguments

from .fields import Fields
from .shared import note, tool_name

INPUT = "input"
"""The property that holds the text."""

Custom = Mapping[str, Mapping[str, Any]]
"""The custom tools of a body by their names, each in the form that a response repeats."""


def add_custom_tool(
    tools: dict[str, Tool], entry: Fields, ignored: list[str], grammar: Fields | None
) -> dict[str, Any]:
    """Add a tool. Returns it in the form that a response repeats. ``grammar``: of its ``format``.
    It cannot be enforced here, so it is described to the model in words."""
    name = tool_name(tools, entry)
    own = entry.text("description", "")
    description, form = own, {"type": "text"}
    if grammar is not None:
        syntax = grammar.choice("syntax", ("lark", "regex"))
        definition = grammar.text("definition")
        note(ignored, "tools.format")
        description = f"{own}\n\nThe input must follow this grammar ({syntax}):\n{definition}"
        form = {"type": "grammar", "syntax": syntax, "definition": definition}
    text = {"type": "string", "description": "The input of the tool, as it is: plain text."}
    parameters = {
        "type": "object",
        "properties": {INPUT: text},
        "required": [INPUT],
        "additionalProperties": False,
    }
    tools[name] = Tool(name, description.strip(), parameters)
    return {"type": "custom", "name": name, "description": own or None, "format": form}


def grammar_of(entry: Fields, nested: bool = False) -> Fields | None:
    """The grammar of a tool; ``nested``: it is in an object of its own, as in chat completions."""
    if "format" not in entry:
        return None
    form = entry.object("format")
    if form.choice("type", ("text", "grammar")) == "text":
        return None
    return form.object("grammar") if nested else form


_OPENING = re.compile(r'\s*\{\s*"input"\s*:\s*"')
_OPENING_SIZE = 100
"""Characters. If the text has not begun by then, the arguments do not have the expected shape."""

_PAIR = r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_LETTERS = re.compile(
    rf"""(?: [^"\\]+
          | \\[^u]
          | {_PAIR}
          | \\u(?![dD][89abAB])[0-9a-fA-F]{{4}}
          # half of a pair, and what follows is not the other half
          | \\u[dD][89abAB][0-9a-fA-F]{{2}}(?=[^\\]|\\[^u]|\\u[^dD]|\\u[dD][^c-fC-F])
        )*""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(rf"{_PAIR}|\\u[0-9a-fA-F]{{4}}|\\.", re.DOTALL)
_CUT = re.compile(r"\\(?:u(?:[0-9a-fA-F]{0,4}|[0-9a-fA-F]{4}\\(?:u[0-9a-fA-F]{0,3})?))?")
"""What remains of a character when the arguments were split within it."""


class InputReader:
    """Reads the text from the arguments of a custom tool's call, which are split anywhere.

    Arguments that do not have the expected shape are themselves the text, at the end.
    """

    def __init__(self) -> None:
        self._written: list[str] = []
        self._size = 0
        self._rest = ""
        self._inside = False
        self._closed = False

    def feed(self, arguments: str) -> str:
        """The text in the next piece of the arguments."""
        if self._closed:
            return ""
        if self._inside:
            return self._read(self._rest + arguments)
        self._written.append(arguments)
        self._size += len(arguments)
        if self._size - len(arguments) > _OPENING_SIZE:
            return ""
        written = "".join(self._written)
        opening = _OPENING.match(written[: _OPENING_SIZE + 1])
        if opening is None:
            return ""
        self._inside = True
        return self._read(written[opening.end() :])

    def finish(self) -> str:
        """The rest of the text, once the arguments have ended."""
        if self._closed:
            return ""
        self._closed = True
        if self._inside:
            return "" if _CUT.fullmatch(self._rest) else self._rest
        written = "".join(self._written)
        found = parse_arguments(written)
        text = found.get(INPUT)
        return text if isinstance(text, str) else written if found else ""

    def _read(self, written: str) -> str:
        letters = _LETTERS.match(written)
        assert letters is not None  # it matches nothing at least
        self._rest = written[letters.end() :]
        self._closed = self._rest.startswith('"')
        return _ESCAPE.sub(_letter, letters.group())


def _letter(escape: re.Match[str]) -> str:
    try:
        return str(json.loads(f'"{escape.group()}"'))
    except ValueError:  # one that JSON does not know
        return escape.group()


def input_of(arguments: str) -> str:
    """The text of a call whose arguments are complete."""
    reader = InputReader()
    return reader.feed(arguments) + reader.finish()
