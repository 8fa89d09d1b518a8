"""The end-to-end tests run in both modes, and count the upstream requests in each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from harness import MODES, Daemon
from pytest_twisted import blockon
from twisted.internet.defer import ensureDeferred


@pytest.fixture(scope="session", params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    """What the CLI talks to, see :mod:`harness`."""
    return str(request.param)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what only makes sense in the other mode."""
    out = [item for item in items if _mode_of(item) not in (None, *_wanted(item))]
    config.hook.pytest_deselected(items=out)
    items[:] = [item for item in items if item not in out]


def _mode_of(item: pytest.Item) -> str | None:
    callspec = getattr(item, "callspec", None)
    return callspec.params.get("mode") if callspec is not None else None


def _wanted(item: pytest.Item) -> tuple[str, ...]:
    marker = item.get_closest_marker("only")
    return MODES if marker is None else (marker.args[0],)


@pytest.fixture(autouse=True)
def one_request_a_turn(request: pytest.FixtureRequest) -> Iterator[None]:
    """The CLI asks nothing of its own: of the shared daemon, after each test."""
    if "daemon" not in request.fixturenames:
        yield
        return
    shared: Daemon = request.getfixturevalue("daemon")
    before = shared.extra_requests
    yield
    blockon(ensureDeferred(shared.at_rest()))
    if not request.node.get_closest_marker("asks_again"):
        assert shared.extra_requests <= before
