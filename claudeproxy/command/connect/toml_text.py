"""TOML, by ``tomlkit``: it keeps every byte that it is not told to change, and Poetry lives on it.

Only where new keys and tables go is decided here: it puts them behind the comment of what follows.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from .change import Change, Path, nested, unfit

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def load(text: str) -> Any:
    """The plain value.

    :raises ValueError: when it is not TOML.
    """
    return tomllib.loads(text)


def changed(text: str, changes: Sequence[Change]) -> str:
    """``text`` with the changes made. Each is a mapping: the values of one table.

    :raises Unfit: where a path leads through something else.
    :raises ValueError: when it is no TOML that can be changed.
    """
    new: list[Change] = []
    try:
        document = tomlkit.parse(text)
        for change in changes:
            table = _table(document, change.path)
            if table is None:
                new.append(change)
                continue
            missing = {key: value for key, value in change.value.items() if key not in table}
            for key, value in change.value.items():
                if key in table and table[key] != value:
                    table[key] = value
            if change.path:
                table.update(missing)
            elif missing:
                new.append(Change((), missing))
        text = tomlkit.dumps(document)
    except TOMLKitError as error:
        raise ValueError(str(error)) from None
    for change in new:
        block = tomlkit.dumps(nested(change.path, change.value))
        text = _with_table(text, block) if change.path else _with_keys(text, block)
    return text


def _with_table(text: str, block: str) -> str:
    return f"{text.rstrip()}\n\n{block}" if text.strip() else text + block


def _with_keys(text: str, lines: str) -> str:
    """Behind the last key before the first table, else before that table and its comment."""
    headers = (found.start() for found in re.finditer(r"^[ \t]*\[", text, re.MULTILINE))
    first = next((at for at in headers if _whole(text[:at])), len(text))
    above = text[:first].splitlines(keepends=True)
    keys = bool(load(text[:first]))
    while first < len(text) and above and (above[-1].lstrip()[:1] == "#" or keys):
        if above[-1].strip() and above[-1].lstrip()[0] != "#":
            break
        above.pop()
    head = "".join(above)
    rest = text[len(head) :]
    head += "\n" if head and not head.endswith("\n") else ""
    return head + lines + ("\n" if rest.strip() and not rest.startswith("\n") else "") + rest


def _whole(text: str) -> bool:
    """Whether it is TOML so far, and not the inside of a value."""
    try:
        load(text)
    except ValueError:
        return False
    return True


def _table(document: MutableMapping[str, Any], path: Path) -> MutableMapping[str, Any] | None:
    table: Any = document
    for depth, step in enumerate(path):
        if not isinstance(table, Mapping):
            raise unfit(path[:depth], "a table")
        if step not in table:
            return None
        table = table[step]
    if not isinstance(table, MutableMapping):
        raise unfit(path, "a table")
    return table
