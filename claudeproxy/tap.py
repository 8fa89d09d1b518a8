"""What ``twistd claudemax`` runs: from the command line to settings to a service."""

import os
import pwd
import re
import resource
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, cast

from twisted.application.service import IService, MultiService
from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import IReactorTime
from twisted.internet.selectreactor import SelectReactor
from twisted.logger import ILogObserver, Logger, textFileLogObserver
from twisted.python import usage
from twisted.python.logfile import LogFile

from claudeproxy import __version__
from claudeproxy._reactor import IDaemonReactor
from claudeproxy._values import nearest
from claudeproxy.json_log import JSONLines
from claudeproxy.options import ConfigError, Option, Settings, load, table


class Options(usage.Options):
    """The command line, and the `settings` from it, once it is parsed.

    There is a method for every option of `claudeproxy.options.table`. An error ends the program
    (SystemExit with one line, exit status 1): for a UsageError, twistd would first print all of its
    own help.
    """

    settings: Settings
    longdesc = (
        "Each option can also be set in the environment (--max-body is CLAUDEMAX_MAX_BODY; commas "
        "separate the values of a repeatable one) and in a TOML file (max-body = 1000000; an "
        "array for a repeatable one). The command line wins over the environment, and the "
        "environment over the file."
    )

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Parse `options` (by default, `sys.argv`), the environment and the file."""
        try:
            super().parseOptions(options)
            self.settings = load(self, os.environ)
        except usage.UsageError as error:
            raise SystemExit(f"claudemax: {error}{self._meant(str(error))}") from None
        except ConfigError as error:
            raise SystemExit(f"claudemax: {error}") from None

    def parseArgs(self, *words: str) -> None:
        """Refuse ``words``, which are no options."""
        if words:
            meant = f"; a port is --port {words[0]}" if words[0].isdigit() else ""
            raise usage.UsageError(f"there are only options, and {words[0]!r} is none{meant}")

    def _meant(self, error: str) -> str:
        """What an option that is not known was likely meant to be. Words of `getopt`'s."""
        unknown = re.match(r"option --(\S+) not recognized", error)
        return nearest(unknown[1], [name.rstrip("=") for name in self.longOpt]) if unknown else ""

    def opt_help(self) -> None:
        """Display this help and exit."""
        super().opt_help()

    opt_h = opt_help

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
    """The method that stores the text given for the option `name`."""

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
"""What ``select`` can watch, Twisted's default on macOS: it would drop any further connection."""


def _own(reactor: IReactorTime) -> None:
    """Prepare the reactor and the limits of a process that runs only the daemon."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would contain conversations
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = SELECTABLE if isinstance(reactor, SelectReactor) else DESCRIPTORS
    room = most if hard == resource.RLIM_INFINITY else min(most, hard)
    if soft != resource.RLIM_INFINITY and soft < room:  # 256 on macOS is 60 streams
        resource.setrlimit(resource.RLIMIT_NOFILE, (room, hard))
    if not reactor.getDelayedCalls():
        # A clock that is set must not move a deadline.
        reactor.seconds = time.monotonic  # type: ignore[method-assign]


class Daemon(MultiService):
    """What twistd runs. It handles the signals, and the file that twistd logs to."""

    log = Logger()

    def __init__(
        self,
        reactor: IDaemonReactor,
        logfile: str | None,
        log_format: str,
        hurry: Callable[[], object],
    ) -> None:
        """``logfile``: the file that twistd logs to, if it logs to one of its own;
        ``log_format``: as :class:`~claudeproxy.options.Settings` has it; ``hurry``: ends a stop
        that is under way."""
        super().__init__()
        self._reactor = reactor
        self._json = log_format == "json"
        self._file = None if logfile is None else LogFile.fromFullPath(logfile)
        self._minds = False
        self._hurry = hurry
        reactor.callWhenRunning(self._mind)

    def setServiceParent(self, parent: Any) -> None:
        """Become the service of twistd's application."""
        super().setServiceParent(parent)
        if self._file is not None or self._json:
            # In place of twistd's own, which could not be told to reopen its file.
            observer = JSONLines if self._json else textFileLogObserver
            parent.setComponent(ILogObserver, observer(self._file or sys.stdout))

    def _mind(self) -> None:
        self._minds = True
        # With the reactor's own handler, twistd would die of the signal after a clean end.
        self._on(signal.SIGTERM, self._stop)
        if self._file is not None:
            self._on(signal.SIGUSR1, self._file.rotate)  # as twistd does
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
            rotated = self._file is not None and not _has_terminal()
            self._on(signal.SIGHUP, self._reopen if rotated else self._stop)

    def stopService(self) -> Any:
        """Stop; a second signal ends that at once."""
        if self._minds:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._on(number, self._hurry)
        return super().stopService()

    def _on(self, number: int, do: Callable[[], object]) -> None:
        signal.signal(number, lambda *_: self._reactor.callFromThread(do))

    def _stop(self) -> None:
        with suppress(ReactorNotRunning):  # a second signal
            self._reactor.stop()

    def _reopen(self) -> None:
        assert self._file is not None
        try:
            open(self._file.path, "a").close()  # if it cannot be opened, it had better stay open
        except OSError as error:
            self.log.error("the log cannot be opened anew: {why}", why=error.strerror)
        else:
            self._file.reopen()


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _logfile(twistd: Mapping[str, Any]) -> str | None:
    """The file that twistd logs to under these options of its own."""
    name = twistd.get("logfile")
    if twistd.get("syslog") or twistd.get("logger") or name == "-":
        return None
    if twistd.get("nodaemon") or twistd.get("debug"):
        return name or None
    return name or "twistd.log"


def _check_user(twistd: Mapping[str, Any]) -> None:
    """:raises ConfigError: when twistd should become another user: the CLI would still get the
    login, the home and the PATH of the present one."""
    uid, gid = twistd.get("uid"), twistd.get("gid")
    if uid in (None, os.geteuid()) and gid in (None, os.getegid()):
        return
    try:
        name = pwd.getpwuid(os.geteuid() if uid is None else uid).pw_name
    except KeyError:
        name = f"#{uid}"
    raise ConfigError(
        "--uid and --gid leave the environment as it is, and the CLI needs its user's; start as "
        f"that user: sudo -iu {name} twistd ... claudemax"
    )


def makeService(options: Options) -> IService:
    """The daemon. Ends the program as `Options` does if it cannot serve what is asked for."""
    # Not above: both install the reactor.
    from twisted.internet import reactor as installed

    from claudeproxy.service import find, make_service

    twistd = getattr(options, "parent", None) or {}
    reactor = cast(IDaemonReactor, installed)
    _own(reactor)
    try:
        _check_user(twistd)
        made = make_service(reactor, options.settings)
        elsewhere = twistd.get("syslog") or twistd.get("logger")
        log_format = "auto" if elsewhere else options.settings.log_format
        hurry = find(made).hurry
        daemon = Daemon(reactor, _logfile(twistd), log_format, hurry)
    except ConfigError as error:
        raise SystemExit(f"claudemax: {error}") from None
    except OSError as error:
        raise SystemExit(f"claudemax: --logfile: {error.strerror}") from None
    made.setServiceParent(daemon)
    return daemon
