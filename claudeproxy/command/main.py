"""The command line: which subcommands there are, and what the bare command means."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from io import TextIOWrapper

import click

from claudeproxy import __version__
from claudeproxy._values import nearest

COMMANDS = {
    "serve": ("serve:serve", "Run the daemon in the foreground: what the bare command does."),
    "login": ("login:login", "Log the CLI in, and wait until it is done."),
    "connect": ("connect.command:connect", "Set a client up to use the daemon."),
    "doctor": ("doctor:doctor", "Check whether all is well, and say what to do if it is not."),
    "try": ("trying.command:trying", "Spend a little, to learn whether all works with your login."),
    "status": ("status:status", "What the daemon is doing: CLI, login, processes, windows."),
    "usage": ("usage:usage", "What was used: of the plan's windows, by day, session and model."),
    "replay": ("replay:replay", "Run a recorded request again, against the demo: no quota."),
    "install": ("service.install:install", "Have the system run the daemon, from now on."),
    "uninstall": ("service.install:uninstall", "Undo that."),
    "start": ("service.control:start", "Start the service."),
    "stop": ("service.control:stop", "Stop the service."),
    "restart": ("service.control:restart", "Restart the service: for new settings."),
    "logs": ("service.control:logs", "Show the service's log."),
    "key": ("key:key", "Make a key for --api-key-file."),
}
"""Where each subcommand is and what it does, in the order in which ``--help`` lists them."""

DEFAULT = "serve"
"""The subcommand that the bare command runs, with or without options."""


class Commands(click.Group):
    """Loads a subcommand when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(f"{__package__}.{module}"), name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, told) for name, (_, told) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS:
            meant = f": a port is --port {args[0]}" if args[0].isdigit() else ""
            ctx.fail(f"there is no command {args[0]!r}{meant or nearest(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own = {"--help", "-h", "--version"}
        if not args or (args[0].startswith("-") and args[0] not in own):
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="`claudemax serve --help` lists the daemon's options; `claudemax --port 4000` takes "
    "them, too.",
)
@click.version_option(__version__, prog_name="claudemax", message="%(prog)s %(version)s")
def claudemax() -> None:
    """Your own logged-in claude CLI as an API on http://localhost:3456.

    Without a command it serves, in the foreground.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command. An error ends the program with one line and exit status 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # not every terminal has bars and check marks
            stream.reconfigure(errors="replace")
    try:
        status = claudemax.main(
            arguments if arguments is None else list(arguments),
            prog_name="claudemax",
            standalone_mode=False,
        )
    except click.exceptions.Abort as aborted:
        if aborted.__cause__ is None:  # of a question, behind which the cursor still is
            click.echo(err=True)
        raise SystemExit(130) from None
    except click.ClickException as error:
        raise SystemExit(f"claudemax: {error.format_message()}") from None
    except PermissionError as error:  # of a home that is another user's
        raise SystemExit(f"claudemax: {error.filename}: {error.strerror}") from None
    sys.exit(status or 0)


def npm() -> None:
    """``claude-max-api [PORT]``: the npm package's command, which takes only a port."""
    arguments = sys.argv[1:]
    if arguments and arguments[0].isdigit():
        arguments = ["--port", *arguments]
    if arguments[:1] not in (["--help"], ["-h"], ["--version"]):
        arguments = [DEFAULT, *arguments]
    main(arguments)
