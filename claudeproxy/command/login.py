"""``claudemax login``: the CLI's own login, in the user's terminal.

Nothing of it passes through here: the CLI keeps it where it keeps it. A token of
``setup-token`` the CLI shows and does not keep; pasted here, it is written to the file that the
service reads, and nowhere else.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from claudeproxy.cli import account_query, launch
from claudeproxy.cli.login import TOKEN, LoginStatus

from . import places
from .terminal import progress

LOGIN, SETUP_TOKEN = ("auth", "login"), ("setup-token",)
"""The CLI's own commands."""

STRAY = ("ANTHROPIC_", "CLAUDE_CODE_", "CLAUDECODE")
"""What variables that would change the CLI's login begin with; a shell inside Claude Code has
them."""


@click.command()
@click.option("--token", is_flag=True, help="Make a token that lasts a year, for a service.")
@click.option("--claude", metavar="PATH", help="The CLI, as --claude of the daemon.")
def login(token: bool, claude: str | None) -> None:
    """Log the Claude CLI in, with its own login, and wait until it is done.

    With --token it runs `claude setup-token` instead, for a machine without a browser, and offers
    to keep the token for the service.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.ClickException("a login needs a terminal: run `claudemax login` in one")
    executable = find(places.settings(os.environ, claude=claude).claude)
    if token:
        _run([executable, *SETUP_TOKEN])
        _keep_token()
        return
    _run([executable, *LOGIN])
    if os.environ.get(TOKEN):
        click.echo(f"Mind that {TOKEN} is set here: it hides this login. Unset it.")
    with progress("asking the CLI who is logged in"):
        status = ask(executable)
    if status is None or not status.logged_in:
        raise click.ClickException("the CLI still finds no login")
    click.echo("You are logged in. A server that runs has noticed; else start one: claudemax")


def find(claude: str | None, search: str | None = None) -> str:
    """The CLI that a daemon with the PATH ``search``, by default this program's, would use.

    :raises click.ClickException: when there is none.
    """
    try:
        return launch.find(claude, search)
    except launch.CLIError as error:
        raise click.ClickException(str(error)) from None


def ask(executable: str) -> LoginStatus | None:
    """Whose login the CLI finds, with the environment the daemon gives it. Spends no quota."""
    with tempfile.TemporaryDirectory() as empty:
        try:
            return account_query.ask(executable, launch.environment(os.environ), empty)
        except OSError:
            return None


def own_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The user's environment without what would lead the CLI's login elsewhere."""
    return {name: value for name, value in environ.items() if not name.startswith(STRAY)}


def _run(command: Sequence[str]) -> None:
    """Let the CLI have the terminal, until it ends: ended by us it could lose the login."""
    # A handler, not SIG_IGN, which the CLI would inherit: it is to end in its own time.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        status = subprocess.run(command, env=own_environment(os.environ), check=False).returncode
    finally:
        signal.signal(signal.SIGINT, before)
    if status == -signal.SIGINT:
        raise click.Abort
    if status:
        raise click.ClickException(f"`{' '.join(command)}` ended with status {status}")


def _keep_token() -> None:
    path = places.token_file(os.environ)
    click.echo(f"\nFor a service the token can be kept in {path}, for you alone to read.")
    pasted = click.prompt(
        "Paste it (Enter: do not keep it)", "", hide_input=True, show_default=False
    )
    if not pasted:
        click.echo(f"Not kept. A shell takes it as `export {TOKEN}=...`, before `claudemax`.")
        return
    if not re.fullmatch(r"[!-~]+", pasted.strip()):
        raise click.ClickException("that is no token; nothing was kept")
    try:
        keep_token(path, pasted.strip())
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}") from None
    click.echo("Kept. A service that runs uses it after `claudemax restart`.")


def keep_token(path: Path, token: str) -> None:
    """Put ``token`` into the file at ``path`` in place of the one before; other lines stay.

    :raises OSError: when it cannot be written.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        lines = path.read_text(errors="surrogateescape").splitlines()
    except FileNotFoundError:
        lines = []
    lines = [line for line in lines if not line.startswith(f"{TOKEN}=")]
    new = path.with_suffix(f".{os.getpid()}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", errors="surrogateescape") as file:
        file.write("\n".join([*lines, f"{TOKEN}={token}", ""]))
    new.replace(path)
