"""The requests that the daemon has refused, as a person reads them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .terminal import plain

Refused = Sequence[Mapping[str, Any]]
"""As ``/v1/debug/refused`` tells them, the newest first."""


def in_a_line(refused: Refused) -> str:
    """How many there were, and where to read more."""
    many = "1 request was" if len(refused) == 1 else f"{len(refused)} requests were"
    minutes = int((time.time() - refused[0]["time"]) / 60)
    ago = f"{minutes} min ago" if minutes < 120 else f"{minutes // 60} h ago"
    last = ago if minutes > 0 else "just now"
    return f"{many} refused, the last {last}: claudemax status --refused"


def show_refused(console: Console, refused: Refused) -> None:
    """Print one after another, the oldest first."""
    if not refused:
        console.print("No request was refused since the daemon started.")
    for one in reversed(refused):
        console.print(_about(one))


def _about(one: Mapping[str, Any]) -> Table:
    when = datetime.fromtimestamp(one["time"])
    style = "warning" if one["status"] < 500 else "bad"
    table = Table.grid(padding=(0, 1))
    table.add_column(style="quiet", no_wrap=True)
    table.add_column(overflow="fold")
    why = " ".join(filter(None, (one["kind"], one["code"])))
    asked, answered = f"{one['method']} {one['path']}  ", f"{one['status']} {why}"
    table.add_row(f"{when:%H:%M:%S}", Text.assemble(plain(asked), (plain(answered), style)))

    def row(name: str, said: str) -> None:
        table.add_row("", Text.assemble((f"{name} ", "quiet"), plain(said)))

    if one["param"] is not None:
        row("field", one["param"])
    if one["message"] is not None:
        row("because", one["message"])
    if one["fields"] is not None:
        row("body", f"{one['body_bytes']:,} bytes with {', '.join(one['fields']) or 'no field'}")
    elif one["body_bytes"]:
        row("body", f"{one['body_bytes']:,} bytes, not a JSON object")
    key = f", key {one['key']}" if one["key"] else ""
    row("from", (one["client"] or "a client that gives no name") + key)
    row("id", one["request_id"])
    return table
