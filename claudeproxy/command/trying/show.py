"""Shows its user what a trial came to, messages of errors and all."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from ..terminal import console
from . import report
from .trial import Outcome, Trial

MARKS = {True: ("✓", "good"), False: ("✗", "bad"), None: ("-", "quiet")}


def show(trial: Trial) -> None:
    """Print the table of what held, the windows, and what it took."""
    shown = console()
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="quiet")
    table.add_column("")
    table.add_column("Question", overflow="fold")
    for title in ("Seconds", "In", "Cached", "Out"):
        table.add_column(title, justify="right")
    for one in trial.outcomes:
        mark, style = MARKS[one.holds]
        asked = one.question.requests and (one.tokens.read or one.holds is not None)
        numbers = (one.tokens.read, one.tokens.cached, one.tokens.written)
        table.add_row(
            Text(mark, style),
            _told(one, style),
            f"{one.seconds:.1f}" if asked else "",
            *(f"{number:,}" if asked else "" for number in numbers),
        )
    shown.print(table)
    _windows(trial)
    tokens = trial.tokens
    shown.print(
        f"\n{trial.requests} requests in {trial.seconds:.0f} s: {tokens.read:,} tokens in, of which"
        f" {tokens.cached:,} cached, and {tokens.written:,} out.",
        style="quiet",
    )
    amiss = [one.question.name for one in trial.outcomes if one.holds is False]
    if trial.stopped is not None:
        shown.print(Text(f"Stopped: {trial.stopped}.", "bad"))
    if amiss:
        shown.print(Text(f"No: {', '.join(amiss)}.", "bad"))
        shown.print(Text("`claudemax try --report FILE` writes what an issue needs.", "quiet"))
    if trial.holds:
        shown.print(Text("All of it holds.", "good"))


def _told(one: Outcome, style: str) -> Text:
    """The question, and what was seen where the answer is no."""
    told = Text(one.question.text, "" if one.holds else style)
    if one.refused is not None:
        error = report.seen(one.refused)
        words = ", ".join(str(error[name]) for name in ("type", "code") if error[name])
        told.append(f"\n  answered {error['status']} {words}: {one.refused.message}", "quiet")
    elif one.why:
        told.append(f"\n  {one.why}", "quiet")
    return told


def _windows(trial: Trial) -> None:
    before, after = trial.before["windows"], trial.after["windows"]
    if not {**before, **after}:
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="quiet")
    for title in ("Window", "Before", "After"):
        table.add_column(title, justify="left" if title == "Window" else "right")
    for name in {**before, **after}:
        used = [report.percent(told.get(name, {}).get("used")) for told in (before, after)]
        table.add_row(name.replace("_", " "), *used)
    console().print("\n", table, sep="", end="")
