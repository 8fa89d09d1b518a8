"""Several machines, proved: ``make cluster``, or ``TURNS=200 python tests/cluster.py`` for fewer.

Two daemons over the real CLI and one rehearsed subscription, a real HAProxy before them and a real
PostgreSQL behind. Clients of all kinds ask, and meanwhile nodes are killed and stopped, and the
database goes away: each at a point of progress. What has to hold then is in ``fleet/checks.py``.
"""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]
os.environ["NO_PROXY"] = "127.0.0.1"  # the SDKs look for one

import postgres as database  # noqa: E402
from fleet import balancer  # noqa: E402
from fleet.run import Run  # noqa: E402
from fleet.upstream import Upstream  # noqa: E402
from twisted.internet import task  # noqa: E402
from twisted.internet.defer import ensureDeferred  # noqa: E402
from twisted.internet.threads import deferToThread  # noqa: E402

TURNS = int(os.environ.get("TURNS", "1000"))


def missing() -> str | None:
    """What is not here and cannot be had."""
    why = database.missing()
    return why or (None if balancer.program() else "HAProxy is not installed")


async def main(reactor: Any) -> None:
    why = missing()
    if why is not None:
        print(f"skipped: {why}")
        return
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cluster-")))
        server = stack.enter_context(database.throw_away())
        upstream = Upstream()
        await upstream.start(reactor, directory)
        run = Run(directory, upstream, server, TURNS)
        try:
            await deferToThread(run.all)
        finally:
            await deferToThread(run.stop)
            await upstream.port.stopListening()
        if not run.report():
            sys.exit(1)


if __name__ == "__main__":
    task.react(lambda reactor: ensureDeferred(main(reactor)))
