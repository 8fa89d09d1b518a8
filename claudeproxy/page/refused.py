"""Requests that were refused: what their client may have got wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.web.template import Tag, tags

from . import words
from .parts import Cell, Column, badge, note, quiet, section, table
from .snapshot import Snapshot

_COLUMNS = (Column("When"), Column("What and why"), Column("Client", extra=True))


def refused(seen: Snapshot) -> Tag:
    """The section of the latest of them."""
    rows = [(_row(one, seen.now), "") for one in seen.refused]
    content = table("The latest requests that were refused", _COLUMNS, rows) if rows else note(
        "No request has been refused since the start."
    )  # fmt: skip
    return section("refused", "Refused requests", content, wide=True)


def _row(one: Mapping[str, Any], now: float) -> list[Cell]:
    at_fault = [one["code"] or one["kind"].replace("_", " "), one["param"]]
    what: list[Cell] = [badge(str(one["status"]), "bad")]
    what += [[" ", words.text(word)] for word in at_fault if word]
    asked = quiet(words.text(f"{one['method']} {one['path']}"))
    fields = ", ".join(one["fields"] or ())
    return [
        words.ago(one["time"], now),
        [
            tags.div(what),
            tags.div(words.text(one["message"])) if one["message"] else "",
            tags.div(asked),
            tags.div(quiet("fields: ", words.text(fields))) if fields else "",
        ],
        words.name(one["key"] or one["client"]),
    ]
