"""``claudemax start``, ``stop``, ``restart`` and ``logs``: of the service that is installed."""

from __future__ import annotations

import os

import click

from .machine import Machine
from .manager import installed
from .steps import carry_out


@click.command()
def start() -> None:
    """Start the service."""
    machine = Machine.here()
    service = installed(machine)
    if service.is_active():
        click.echo(f"{service.title} runs already.")
        return
    carry_out(service.start(), machine)


@click.command()
def stop() -> None:
    """Stop the service. It starts again with the next login or boot."""
    machine = Machine.here()
    service = installed(machine)
    if not service.is_active():
        click.echo(f"{service.title} does not run.")
        return
    carry_out(service.stop(), machine)


@click.command()
def restart() -> None:
    """Restart the service: for new settings, a new token or a new version."""
    machine = Machine.here()
    carry_out(installed(machine).restart(), machine)


@click.command()
@click.option("--lines", "-n", default=100, show_default=True, help="How many, from the last on.")
@click.option("--follow", "-f", is_flag=True, help="Show what comes, until Ctrl-C.")
def logs(lines: int, follow: bool) -> None:
    """Show the service's log."""
    machine = Machine.here()
    command = installed(machine).log(lines, follow)
    if machine.which(command[0]) is None:
        raise click.ClickException(f"there is no {command[0]} here, which shows the log")
    os.execvpe(command[0], list(command), dict(machine.environ))
