"""Every test of this directory runs with the newest CLI and with the oldest supported one."""

import os

import pytest
from driver import Stage, run

from claudeproxy.cli import launch

OLDEST = os.environ.get("CLAUDEMAX_OLDEST_CLI")
"""``make test`` sets it; without it only the newest CLI is tried."""


def pytest_report_header():
    if not OLDEST:
        return "contract: only the newest CLI, CLAUDEMAX_OLDEST_CLI is not set (make test sets it)"
    return f"contract: the newest CLI, and {OLDEST}"


@pytest.fixture(scope="session", params=["newest", "oldest"] if OLDEST else ["newest"])
def claude(request):
    """The executable. ``newest`` is the one in the installed ``claude-agent-sdk``."""
    path = launch.bundled() if request.param == "newest" else OLDEST
    if path is None or not os.access(path, os.X_OK):
        pytest.fail(f"there is no {request.param} CLI ({path}): run `make test`")
    return os.path.abspath(path)


@pytest.fixture(scope="module")
def stage(claude, tmp_path_factory):
    """Starts CLIs that live as long as the module: ``await stage(login="key", **demo)``.

    ``login``: ``key``, ``oauth`` or ``none``; ``plant``: called with the stage before the start;
    ``more``: variables for the CLI beyond those the daemon gives it.
    """
    stages = []

    async def start(*, login="key", plant=None, more=(), **demo):
        folder = tmp_path_factory.mktemp("stage").resolve()
        made = Stage(claude, folder, login=login, more=dict(more), **demo)
        if plant is not None:
            plant(made)
        stages.append(made)
        await made.start()
        return made

    yield start
    for made in stages:
        run(made.close())


@pytest.fixture(scope="session")
def newest(claude):
    """Whether it is the newest CLI, for the facts in which the two differ."""
    return claude == launch.bundled()
