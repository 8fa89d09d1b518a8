"""Speaks raw lines to the real CLI, in front of the embedded stand-in Messages API.

It uses the daemon's own flags and environment (:mod:`claudeproxy.cli.launch`) and none of its
session code: these tests pin the CLI, not us. Lines, processes and stages are those of
:mod:`claudeproxy.selftest`, with which the daemon's user tries the facts.
"""

import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred

from claudeproxy.cli import launch
from claudeproxy.rehearsal.home import put_login
from claudeproxy.rehearsal.proxy import rehearse
from claudeproxy.selftest import stage
from claudeproxy.selftest.lines import (
    PNG,
    RESULT,
    assistant,
    call,
    completed,
    control,
    conversation,
    environ,
    event,
    extra,
    flags,
    greeting,
    is_reminder,
    of_type,
    result,
    serving,
    system_texts,
    text,
    tool,
    tools_call,
    tools_of,
    use_id,
    user,
)
from claudeproxy.selftest.stage import OLD, Turn

__all__ = [
    "CLI",
    "NEW",
    "OLD",
    "PNG",
    "RESULT",
    "Stage",
    "Turn",
    "assistant",
    "call",
    "completed",
    "control",
    "conversation",
    "environ",
    "event",
    "extra",
    "flags",
    "greeting",
    "is_reminder",
    "of_type",
    "result",
    "run",
    "serving",
    "system_texts",
    "text",
    "tool",
    "tools_call",
    "tools_of",
    "use_id",
    "user",
]

PATIENCE = 30.0
"""Seconds to wait for any one line; only a broken fact waits that long."""

NEW = "opus"
"""An alias of a model that thinks as it sees fit and gets the environment as a system message."""


def run(coroutine):
    """The result of a coroutine, for fixtures and tests that are plain functions."""
    return pytest_twisted.blockon(ensureDeferred(coroutine))


class CLI(stage.CLI):
    """One ``claude`` that a test starts by itself."""

    def __init__(self):
        super().__init__(reactor, PATIENCE)


class Stage(stage.Stage):
    """A stage that can also be in front of a rehearsed subscription.

    ``subscription``: the account behind it, where there is one. Tools go by plain names, as facts
    are easier to read so; ``more`` may say otherwise.
    """

    def __init__(
        self,
        executable,
        folder,
        *,
        login,
        more,
        plain_names=True,
        inbound="refuse",
        login_seconds=28_800,
        renewal_seconds=0.0,
        **demo,
    ):
        """``login_seconds``: for how long its login is good; ``renewal_seconds``: how long a
        renewal takes."""
        super().__init__(
            reactor,
            executable,
            folder,
            login=login,
            more=more.items(),
            plain_names=plain_names,
            inbound=inbound,
            patience=PATIENCE,
            **demo,
        )
        self.subscription = None
        self._login_seconds = login_seconds
        self._renewal_seconds = renewal_seconds

    async def _serve(self):
        if self._login != "subscription":
            await super()._serve()
            return
        rehearsal = await rehearse(reactor, self.folder, **self._demo_options)
        self._port, self.subscription = rehearsal.port, rehearsal.subscription
        self.demo = self.subscription.messages
        self.account = self.subscription.account
        self.account.renewal_seconds = self._renewal_seconds
        put_login(self.home, self.account.log_in(self._login_seconds))
        self._environ.update(rehearsal.environment)

    def environment(self):
        """``login``: ``subscription`` is what a user's machine has."""
        if self._login != "subscription":
            return super().environment()
        variables = launch.environment(self._environ, plain_names=self._plain_names)
        return {**variables, **self._more}
