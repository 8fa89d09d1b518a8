"""Notices that the CLI was updated, and that somebody logs in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from .installation import Installation
from .launch import CLIError
from .login import LoginStatus

INTERVAL = 2.0
"""Seconds between two looks at the files of the CLI and of its login."""

ASK_EVERY = 5
"""Looks between two questions to the CLI whether somebody is logged in, while nobody is."""


class Observer(Protocol):
    """Whoever has to know."""

    def renew(self) -> None:
        """The CLI has changed: its processes have to be replaced."""

    def login_is(self, status: LoginStatus, *, stored: bool = False) -> None:
        """The CLI was asked whose login it finds; ``stored``: one was put on disk since the last
        time."""

    @property
    def login_works(self) -> bool | None:
        """Whether the login works; ``None`` if that is not known."""


class Watch:
    """Looks from time to time. It watches the login only where the CLI's processes use it."""

    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        cli: Installation,
        observer: Observer,
        trial: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """``trial``: what is done with a CLI that was updated before its processes are used."""
        self._cli = cli
        self._observer = observer
        self._trial = trial
        self._looks = 0
        self._loop = LoopingCall(self._look)
        self._loop.clock = reactor

    def start(self) -> None:
        """Look now, and every :data:`INTERVAL` from then on."""
        self._loop.start(INTERVAL)

    def stop(self) -> None:
        """Look no more."""
        if self._loop.running:
            self._loop.stop()

    def _look(self) -> Deferred[None]:
        return ensureDeferred(self._look_and_tell())

    async def _look_and_tell(self) -> None:
        try:
            if await self._cli.changed():
                self.log.info("the Claude CLI is now {version}", version=self._cli.version)
                if self._trial is not None:
                    await self._trial()
                self._observer.renew()
            if self._cli.holds_login:
                self._cli.unlist()
                await self._look_at_login()
        except (CLIError, OSError) as error:
            self.log.warn("the Claude CLI cannot be asked: {error}", error=str(error))
        except Exception:  # or the loop would end
            self.log.failure("the Claude CLI could not be watched")

    async def _look_at_login(self) -> None:
        stored = self._cli.login_was_stored()
        self._looks += 1
        due = self._observer.login_works is not True and self._looks % ASK_EVERY == 1
        if stored or due:
            status = await self._cli.login()
            if status is not None:
                self._observer.login_is(status, stored=stored)
