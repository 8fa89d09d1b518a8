"""``claudemax serve``: the daemon in the foreground, as ``twistd -n claudemax`` runs it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click
from twisted.application.service import IService, MultiService, ServiceMaker
from twisted.python import usage
from twisted.scripts import twistd

from claudeproxy.options import ConfigError
from claudeproxy.tap import Options, makeService

KQUEUE = ("--reactor", "kqueue")
"""For macOS, where Twisted would take ``select``, which can watch 1,024 files and no more."""


class ServeOptions(Options):
    """twistd's options of the daemon, under the name by which they are asked for here."""

    synopsis = "Usage: claudemax serve [options]"


class _Twistd(twistd.ServerOptions):  # type: ignore[name-defined,misc]
    """twistd's own options, with one service to choose: no plugin has to be looked for."""

    subCommands = [["claudemax", None, ServeOptions, "the daemon"]]  # noqa: RUF012


class _Maker(ServiceMaker):
    """Makes the daemon, and on a terminal what tells its user of it."""

    options = ServeOptions

    def __init__(self, people: bool) -> None:
        super().__init__("claudemax", "claudeproxy.tap", "the daemon", "claudemax")
        self._people = people

    def makeService(self, options: Options) -> IService:
        daemon = makeService(options)
        if self._people:
            # Not above: both install the reactor.
            from twisted.internet import reactor

            from .banner import Banner

            assert isinstance(daemon, MultiService)
            Banner(reactor, daemon, options.settings).setServiceParent(daemon)
        return daemon


@click.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def serve(options: tuple[str, ...]) -> None:
    """Run the daemon in the foreground."""
    run(options)


def run(options: Sequence[str]) -> None:
    """Parse ``options`` as twistd would, and serve until a signal comes."""
    parsed = ServeOptions()
    parsed.parseOptions(options)  # ends here where something is wrong, or --help was asked for
    people = parsed.settings.log_format == "auto" and sys.stdout.isatty()
    own = ["--nodaemon", "--pidfile=", *(KQUEUE if sys.platform == "darwin" else ())]
    if people:
        own += ["--logger", "claudeproxy.command.turn_lines.observer"]
    config = _Twistd()
    config.loadedPlugins = {"claudemax": _Maker(people)}
    try:
        config.parseOptions([*own, "claudemax", *options])
        twistd.runApp(config)
    except (usage.UsageError, ConfigError) as error:
        sys.stderr = sys.__stderr__  # twistd makes lines of the log of what is written there
        raise SystemExit(f"claudemax: {error}") from None
