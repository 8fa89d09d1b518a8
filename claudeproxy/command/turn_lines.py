"""The log for people: a line for each turn, on a terminal.

A log observer: nothing in the daemon prints.
"""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Any

from attrs import frozen
from rich.console import Console
from rich.text import Text
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent
from zope.interface import implementer

from .terminal import console

REQUESTS = "claudeproxy.web.access_log"
"""Whose events are requests."""

OURS = "claudeproxy."

HIDDEN = ("claudeproxy.cli.process.CLIProcess", "claudeproxy.web.site.LimitedSite")
"""Of ours, what is for the log of a service: single processes and sockets."""

MODEL_WIDTH = 26


SUBSCRIPTION, DEMO, NOT_LOGGED_IN, UNKNOWN = "subscription", "demo", "not logged in", "unknown"


@frozen
class Start:
    """``upstream``: one of the words above, or the URL of ``--upstream``; ``remedy``: the command
    that brings a login which is missing; ``keyed``: whether clients must send a key; ``record``:
    the directory in which every exchange is kept."""

    addresses: tuple[str, ...]
    claude: str
    version: str
    upstream: str
    remedy: str
    keyed: bool
    record: str | None = None


def observer() -> ILogObserver:
    """What twistd's ``--logger`` names."""
    return TurnLines(console(sys.stdout))


@implementer(ILogObserver)
class TurnLines:
    """Writes what a user wants to know, and of Twisted itself only what goes wrong."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __call__(self, event: LogEvent) -> None:
        level = event.get("log_level", LogLevel.info)
        namespace = event.get("log_namespace", "")
        if isinstance(event.get("start"), Start):
            self._console.print(banner_text(event["start"]))
        elif namespace == REQUESTS:
            self._console.print(request_line(event), soft_wrap=True)
        elif level >= LogLevel.warn or (namespace.startswith(OURS) and namespace not in HIDDEN):
            self._console.print(other_line(event, level), soft_wrap=True)


def banner_text(start: Start) -> Text:
    """What is served, how, and how it is stopped."""
    shown = Text()

    def row(name: str, value: str, style: str = "", note: str = "") -> None:
        shown.append(f"  {name:<10}", "quiet")
        shown.append(value, style)
        shown.append(f"  {note}\n" if note else "\n", "quiet")

    shown.append("\n  claudemax", "title")
    shown.append(" is listening\n\n")
    for address in start.addresses:
        is_url = address.startswith("http")
        row("API", f"{address}/v1" if is_url else address, "command")
    for address in [found for found in start.addresses if found.startswith("http")][:1]:
        row("Page", f"{address}/", "command", "what it does, in a browser")
    row("CLI", f"claude {start.version}", "", start.claude)
    if start.upstream == NOT_LOGGED_IN:
        row("Login", "NOT LOGGED IN", "bad")
        row("", start.remedy, "command", "in another terminal; this server notices it")
    elif start.upstream == DEMO:
        row("Upstream", "demo: no model, it repeats what is said", "warning")
    elif start.upstream == SUBSCRIPTION:
        row("Login", "your subscription", "good")
    elif start.upstream == UNKNOWN:
        row("Login", "not known yet: the CLI has not told", "warning")
    else:
        row("Upstream", start.upstream)
    if start.keyed:
        row("Key", "clients must send it", "good")
    else:
        row("Key", "none", "", "any will do; only this machine is let in")
    if start.record is not None:
        row("RECORDING", "every prompt and every answer is written to disk", "bad", start.record)
    row("Stop", "Ctrl-C")
    return shown


def request_line(event: LogEvent) -> Text:
    """Time, key, model, tokens, first token, seconds, outcome."""
    line = _time(event)
    if event.get("key"):
        line.append(f"{event['key']:<10} ")
    if event.get("model"):
        line.append(f"{event.get('answered_by') or event['model']:<{MODEL_WIDTH}} ")
        line.append(_tokens(event))
    else:
        line.append(f"{event['method']} {event['path']}  ", "quiet")
    line.append(f"{event['seconds']:6.2f} s  ")
    outcome, status = event["outcome"], event.get("status")
    style = "good" if outcome == "ok" else "warning" if (status or 0) < 500 else "bad"
    words = [outcome] if outcome == "ok" else [str(status or "-"), outcome]
    if event.get("code") and event["code"] != outcome:
        words.append(event["code"])
    line.append(" ".join(words), style)
    if event.get("cause"):
        line.append(f": {event['cause']}")
    return line


def _tokens(event: LogEvent) -> Text:
    said = Text()
    if event.get("output_tokens") is not None:
        said.append(f"{event['input_tokens']:>7,}", "title")
        said.append(" in", "quiet")
        said.append(f"{event['cached_tokens']:>8,}")
        said.append(" cached", "quiet")
        said.append(f"{event['output_tokens']:>7,}", "title")
        said.append(" out  ", "quiet")
    first = event.get("first_token")
    if first is not None:
        said.append("first ", "quiet")
        said.append(f"{first:.2f} s ")
    return said


def other_line(event: LogEvent, level: Any) -> Text:
    """What else the daemon has to say, with the traceback where there is one."""
    line = _time(event)
    style = {LogLevel.warn: "warning", LogLevel.error: "bad", LogLevel.critical: "bad"}
    line.append(formatEvent(event), style.get(level, ""))
    failure = event.get("log_failure")
    if failure is not None:
        line.append(f"\n{failure.getTraceback()}")
    return line


def _time(event: LogEvent) -> Text:
    when = datetime.fromtimestamp(event["log_time"])
    return Text(f"{when:%H:%M:%S}  ", "quiet")
