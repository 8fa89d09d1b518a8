"""``claudemax status``: what the running daemon says of itself."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from claudeproxy import state

from . import places
from .refusals import in_a_line, show_refused
from .running import PORT, NotRunning, Running, StoreIsLost, WrongKey, listening
from .service.machine import Machine
from .service.manager import installed
from .terminal import console
from .windows import show_windows


@click.command()
@PORT
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.option("--refused", "ask_refused", is_flag=True, help="The last requests it refused.")
def status(port: tuple[str, ...], as_json: bool, ask_refused: bool) -> None:
    """Tell what the running daemon does, and where its files are."""
    running, paths = listening(port), _paths()
    if ask_refused:
        refused = running.refused()
        if as_json:
            click.echo(json.dumps(refused, indent=2))
        else:
            show_refused(console(), refused)
        return
    try:
        told = {
            "running": True,
            "address": running.where.url,
            "usage": _usage(running),
            "health": running.health(),
            "refused": running.refused(),
            "paths": paths,
            "log": None if port else _log(),
        }
    except NotRunning as error:
        if not as_json:
            raise
        there = isinstance(error, WrongKey)
        click.echo(json.dumps({"running": there, "why": error.message, "paths": paths}, indent=2))
        raise SystemExit(1) from None
    if as_json:
        click.echo(json.dumps(told, indent=2))
    else:
        _show(told)


def _usage(running: Running) -> Any:
    try:
        return running.usage()
    except StoreIsLost:  # shown as the state of the store
        return None


def _paths() -> dict[str, str]:
    named = os.environ.get("CLAUDEMAX_CONFIG")
    configuration = places.config_directory(os.environ)
    return {
        "config": str(Path(named).absolute() if named else configuration / "config.toml"),
        "state": str(state.directory(os.environ)),
    }


def _log() -> str | None:
    """What shows the log, if a service runs the daemon: else it is on its terminal."""
    try:
        active = installed(Machine.here()).is_active()
    except (click.ClickException, OSError):
        return None
    return "claudemax logs" if active else None


def _show(told: Mapping[str, Any]) -> None:
    shown, health = console(), told["health"]
    table = Table.grid(padding=(0, 2))
    table.add_column(style="quiet", no_wrap=True)
    table.add_column(overflow="fold")  # a path is shown whole
    good = health["status"] == "ok"
    table.add_row(
        "Daemon", f"{told['address']}  [{'good' if good else 'bad'}]{health['status']}[/]"
    )
    table.add_row("CLI", f"claude {health['cli_version']}")
    for lost in health["lost_facts"]:
        table.add_row("", f"[bad]lost: {lost}[/]  [quiet]see `claudemax doctor`[/]")
    table.add_row("Login", _login(health))
    if told["usage"] is None or not health["store"]["reachable"]:
        table.add_row("Store", "[bad]it does not answer[/]  its log says why")
    if health["recording"]:
        table.add_row("RECORDING", "[bad]every prompt and every answer is written to disk[/]")
    processes, turns = health["processes"], health["turns"]
    table.add_row(
        "Processes",
        f"{processes['warm']} warm, {processes['kept']} kept, {processes['starting']} starting",
    )
    table.add_row("Turns", f"{turns['running']} running, {turns['waiting']} waiting")
    if told["refused"]:
        table.add_row("Refused", Text(in_a_line(told["refused"]), "warning"))
    for name, path in told["paths"].items():
        table.add_row(name.title(), path)
    if told["log"] is not None:
        table.add_row("Log", told["log"])
    shown.print(table)
    if told["usage"] is not None and told["usage"]["windows"]:
        shown.print()
        show_windows(shown, told["usage"]["windows"])


def _login(health: Mapping[str, Any]) -> str:
    if health["upstream"] != "subscription":
        return f"none needed: upstream is {health['upstream']}"
    return {
        True: "[good]your subscription[/]",
        False: "[bad]NOT LOGGED IN[/]  claudemax login",
        None: "not known yet",
    }[health["logged_in"]]
