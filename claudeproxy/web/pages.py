"""What the daemon reports about itself: its health."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from attrs import frozen

from claudeproxy.engine.engine import Engine


@frozen
class Status:
    """What ``GET /health`` reports about the CLI and its upstream. ``lost_facts``: the names of the
    facts to which this version of the CLI does not hold; ``recording``: whether exchanges are;
    ``draining``: the daemon is about to end."""

    cli_version: str
    upstream: str
    lost_facts: Sequence[str] = ()
    recording: bool = False
    draining: bool = False


def serves(engine: Engine, status: Status) -> bool:
    """Whether a balancer should send turns here: none would be refused because of the CLI or its
    login, or the daemon's end."""
    return not (status.draining or engine.keeper.hopeless or engine.quota.login.refuses)


def health(engine: Engine, status: Status) -> dict[str, Any]:
    """How the daemon is."""
    keeper, admission, login = engine.keeper, engine.admission, engine.quota.login
    well = keeper.failures == 0 and not login.failing and not status.lost_facts
    state = "ok" if well else "degraded"
    return {
        "status": "draining" if status.draining else state,
        "provider": "claude-code-cli",
        "timestamp": datetime.now(timezone.utc).isoformat().replace("+00:00", "Z"),
        "cli_version": status.cli_version,
        "lost_facts": list(status.lost_facts),
        "upstream": status.upstream,
        "recording": status.recording,
        "logged_in": login.works,
        "used_up_until": {name: str(round(until)) for name, until in engine.quota.closed().items()},
        "processes": {
            "warm": keeper.unused,
            "starting": keeper.starting,
            "kept": keeper.holding,
            "failed_starts": keeper.failures,
        },
        "turns": {"running": admission.running, "waiting": admission.waiting},
    }
