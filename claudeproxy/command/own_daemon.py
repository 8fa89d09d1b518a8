"""A daemon in this process for as long as something asks it."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import click
from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.python.failure import Failure as Reason

from claudeproxy.options import ConfigError, Settings

from .places import Address
from .running import Running

Found = TypeVar("Found")

MAX_SOCKET_PATH = 103
"""Bytes of a unix socket's path on macOS; Linux takes four more."""


def small(settings: Settings) -> Settings:
    """The user's settings for a few turns one by one, none of which is paid for, stored or
    recorded.

    Its socket is its user's alone, so it wants no key.
    """
    return evolve(
        settings,
        processes=2,
        drain=1.0,
        api_key_file=None,
        extra_usage=False,
        no_store=True,
        store=None,
        record=None,
    )


def serving(
    settings: Settings, environ: Mapping[str, str], work: Callable[[Running], Found]
) -> Found:
    """What ``work`` returns, which runs in a thread and may block. Once in a process's life.

    ``settings``: as :func:`small` has made them.

    :raises click.ClickException: when it cannot be served so.
    :raises click.Abort: when a signal ends it.
    """
    # Not above: all three install the reactor.
    from twisted.internet import reactor as installed
    from twisted.internet.threads import deferToThread

    from claudeproxy.service import Claudemax

    reactor: Any = installed
    done: list[Found] = []
    broken: list[Reason] = []
    interrupted = False

    def begin() -> None:
        # The reactor does so for the others; a CLI whose pipes were closed could lose the login.
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
            signal.signal(signal.SIGHUP, lambda *_: reactor.callFromThread(hung_up))
        try:
            api.startService()
            reactor.listenUNIX(path, api.site, mode=0o600)
        except Exception:
            broken.append(Reason())
            reactor.stop()
            return
        working = deferToThread(work, Running(Address("", 0, path)))
        working.addCallbacks(done.append, broken.append)
        working.addBoth(lambda _: None if interrupted else reactor.stop())

    def hung_up() -> None:
        with suppress(ReactorNotRunning):
            reactor.stop()

    def stop() -> Deferred[None]:
        nonlocal interrupted
        interrupted = not (done or broken)
        return api.stopService()

    # By this name a daemon finds it that comes after one which died.
    prefix = f"claudemax-{os.getpid()}-try-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=_room(prefix)) as folder:
        path = str(Path(folder, "socket"))
        try:
            api = Claudemax(reactor, settings, environ)
        except ConfigError as error:
            raise click.ClickException(str(error)) from None
        reactor.addSystemEventTrigger("before", "shutdown", stop)
        reactor.callWhenRunning(begin)
        reactor.run()
    if interrupted:
        raise click.Abort
    if broken:
        broken[0].raiseException()
    return done[0]


def _room(prefix: str) -> str | None:
    """The directory for it: the usual one, where a socket's path in it is not too long."""
    path = os.path.join(tempfile.gettempdir(), f"{prefix}12345678", "socket")
    return None if len(os.fsencode(path)) <= MAX_SOCKET_PATH else "/tmp"
