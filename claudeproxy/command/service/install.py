"""``claudemax install`` and ``claudemax uninstall``."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click

from claudeproxy import _values as values
from claudeproxy import ports, state
from claudeproxy.options import PREFIX, ConfigError, Settings, load, table
from claudeproxy.tap import Options

from ..login import find
from ..places import address, config_directory
from ..running import NotRunning, WrongKey, daemon_of
from .config import Conflict, with_options, without_options
from .machine import Machine
from .manager import Manager, installed, manager, read
from .steps import Move, Remove, Step, Write, carry_out, show

REPLACED = ".replaced"
"""Added to the name of another program's file that had ours."""

PATHS = {name.replace("_", "-") for name, option in table() if option.parse is values.path}
"""The options that are paths."""

PATIENCE = 20.0
"""Seconds within which the daemon should answer."""

LOOK = 0.2
"""Seconds between two looks whether it does."""


@click.command(
    context_settings={"ignore_unknown_options": True},
    epilog="All else are options of the daemon (`claudemax serve --help`): they are written into "
    "its config.toml.",
)
@click.option("--system", is_flag=True, help="Linux: a hardened service that runs from boot on.")
@click.option("--dry-run", is_flag=True, help="Only show what would be written and run.")
@click.option("--yes", "-y", is_flag=True, help="Replace another program's service of this name.")
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def install(system: bool, dry_run: bool, yes: bool, options: tuple[str, ...]) -> None:
    """Have the system run the daemon, from now on: launchd on macOS, systemd on Linux."""
    set_up(Machine.here(), options, system=system, dry_run=dry_run, yes=yes)


@click.command()
@click.option("--state", "with_state", is_flag=True, help="Remove what the daemon has kept, too.")
@click.option("--dry-run", is_flag=True, help="Only show what would be removed and run.")
def uninstall(with_state: bool, dry_run: bool) -> None:
    """Undo what `claudemax install` did. Your own settings, key and token stay."""
    take_away(Machine.here(), with_state=with_state, dry_run=dry_run)


def set_up(
    machine: Machine, options: Sequence[str], *, system: bool, dry_run: bool, yes: bool
) -> None:
    """Install a service with these options of the daemon.

    :raises click.ClickException: when it cannot be done; nothing is left of it.
    """
    given = _parsed(options)
    service = manager(machine, system)
    settings = _settings(machine, given)
    service.check()
    executable = find(settings.claude, machine.environ.get("PATH"))
    old = read(service.path) if service.path.exists() else None
    foreign = old is not None and not service.is_ours(old)
    active = service.is_active()
    if not active:
        _check_ports(settings)
    steps = [
        *(service.stop() if active else ()),
        *(_aside(service) if foreign else ()),
        *_configured(machine, given),
        Write(service.path, service.description(), service.root),
        *service.begin(),
    ]
    if foreign:
        assert old is not None
        click.echo(f"{service.path} is another program's. It runs:\n    {service.shown(old)}")
    if dry_run:
        show(steps)
        return
    if foreign:
        _agreed(yes)
    _tell_of_variables(machine)
    carry_out(steps, machine)
    url = _wait(service, settings)
    click.echo(f"\n{service.title} runs, with the CLI {executable}{url}")
    for line in service.advice():
        click.echo(line)
    click.echo("`claudemax status`, `claudemax logs`, `claudemax stop`, `claudemax uninstall`")


def take_away(machine: Machine, *, with_state: bool, dry_run: bool) -> None:
    """Remove the service.

    :raises click.ClickException: when there is none, or it cannot be removed.
    """
    service = installed(machine)
    directory = state.directory(machine.environ)
    aside = service.path.with_name(service.path.name + REPLACED)
    steps: list[Step] = [
        *service.end(),
        Remove(service.path, service.root),
        *_unconfigured(machine),
        *service.forget(),
    ]
    if aside.exists():
        steps += [Move(aside, service.path, service.root), *service.begin()]
    if with_state:
        kept = [directory, *service.leftovers()]
        steps += [Remove(path) for path in kept if path.exists()]
    if dry_run:
        show(steps)
        return
    carry_out(steps, machine)
    if not with_state and directory.exists():
        click.echo(f"\nWhat the daemon has kept is still in {directory}")


