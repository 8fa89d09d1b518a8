"""The options given to ``claudemax install``, as lines of ``config.toml``.

Each such line is marked, so that ``claudemax uninstall`` takes it out again. A user's own line is
never changed.
"""

from __future__ import annotations

import re

import tomlkit
from attrs import frozen

from claudeproxy.options import table

from ..connect import toml_text

MARK = "# by claudemax install"
"""The comment behind each line."""


@frozen
class Conflict(Exception):
    """The user's own line for the option ``name`` says something else."""

    name: str


def with_options(text: str, options: dict[str, str | list[str]]) -> str:
    """``text`` of the file with the options in it, named and valued as on a command line.

    :raises Conflict: when one of them is there already, with another value.
    :raises ValueError: when it is no TOML.
    """
    kinds = {field.replace("_", "-"): option for field, option in table()}
    new = {name: _value(kinds[name].is_flag, given) for name, given in options.items()}
    lines = {name: f"{name} = {tomlkit.item(v).as_string()}  {MARK}\n" for name, v in new.items()}
    text = "".join(
        lines.get(line.partition("=")[0].strip(), line) if _is_marked(line) else line
        for line in text.splitlines(keepends=True)
    )
    there = toml_text.load(text)
    for name, value in new.items():
        if name in there and there[name] != value:
            raise Conflict(name)
    missing = "".join(line for name, line in lines.items() if name not in there)
    return missing + text  # above all tables, and taken out again without a trace


def without_options(text: str) -> str:
    """``text`` without the marked lines."""
    return "".join(line for line in text.splitlines(keepends=True) if not _is_marked(line))


def _is_marked(line: str) -> bool:
    return line.rstrip().endswith(f"  {MARK}")


def _value(flag: bool, given: str | list[str]) -> bool | int | str | list[str]:
    if isinstance(given, list) and len(given) > 1:
        return given
    given = given[0] if isinstance(given, list) else given
    if flag:
        return True
    return int(given) if re.fullmatch(r"[1-9][0-9]*|0", given) else given
