"""Fixtures: a daemon for all tests, daemons of one's own, and no logged error unnoticed."""

from __future__ import annotations

import gc
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from harness import Daemon, start_daemon, stop_daemon
from hypothesis import settings
from machine import Machine
from postgres import Postgres, missing, throw_away
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred
from twisted.logger import LogLevel, globalLogPublisher

from claudeproxy.store.database import Database
from claudeproxy.store.postgres import PostgreSQL

_PROCESSES = {
    "daemon",
    "make_daemon",
    "stage",
    "claude",
    "twistd",
    "double",
    "installed",
    "serving",
}
"""Fixtures that start CLIs, real ones or doubles."""

# How long an example takes is the machine's matter; what hangs is timed out as a whole.
settings.register_profile("house", deadline=None)
settings.load_profile("house")

_FOLDERS = {"contract", "e2e", "faults"}

_ALONE = {
    "test_distributions.py",
    "test_doctor.py",
    "test_login.py",
    "test_serve.py",
    "test_service.py",
    "test_try.py",
}
"""Files whose tests, like those of faults, are about time, signals or a terminal; or share what
takes long to make, which each worker would make anew."""


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """Whatever starts a CLI is marked: the rest is the fast loop, ``-m "not cli"``. What is slow
    comes first: meanwhile other workers do the rest."""
    for item in items:
        if item.path.parent.name in _FOLDERS or _PROCESSES & set(getattr(item, "fixturenames", ())):
            item.add_marker("cli")
        if item.path.parent.name == "faults" or item.path.name in _ALONE:
            item.add_marker("alone")
    yield
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_configure() -> None:
    """Whoever starts the tests in the background may ignore Ctrl-C and hangups, and every daemon
    would inherit that."""
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


COLLECTED = "cannot reuse already awaited coroutine"
"""Coroutines that were thrown away together while they waited for each other are closed one by one,
and what the end of one fires finds the other closed. Only what a test has left over is collected
like that, by whichever test runs then: the reactor holds whatever a daemon waits for."""


def _without_collected(errors: list[str]) -> list[str]:
    """``errors`` without those, and their headlines, each of which stands before its error."""
    collected = {n for n, error in enumerate(errors) if error.rstrip().endswith(COLLECTED)}
    left_out = collected | {n - 1 for n in collected}
    return [error for n, error in enumerate(errors) if n not in left_out]


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
    Machine.end_all()
    gc.collect(0)  # an unhandled error in a Deferred is logged when that is collected
    globalLogPublisher.removeObserver(observe)
    errors[:] = _without_collected(errors)
    if not request.node.get_closest_marker("expected_errors"):
        assert not errors, "\n".join(errors)


@pytest.fixture(scope="session")
def mode() -> str:
    """What the CLI talks to, see :mod:`harness`. The end-to-end tests run in both modes."""
    return "key"


@pytest.fixture(scope="session")
def daemon(tmp_path_factory: pytest.TempPathFactory, mode: str) -> Iterator[Daemon]:
    """One daemon for all tests that do nothing to it."""
    home = tmp_path_factory.mktemp("home")
    running = pytest_twisted.blockon(ensureDeferred(start_daemon(home, mode)))
    yield running
    pytest_twisted.blockon(ensureDeferred(stop_daemon(running)))


@pytest_twisted.async_yield_fixture
async def make_daemon(request: pytest.FixtureRequest, tmp_path: Path, mode: str) -> Any:
    """``await make_daemon(processes=1)``: a daemon with settings of its own."""
    running: list[Daemon] = []

    async def make(**changes: Any) -> Daemon:
        changes.setdefault("mode", mode)
        daemon = await start_daemon(tmp_path / f"home{len(running)}", **changes)
        running.append(daemon)
        return daemon

    yield make
    for daemon in running:
        await stop_daemon(daemon)
    if not request.node.get_closest_marker("asks_again"):
        assert all(daemon.extra_requests <= 0 for daemon in running)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL for all tests of this process; without one here, its tests are skipped. Who
    stops it need not start it again."""
    why = missing()
    if why is not None:
        pytest.skip(why)
    with throw_away() as server:
        yield server


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    """The URL of an empty database for this test alone."""
    url = postgres.create_database()
    yield url
    postgres.drop_database(url)


@pytest.fixture
def postgresql(postgres_url: str) -> Iterator[PostgreSQL]:
    """A database of one's own, open."""
    opened = PostgreSQL(postgres_url)
    opened.open(reactor)
    yield opened
    opened.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Database:
    """The file of the fixture ``sqlite`` of the module or folder, and PostgreSQL where it is
    installed."""
    made: Database = request.getfixturevalue(request.param)
    return made


@pytest.fixture
def request_lines() -> Iterator[list[dict[str, Any]]]:
    """The events of requests, as they are logged."""
    seen: list[dict[str, Any]] = []

    def observe(event: dict[str, Any]) -> None:
        if event.get("log_namespace") == "claudeproxy.web.access_log":
            seen.append(event)

    globalLogPublisher.addObserver(observe)
    yield seen
    globalLogPublisher.removeObserver(observe)
