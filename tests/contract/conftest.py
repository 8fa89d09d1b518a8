"""Every test of this directory runs with the newest CLI and with the oldest supported one, with a
key and, where it does not name a login of its own, with that of a rehearsed subscription.
"""

import os

import pytest
from driver import Stage, run
from harness import MODES

from claudeproxy.cli import launch

OLDEST = os.environ.get("OLDEST_CLAUDE_CLI")
"""``make test`` sets it; without it only the newest CLI is tried."""


def pytest_report_header():
    if not OLDEST:
        return "contract: only the newest CLI, OLDEST_CLAUDE_CLI is not set (make test sets it)"
    return f"contract: the newest CLI, and {OLDEST}"


@pytest.fixture(scope="session", params=["newest", "oldest"] if OLDEST else ["newest"])
def claude(request):
    """The executable. ``newest`` is the one in the installed ``claude-agent-sdk``."""
    path = launch.bundled() if request.param == "newest" else OLDEST
    if path is None or not os.access(path, os.X_OK):
        pytest.fail(f"there is no {request.param} CLI ({path}): run `make test`")
    return os.path.abspath(path)


@pytest.fixture(scope="session", params=MODES)
def mode(request):
    """What the CLI talks to if a test does not say: a stand-in with a key, or a subscription."""
    return request.param


@pytest.fixture(scope="module")
def subscribed(mode):
    """Whether it is a subscription, for the facts in which the two differ."""
    return mode == "subscription"


@pytest.fixture(scope="module")
def stage(claude, mode, tmp_path_factory):
    """Starts CLIs that live as long as the module: ``await stage(**demo)``.

    ``login``: ``key``, ``subscription``, ``oauth`` (a token, and a base URL all the same) or
    ``none``; else as the mode says. ``plant``: called with the stage before the start;
    ``more``: variables for the CLI beyond those the daemon gives it.
    """
    stages = []

    async def start(*, login=None, plant=None, more=(), **demo):
        folder = tmp_path_factory.mktemp("stage").resolve()
        made = Stage(claude, folder, login=login or mode, more=dict(more), **demo)
        if plant is not None:
            plant(made)
        stages.append(made)
        await made.start()
        return made

    yield start
    for made in stages:
        run(made.close())


def pytest_collection_modifyitems(config, items):
    """A test that names its login need not run in the other mode."""
    out = []
    for item in items:
        callspec = getattr(item, "callspec", None)
        own = item.get_closest_marker("only")
        if own and callspec and callspec.params.get("mode") not in (None, own.args[0]):
            out.append(item)
    config.hook.pytest_deselected(items=out)
    items[:] = [item for item in items if item not in out]


@pytest.fixture(scope="session")
def newest(claude):
    """Whether it is the newest CLI, for the facts in which the two differ."""
    return claude == launch.bundled()
