"""The settings as they are, and how each is changed."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen
from twisted.web.template import Tag, tags

from . import words
from .parts import Column, note, quiet, section, table

_COLUMNS = (
    Column("Option"), Column("Value"), Column("Default", extra=True), Column("Meaning", extra=True),
)  # fmt: skip


@frozen
class Setting:
    """``name``: as on the command line, without the dashes; ``value`` and ``default``: as one
    would write them; ``is_set``: it is not the default."""

    name: str
    value: str
    default: str
    help: str
    is_set: bool


def settings(rows: Sequence[Setting]) -> Tag:
    """The section."""
    cells = [
        (
            [
                tags.code(f"--{row.name}"),
                words.text(row.value),
                quiet(words.text(row.default)),
                quiet(row.help),
            ],
            "set" if row.is_set else "",
        )
        for row in sorted(rows, key=lambda row: not row.is_set)
    ]
    number = sum(row.is_set for row in rows)
    return section(
        "settings",
        "Settings",
        note(
            "Nothing is changed on this page. An option is set on the command line (",
            tags.code("--max-body 1000000"), "), by a variable (",
            tags.code("CLAUDEMAX_MAX_BODY=1000000"), ") or by a line of ",
            tags.code("config.toml"), " (", tags.code("max-body = 1000000"), "); ",
            tags.code("claudemax status"), " tells where that file is, and ",
            tags.code("claudemax restart"), " makes a service read it.",
        ),
        tags.details(
            tags.summary(f"All {len(rows)} options, {number} of them set"),
            table("Options, those that are set first", _COLUMNS, cells),
            id="options",
        ),
        wide=True,
    )  # fmt: skip
