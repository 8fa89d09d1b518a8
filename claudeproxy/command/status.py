"""``claudemax status`` and ``claudemax usage``: what the running daemon says of itself."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from claudeproxy import state

from . import places
from .running import NotRunning, Running, daemon_of
from .terminal import console

_WHERE = click.option(
    "--port", metavar="PORT", multiple=True, help="As --port of the daemon, if it got one."
)
_JSON = click.option("--json", "as_json", is_flag=True, help="For machines.")


@click.command()
@_WHERE
@_JSON
def status(port: tuple[str, ...], as_json: bool) -> None:
    """Tell what the running daemon does, and where its files are."""
    running, paths = _daemon(port), _paths()
    try:
        told = {
            "running": True,
            "address": running.where.url,
            "usage": running.usage(),
            "health": running.health(),
            "paths": paths,
        }
    except NotRunning as error:
        if not as_json:
            raise
        click.echo(json.dumps({"running": False, "why": error.message, "paths": paths}, indent=2))
        raise SystemExit(1) from None
    if as_json:
        click.echo(json.dumps(told, indent=2))
    else:
        _show(told)


@click.command()
@_WHERE
@_JSON
def usage(port: tuple[str, ...], as_json: bool) -> None:
    """Tell how much of the plan's windows is used. Spends nothing."""
    told = _daemon(port).usage()
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return
    shown = console()
    if not told["plan"]:
        shown.print("This server uses no plan: it has another upstream.")
        return
    if not told["windows"]:
        shown.print("Nothing is known of the windows yet: the first turn tells.")
    else:
        shown.print(windows(told))
    shown.print(extra_usage(told["extra_usage"]), style="quiet")


def _daemon(port: tuple[str, ...]) -> Running:
    return daemon_of(places.settings(os.environ, port=list(port) or None))


def _paths() -> dict[str, str]:
    named = os.environ.get("CLAUDEMAX_CONFIG")
    configuration = places.config_directory(os.environ)
    return {
        "config": str(Path(named).absolute() if named else configuration / "config.toml"),
        "state": str(state.directory(os.environ)),
    }


def _show(told: Mapping[str, Any]) -> None:
    shown, health = console(), told["health"]
    table = Table.grid(padding=(0, 2))
    table.add_column(style="quiet")
    good = health["status"] == "ok"
    table.add_row(
        "Daemon", f"{told['address']}  [{'good' if good else 'bad'}]{health['status']}[/]"
    )
    table.add_row("CLI", f"claude {health['cli_version']}")
    for lost in health["lost_facts"]:
        table.add_row("", f"[bad]lost: {lost}[/]  [quiet]see `claudemax doctor`[/]")
    table.add_row("Login", _login(health))
    processes, turns = health["processes"], health["turns"]
    table.add_row(
        "Processes",
        f"{processes['warm']} warm, {processes['kept']} kept, {processes['starting']} starting",
    )
    table.add_row("Turns", f"{turns['running']} running, {turns['waiting']} waiting")
    for name, path in told["paths"].items():
        table.add_row(name.title(), path)
    shown.print(table)
    if told["usage"]["windows"]:
        shown.print()
        shown.print(windows(told["usage"]))


def _login(health: Mapping[str, Any]) -> str:
    if health["upstream"] != "subscription":
        return f"none needed: upstream is {health['upstream']}"
    return {
        True: "[good]your subscription[/]",
        False: "[bad]NOT LOGGED IN[/]  claudemax login",
        None: "not known yet",
    }[health["logged_in"]]


def windows(told: Mapping[str, Any]) -> Table:
    """The plan's windows: used, and when each resets."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="quiet")
    for title in ("Window", "Used", "", "Resets in", "Reserve"):
        table.add_column(title, justify="right" if title == "Used" else "left")
    for name, window in told["windows"].items():
        used = window["used"]
        closed = window["closed"]
        style = "bad" if closed else "warning" if (used or 0) >= 80 else "good"
        percent = "?" if used is None else f"{used:g} %"
        bar = "█" * round((100 if used is None else min(used, 100)) / 5)
        table.add_row(
            name.replace("_", " "),
            f"[{style}]{'used up' if closed else percent}[/]",
            f"[{style}]{bar:<20}[/]",
            _span(window["resets_at"] - time.time()),
            f"{window['reserve']:g} %" if window["reserve"] else "",
        )
    return table


def _span(seconds: float) -> str:
    minutes = max(0, round(seconds / 60))
    days, hours = minutes // 1440, minutes // 60 % 24
    return f"{days} d {hours} h" if days else f"{hours} h {minutes % 60:02} min"


def extra_usage(told: Mapping[str, Any]) -> str:
    """What is known of paid turns, in a sentence."""
    enabled = {True: "switched on", False: "switched off", None: "not known"}[told["enabled"]]
    spent = "is spent" if told["allowed_here"] else "is not spent without --extra-usage"
    return f"Extra usage: {enabled} in the account; it {spent}. Paid turns: {told['paid_turns']}."
