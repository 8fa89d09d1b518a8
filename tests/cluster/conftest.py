"""For tests of several nodes: what is logged, as text, and no turn that is left over."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from nodes import end_all
from twisted.logger import formatEvent, globalLogPublisher


@pytest.fixture(autouse=True)
def all_ended() -> Iterator[None]:
    """No turn waits after its test."""
    yield
    end_all()


@pytest.fixture
def caplog_of_twisted() -> Iterator[list[str]]:
    """The lines that are logged during the test."""
    lines: list[str] = []

    def observe(event: Any) -> None:
        lines.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)