def _parsed(options: Sequence[str]) -> dict[str, str | list[str]]:
    """The daemon's options as given: name to text, or to texts where it is repeatable."""
    if any(word.partition("=")[0] == "--config" for word in options):
        raise click.ClickException(
            "--config is for a daemon of your own; a service reads "
            f"{config_directory(os.environ) / 'config.toml'}"
        )
    parsed = Options()
    parsed.parseOptions(options)  # ends here where something is wrong
    return dict(parsed)


def _settings(machine: Machine, given: dict[str, str | list[str]]) -> Settings:
    """What the service will use."""
    try:
        return load(given, machine.own_environ())
    except ConfigError as error:
        raise click.ClickException(str(error)) from None


def _check_ports(settings: Settings) -> None:
    for place in map(address, settings.port):
        if place is None or place.socket or ports.is_free(place.port):
            continue
        held = ports.holder(place.port) or "somebody"
        raise click.ClickException(
            f"port {place.port} is taken by {held}; stop it, or install with --port "
            f"{ports.next_free(place.port)}"
        )


def _config_file(machine: Machine) -> Path:
    return config_directory(machine.environ) / "config.toml"


def _configured(machine: Machine, given: dict[str, str | list[str]]) -> Sequence[Step]:
    path = _config_file(machine)
    old = read(path) if path.exists() else ""
    try:
        new = with_options(old, _absolute(given))
    except Conflict as conflict:
        raise click.ClickException(
            f"{path} has a line for {conflict.name} already; change it there, or leave "
            f"--{conflict.name} out"
        ) from None
    return () if new == old else (Write(path, new),)


def _unconfigured(machine: Machine) -> Sequence[Step]:
    path = _config_file(machine)
    old = read(path) if path.exists() else ""
    new = without_options(old)
    if new == old:
        return ()
    return (Write(path, new),) if new.strip() else (Remove(path),)


def _absolute(given: dict[str, str | list[str]]) -> dict[str, str | list[str]]:
    """A service starts in another directory."""
    return {
        name: values.path(value) if name in PATHS and isinstance(value, str) else value
        for name, value in given.items()
    }


def _aside(service: Manager) -> Sequence[Step]:
    return (Move(service.path, service.path.with_name(service.path.name + REPLACED), service.root),)


def _agreed(yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.ClickException(
            "there is no terminal to ask on; nothing was written (--yes replaces it, and "
            "`claudemax uninstall` brings it back)"
        )
    question = "Stop and replace it? `claudemax uninstall` brings it back."
    if not click.confirm(question, default=False):
        raise click.ClickException("nothing was written")


def _tell_of_variables(machine: Machine) -> None:
    seen = sorted(name for name in machine.environ if name.startswith(PREFIX))
    if seen:
        click.echo(f"A service does not see {', '.join(seen)}: give options, or edit config.toml.")


def _wait(service: Manager, settings: Settings) -> str:
    """Wait until the daemon answers; gives what comes of it, as the end of a sentence.

    :raises click.ClickException: when it has ended.
    """
    try:
        running = daemon_of(settings)
    except NotRunning:  # where it listens cannot be told
        return ""
    where = f", at {running.where.url}"
    began = time.monotonic()
    while time.monotonic() - began < PATIENCE:
        try:
            health = running.health()
        except WrongKey:
            return where
        except NotRunning:
            if not service.is_active():
                raise click.ClickException(
                    "it was started, and has ended: see `claudemax logs`; `claudemax uninstall` "
                    "undoes it"
                ) from None
            time.sleep(LOOK)
            continue
        if health.get("logged_in") is False:
            return f"{where}; nobody is logged in: `claudemax login`"
        return where
    return f"{where}; it does not answer yet, see `claudemax logs`"
