"""The plan's windows as a person reads them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .terminal import plain

NEARLY = 80
"""Percent from which a window is shown as nearly used up."""


def show_windows(console: Console, windows: Mapping[str, Any]) -> None:
    """Print how much of each is used and when it resets, and where that leads at this pace.

    ``windows``: as ``/v1/usage`` tells them.
    """
    console.print(_table(windows))
    for name, window in windows.items():
        if window["projection"] is not None and not window["closed"]:
            console.print(_outlook(_words(name), window["projection"]))


def _table(windows: Mapping[str, Any]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="quiet")
    for title in ("Window", "Used", "", "Resets in", "Reserve"):
        table.add_column(title, justify="right" if title == "Used" else "left", no_wrap=True)
    for name, window in windows.items():
        used = window["used"]
        closed = window["closed"]
        style = "bad" if closed else "warning" if (used or 0) >= NEARLY else "good"
        percent = "?" if used is None else f"{used:g} %"
        bar = "█" * round((100 if used is None else min(used, 100)) / 5)
        table.add_row(
            _words(name),
            Text("used up" if closed else percent, style),
            Text(f"{bar:<20}", style),
            _span(window["resets_at"] - time.time()),
            f"{window['reserve']:g} %" if window["reserve"] else "",
        )
    return table


def _outlook(name: Text, projection: Mapping[str, Any]) -> Text:
    based_on, full_at = projection["based_on"], projection["full_at"]
    if full_at is None:
        leads = Text(f"{projection['percent_at_reset']:.0f} % at its reset", "good")
    else:
        leads = Text(f"full {moment(full_at)}", "warning")
    minutes = based_on["minutes"]
    span = f"{minutes} min" if minutes < 120 else f"{minutes / 60:.0f} h"
    basis = f" at this pace, from {based_on['reports']} reports over {span}"
    return Text.assemble(name, ": ", leads, (basis, "quiet"))


def _words(name: str) -> Text:
    return Text(plain(name.replace("_", " ")))


def moment(when: float) -> str:
    """``at 16:40``; with the date if it is not today. ``when``: epoch seconds."""
    then = datetime.fromtimestamp(when)
    today = then.date() == datetime.now().date()
    return f"at {then:%H:%M}" if today else f"on {then:%a} {then.day} {then:%b} at {then:%H:%M}"


def _span(seconds: float) -> str:
    minutes = max(0, round(seconds / 60))
    days, hours = minutes // 1440, minutes // 60 % 24
    return f"{days} d {hours} h" if days else f"{hours} h {minutes % 60:02} min"
