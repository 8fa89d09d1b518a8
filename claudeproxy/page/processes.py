"""The CLI processes, and how much each holds."""

from __future__ import annotations

from twisted.web.template import Tag

from claudeproxy.engine.reports import ProcessReport

from . import words
from .parts import Cell, Column, badge, note, section, table
from .snapshot import Snapshot

_COLUMNS = (
    Column("Process"), Column("State"), Column("Holds"), Column("Model", extra=True),
    Column("Turns", True, extra=True), Column("Rest", True, extra=True),
    Column("Age", True, extra=True), Column("Memory", True),
)  # fmt: skip

_LOOKS = {"running": "good", "starting": "warning", "retiring": "warning", "ending": "warning"}

_MEANS = {
    "running": "serves a turn",
    "warm": "started up, fits any request",
    "kept": "holds a conversation, waits for its next turn",
    "parked": "waits for the results of the tools it has called",
    "settling": "between a turn and rest",
    "starting": "starts up",
    "retiring": "ends after its turn",
    "ending": "is told to end",
}


def processes(seen: Snapshot) -> Tag:
    """The section."""
    rows = [(_row(report), "") for report in seen.processes]
    memory = sum(report.memory for report in seen.processes)
    return section(
        "processes",
        "Processes",
        table("CLI processes and how much each holds", _COLUMNS, rows)
        if rows
        else note("No process runs."),
        note(
            f"{words.counted(seen.health['processes']['failed_starts'], 'start')} in a row failed: "
            "claudemax doctor tells why.",
            looks="bad",
        )
        if seen.health["processes"]["failed_starts"]
        else "",
        aside=f"{words.size(memory)} of memory" if rows else "",
    )


def _row(report: ProcessReport) -> list[Cell]:
    return [
        words.NOTHING if report.pid is None else str(report.pid),
        badge(report.state, _LOOKS.get(report.state, ""))(title=_MEANS[report.state]),
        _holds(report),
        words.name(report.model),
        words.count(report.turns),
        words.NOTHING if report.rest is None else words.span(report.rest),
        words.span(report.age),
        words.size(report.memory),
    ]


def _holds(report: ProcessReport) -> str:
    if not report.messages:
        return "nothing"
    held = words.counted(report.messages, "message")
    return held if report.characters is None else (
        f"{held}, {words.counted(report.characters, 'character')}"
    )  # fmt: skip
