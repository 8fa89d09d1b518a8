"""What parts of the daemon need of the reactor, where that is more than one interface."""

from __future__ import annotations

from twisted.internet.interfaces import (
    IReactorCore,
    IReactorFDSet,
    IReactorFromThreads,
    IReactorProcess,
    IReactorTCP,
    IReactorThreads,
    IReactorTime,
)


class IProcessReactor(IReactorTime, IReactorProcess):
    """Starts processes, and gives them time."""


class IServerReactor(IReactorTime, IReactorTCP):
    """Serves connections, and gives them time."""


class IStageReactor(IProcessReactor, IServerReactor):
    """Starts processes in front of what it serves."""


class IReadingReactor(IReactorTime, IReactorFDSet):
    """Waits for file descriptors, and gives time."""


class IDaemonReactor(
    IStageReactor,
    IReadingReactor,
    IReactorCore,
    IReactorThreads,
    IReactorFromThreads,
):
    """All that the daemon needs. Twisted's reactors provide it on every POSIX system."""
