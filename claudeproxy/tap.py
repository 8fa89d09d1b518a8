"""What ``twistd claudemax`` runs: a command line to settings to a service."""

import os
import resource
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from twisted.application.service import IService
from twisted.internet.error import ReactorNotRunning
from twisted.internet.selectreactor import SelectReactor
from twisted.python import usage

from claudeproxy import __version__
from claudeproxy.options import ConfigError, Option, Settings, load, table


class Options(usage.Options):
    """The command line, and what it comes to: `settings`, once parsed.

    There is a method for every option of `claudeproxy.options.table`. What is wrong ends the
    program (SystemExit with one line, exit status 1): for a UsageError twistd would print all of
    its own help first.
    """

    settings: Settings
    longdesc = (
        "Each option can also be set in the environment (--max-body is CLAUDEMAX_MAX_BODY; commas "
        "separate the values of a repeatable one) and in a TOML file (max-body = 1000000; an "
        "array for a repeatable one). The command line wins over the environment, and the "
        "environment over the file."
    )

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Parse `options` (else `sys.argv`), the environment and the file."""
        try:
            super().parseOptions(options)
            self.settings = load(self, os.environ)
        except (usage.UsageError, ConfigError) as error:
            raise SystemExit(f"claudemax: {error}") from None

    def opt_version(self) -> None:
        """Display the version and exit."""
        print(f"claudemax {__version__}")
        raise SystemExit(0)

    def opt_config(self, path: str) -> None:
        self["config"] = path

    opt_config.__doc__ = (
        "The TOML file. (PATH; default: $CLAUDEMAX_CONFIG, else "
        "$XDG_CONFIG_HOME/claudemax/config.toml if there is one)"
    )


def _method(name: str, option: Option) -> Callable[..., None]:
    """The method that keeps what was given as option `name`, as text."""

    # usage.Options counts the arguments: a flag's method takes none.
    def flag(self: Options) -> None:
        self[name] = "true"

    def one(self: Options, text: str) -> None:
        self[name] = text

    def several(self: Options, text: str) -> None:
        self.setdefault(name, []).append(text)

    method: Callable[..., None] = one
    if option.is_flag:
        method = flag
    elif option.repeatable:
        method = several
    notes = [option.unit, f"default: {option.default}", "repeatable" if option.repeatable else ""]
    method.__doc__ = f"{option.help} ({'; '.join(filter(None, notes))})"
    return method


for _field, _option in table():
    setattr(Options, f"opt_{_field}", _method(_field.replace("_", "-"), _option))


DESCRIPTORS = 10_240
"""Enough for 2,500 streams, and as much as macOS grants."""

SELECTABLE = 1_024
"""What ``select`` can watch, Twisted's default on macOS: it would cut every connection beyond."""


def _own(reactor: Any) -> None:
    """Make the reactor, and the limits, of a process that is all ours fit for a daemon."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold what was said
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = SELECTABLE if isinstance(reactor, SelectReactor) else DESCRIPTORS
    room = most if hard == resource.RLIM_INFINITY else min(most, hard)
    if soft != resource.RLIM_INFINITY and soft < room:  # 256 on macOS is 60 streams
        resource.setrlimit(resource.RLIMIT_NOFILE, (room, hard))
    if not reactor.getDelayedCalls():
        reactor.seconds = time.monotonic  # no deadline is to notice that the clock is set

    def stop() -> None:
        with suppress(ReactorNotRunning):  # a second signal
            reactor.stop()

    def handle_term() -> None:
        # The reactor's own handler makes twistd die of the signal, once all has ended well.
        signal.signal(signal.SIGTERM, lambda *_: reactor.callFromThread(stop))

    reactor.callWhenRunning(handle_term)


def makeService(options: Options) -> IService:
    """The daemon. Ends the program as `Options` does when it cannot serve what is asked."""
    # Not above: both install the reactor.
    from twisted.internet import reactor

    from claudeproxy.service import make_service

    _own(reactor)
    try:
        return make_service(reactor, options.settings)
    except ConfigError as error:
        raise SystemExit(f"claudemax: {error}") from None
