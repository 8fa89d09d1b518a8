"""What one CLI has been told of set-up, settings and brake, so that it is told only what is new."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .control import apply_flags, control_request
from .outputs import Write
from .settings import BRAKE, RELEASE
from .setup import Setup

SETUP = "setup"
"""The id of the request whose answer says whose login the CLI uses."""

SERVERS = "servers"
"""The id of the request for other tools."""


class Configured:
    """Each method returns the lines to write."""

    def __init__(self) -> None:
        self.setup: Setup | None = None
        """What it is set up for; ``None`` while it fits any request."""
        self._flags: Mapping[str, Any] = {}
        self._braked = False

    def set_up(self, setup: Setup) -> Write:
        """Set it up for the first time."""
        self.setup = setup
        return control_request(SETUP, setup.control_request())

    def change(self, setup: Setup, flags: Mapping[str, Any]) -> list[Write]:
        """Prepare it for a turn: ``setup`` has what a process keeps for good of the one before."""
        before = self.setup
        writes: list[Write] = []
        if before is None:
            writes.append(self.set_up(setup))
        elif before.servers != setup.servers:
            writes.append(control_request(SERVERS, setup.change_of_servers()))
        self.setup = setup
        # Set the model before any line: after one, the CLI would write it into the conversation.
        if before is None or self._braked or self._flags != {**flags, **setup.permissions}:
            writes.append(self.apply(flags))
        return writes

    def apply(self, flags: Mapping[str, Any]) -> Write:
        """Apply all of ``flags``, which release the brake."""
        assert self.setup is not None
        self._flags = {**flags, **self.setup.permissions}
        self._braked = False
        return apply_flags(self._flags)

    def brake(self) -> Write:
        """Let it ask nothing more of the model; see :data:`.settings.BRAKE`."""
        self._braked = True
        return apply_flags(BRAKE)

    def release(self) -> list[Write]:
        """Release the brake while nobody waits: the next turn then begins 8 ms earlier. Nothing but
        the brake, as sending all settings would cost that turn 3 ms."""
        if not self._braked:
            return []
        self._braked = False
        return [apply_flags({"env": RELEASE})]
