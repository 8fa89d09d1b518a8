"""``claudemax connect``: shows what a client's settings would become, asks, and sets it."""

from __future__ import annotations

import difflib
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from claudeproxy._values import nearest

from ..terminal import console
from . import files, running
from .change import UNSAFE, Unfit, merged
from .client import KEY_VARIABLE, Client, Daemon, Machine, Told
from .clients import CLIENTS

BOM = "\ufeff"


@click.command()
@click.argument("client", required=False)
@click.option("--url", metavar="URL", help="The daemon's URL; by default that of your settings.")
@click.option(
    "--key", metavar="KEY", envvar=KEY_VARIABLE, help=f"The daemon's key; better in {KEY_VARIABLE}."
)
@click.option(
    "--model",
    metavar="MODEL",
    multiple=True,
    help="Repeatable; the first is the client's default. Without it: sonnet, opus and haiku.",
)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--print", "only_print", is_flag=True, help="Only show what would be set.")
@click.option("--restore", is_flag=True, help="Bring back the file as it was before.")
def connect(
    client: str | None,
    url: str | None,
    key: str | None,
    model: tuple[str, ...],
    yes: bool,
    only_print: bool,
    restore: bool,
) -> None:
    """Set a client up to use the running daemon; without a CLIENT, list the known ones.

    Shows the difference and asks before it writes. Comments stay, and so does all that is not the
    daemon's. A backup is made beside the file.
    """
    machine = Machine(Path.home(), os.environ, sys.platform == "darwin")
    if client is None:
        if url or model or yes or only_print or restore:
            raise click.ClickException("which client? `claudemax connect` lists them")
        _list(machine)
        return
    if client not in CLIENTS:
        raise click.ClickException(
            f"there is no client {client!r}{nearest(client, CLIENTS)}; `claudemax connect` lists"
            " them"
        )
    chosen = CLIENTS[client]
    if restore:
        _restore(chosen, machine, yes)
        return
    daemon = running.daemon(url, key, model)
    if isinstance(chosen, Told):
        click.echo("\n".join(chosen.steps(daemon)))
    elif only_print:
        click.echo(f"In {chosen.place(machine)}:\n")
        click.echo(_hidden(_changed(chosen, daemon, "").rstrip(), daemon.key))
        _tell(chosen.then(daemon))
    else:
        _connect(chosen, client, daemon, chosen.place(machine), yes)


def _list(machine: Machine) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")  # a path is shown whole
    for name, client in CLIENTS.items():
        if isinstance(client, Told):
            where = Text("shows what to type", "quiet")
        else:
            path = client.place(machine)
            where = Text(str(path), "" if os.path.exists(path) else "quiet")
        table.add_row(Text(name, "command"), client.title, where)
    console().print(table)


def _connect(client: Client, name: str, daemon: Daemon, path: Path, yes: bool) -> None:
    old = files.read(path)
    try:
        text = (old or b"").decode()
    except UnicodeDecodeError:
        raise click.ClickException(f"{path} cannot be read: it is not UTF-8") from None
    try:
        new = _kept(text, lambda plain: _changed(client, daemon, plain))
    except (ValueError, Unfit) as error:
        raise click.ClickException(f"{path} is not as {client.title} has it: {error}") from None
    if new == text:
        click.echo(f"{path} has it all already; nothing was changed.")
        _tell(client.then(daemon))
        return
    _refuse_if_nobody_can_agree(yes)
    _show(path, text, new, daemon.key)
    _agreed(f"Write {path}?", yes)
    backup = files.write(path, old, new.encode())
    click.echo(f"Wrote {path}")
    if not backup.nothing:
        click.echo(f"As it was: {backup.path}")
    click.echo(f"`claudemax connect {name} --restore` undoes it.")
    _tell(client.then(daemon))


def _changed(client: Client, daemon: Daemon, text: str) -> str:
    """``text`` with the daemon in it, checked to say what it should, and nothing else."""
    current = client.format.load(text)
    changes = client.changes(daemon, current)
    wanted = merged(current, changes)
    if wanted == current:
        return text
    new = client.format.changed(text, changes)
    if client.format.load(new) != wanted:
        raise ValueError(UNSAFE)
    return new


def _kept(text: str, change: Callable[[str], str]) -> str:
    """``text`` changed, with its byte order mark and its line ends."""
    mark = BOM if text.startswith(BOM) else ""
    plain = text.removeprefix(BOM)
    if "\r\n" not in plain or plain.count("\r\n") != plain.count("\n"):
        return mark + change(plain)
    return mark + change(plain.replace("\r\n", "\n")).replace("\n", "\r\n")


def _restore(client: Client | Told, machine: Machine, yes: bool) -> None:
    if isinstance(client, Told):
        raise click.ClickException(f"{client.title} has no file that could be restored")
    path = client.place(machine)
    found = files.backups(path)
    if not found:
        raise click.ClickException(f"there is nothing to restore: no backup beside {path}")
    _refuse_if_nobody_can_agree(yes)
    before, now = found[-1].content(), files.read(path)
    _show(path, *((one or b"").decode(errors="replace") for one in (now, before)))
    _agreed(f"{'Remove' if found[-1].nothing else 'Restore'} {path}?", yes)
    files.restore(path, found[-1])
    click.echo(f"{path} is {'gone' if found[-1].nothing else 'as it was before'}.")


def _refuse_if_nobody_can_agree(yes: bool) -> None:
    if not yes and not sys.stdin.isatty():
        raise click.ClickException(
            "there is no terminal to ask on; nothing was written (--yes writes, --print shows)"
        )


def _agreed(question: str, yes: bool) -> None:
    if not yes and not click.confirm(question, default=True):
        raise click.ClickException("nothing was written")


STYLES = {"+": "green", "-": "red", "@": "cyan"}


def _show(path: Path, old: str, new: str, key: str | None = None) -> None:
    """The difference, coloured on a terminal, without the key."""
    shown = console()
    before, after = (_hidden(text, key).splitlines() for text in (old, new))
    for line in difflib.unified_diff(before, after, str(path), str(path), lineterm=""):
        title = line.startswith(("---", "+++"))
        shown.print(Text(line, "title" if title else STYLES.get(line[:1], "")))


def _hidden(text: str, key: str | None) -> str:
    """``text`` without the key, also as it stands in a string."""
    for form in (key, json.dumps(key)[1:-1]) if key else ():
        text = text.replace(form, "YOUR-KEY")
    return text


def _tell(steps: Sequence[str]) -> None:
    for step in steps:
        click.echo(step)
