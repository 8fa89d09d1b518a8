"""Whether the login works, learnt from turns and from what the CLI reports."""

from __future__ import annotations

from collections.abc import Callable

from claudeproxy.cli.errors import LOGGED_OUT, NOT_RENEWED, LoginAdvice, not_logged_in
from claudeproxy.cli.login import LoginStatus
from claudeproxy.messages import Failure, FailureError

PROBE = 60.0
"""Seconds after which a turn is let through to see whether a dead login works again. A new login is
mostly noticed before, by its trace on disk or by what the CLI reports."""


class LoginState:
    """``works``: as last known; ``None`` before the first report, and always for another upstream.

    The CLI calls a login good that the upstream refuses (expired, revoked), so a turn counts for
    more than the CLI's word, until somebody logs in again.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._failure: Failure | None = None
        self._until = 0.0
        self._was_out = False
        self.number = 0
        """Counts the new logins."""
        self.works: bool | None = None
        self.advice = LoginAdvice()
        """What to tell a client that is refused."""
        self.account: str | None = None
        """Which account it is; see :class:`~claudeproxy.cli.login.LoginStatus`."""

    @property
    def failing(self) -> bool:
        """Whether turns are refused because of the login."""
        return self._failure is not None

    @property
    def refuses(self) -> bool:
        """Whether a turn that came now would be refused because of the login. Where the CLI itself
        says that nobody is logged in, no turn has to try that: it is asked again by itself."""
        return self._failure is not None and (self._was_out or self._now() < self._until)

    def check(self) -> None:
        """:raises FailureError: 401 or 503 while a turn could only fail."""
        if self._failure is not None and self._now() < self._until:
            raise FailureError(self._failure)

    def probed(self) -> None:
        """A turn is let through; its end will tell whether the login works."""
        if self._failure is not None:
            self._until = self._now() + PROBE

    def ended(self, failure: Failure | None, number: int) -> None:
        """A turn that began under login ``number`` is over; ``failure`` if it brought no answer."""
        if number != self.number:
            return  # it used an earlier login
        if failure is None:
            self._failure, self._was_out = None, False
            self.works = None if self.works is None else True
        elif failure.code == LOGGED_OUT and self.works is not None:
            self.works, self._failure, self._until = False, failure, self._now() + PROBE
        elif failure.code == NOT_RENEWED:
            self._failure, self._until = failure, self._now() + (failure.retry_after or 0.0)

    def told(self, status: LoginStatus, *, stored: bool) -> bool:
        """Take in what the CLI reports now. Returns whether that is a new login.

        ``stored``: whether a login was put on disk since the last report.
        """
        if not status.logged_in:
            if self.works is not False:
                self.works, self._until = False, self._now() + PROBE
                self._failure = not_logged_in(self.advice)
            self._was_out = True
            return False
        other = self.account is not None and status.account != self.account
        revived = self.failing and (self._was_out or stored)
        self.account = status.account
        if self.works is None or other or revived:
            self.works, self._failure, self._was_out = True, None, False
        self.number += other or revived
        return other or revived
