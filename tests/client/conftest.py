"""A Claude of each kind, over a daemon with the CLI's double."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from attrs import frozen
from harness import Daemon
from ways import WAYS, claude_of

from claudeproxy.client import Claude
from claudeproxy.testing import fake_cli


@frozen
class Over:
    """A daemon, and Claude through it."""

    daemon: Daemon
    claude: Claude


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """How a program asks."""
    return str(request.param)


@pytest.fixture
def real(daemon: Daemon, way: str) -> Claude:
    """Claude through the real CLI."""
    return claude_of(daemon, way)


@pytest_twisted.async_fixture
async def make_double(make_daemon: Any, tmp_path: Path, way: str) -> Callable[..., Any]:
    """``await make_double(answer="...")``: Claude through a double of its own; settings of the
    daemon are given as ``daemon={...}``."""

    async def make(daemon: Any = None, **plan: Any) -> Over:
        made = await make_daemon(claude=fake_cli(tmp_path / "cli", **plan), **(daemon or {}))
        return Over(made, claude_of(made, way))

    return make
