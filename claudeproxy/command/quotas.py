"""What keys may still do, as a person reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .terminal import plain
from .windows import moment


def show_quotas(console: Console, keys: Sequence[Mapping[str, Any]]) -> None:
    """Print the quotas of those ``keys`` of ``/v1/usage`` that have any, and which have expired."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="quiet")
    for title in ("Key", "Quota", "Used", "Limit", "Resets"):
        table.add_column(title, justify="right" if title in ("Used", "Limit") else "left")
    for key in keys:
        name = Text(plain(key["name"]))
        if key["expired"]:
            table.add_row(name, Text(f"expired after {key['expires']}", "bad"))
        for quota in key["quotas"]:
            full, resets = quota["used"] >= quota["limit"], quota["resets_at"]
            unit = "{:g} %" if quota["quota"].startswith("share") else "{:,.0f}"
            table.add_row(
                name,
                plain(quota["quota"].replace("_", " ")),
                Text(unit.format(quota["used"]), "bad" if full else "good"),
                unit.format(quota["limit"]),
                "" if resets is None else moment(resets),
            )
    if table.rows:
        console.print()
        console.print(table)
