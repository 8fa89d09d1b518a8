"""Fixtures: a daemon for all tests, daemons of one's own, and no logged error unnoticed."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from harness import Daemon, start_daemon, stop_daemon
from twisted.internet.defer import ensureDeferred
from twisted.logger import LogLevel, globalLogPublisher


@pytest.fixture(autouse=True)
def nothing_logged(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """A logged error or an unhandled Deferred fails the test: pytest-twisted lets both pass."""
    errors: list[str] = []

    def observe(event: dict[str, Any]) -> None:
        if event.get("log_level") in (LogLevel.error, LogLevel.critical):
            failure = event.get("log_failure")
            errors.append(failure.getTraceback() if failure else str(event.get("log_format")))

    globalLogPublisher.addObserver(observe)
    yield errors
    gc.collect(0)  # an unhandled error in a Deferred is logged when that is collected
    globalLogPublisher.removeObserver(observe)
    if not request.node.get_closest_marker("expected_errors"):
        assert not errors, "\n".join(errors)


@pytest.fixture(scope="session")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for all tests that do nothing to it."""
    home = tmp_path_factory.mktemp("home")
    running = pytest_twisted.blockon(ensureDeferred(start_daemon(home)))
    yield running
    pytest_twisted.blockon(ensureDeferred(stop_daemon(running)))


@pytest_twisted.async_yield_fixture
async def make_daemon(tmp_path: Path) -> Any:
    """``await make_daemon(keep=0)``: a daemon with settings of its own."""
    running: list[Daemon] = []

    async def make(**changes: Any) -> Daemon:
        daemon = await start_daemon(tmp_path / f"home{len(running)}", **changes)
        running.append(daemon)
        return daemon

    yield make
    for daemon in running:
        await stop_daemon(daemon)
