"""What the daemon reports about itself: its health."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from attrs import frozen

from claudeproxy.engine.engine import Engine


@frozen
class StoreState:
    """``kind``: ``sqlite``, ``postgresql`` or ``none``; ``lost_since``: since when it does not
    answer, epoch seconds; ``nodes``: the ids of those that share it and are alive."""

    kind: str = "none"
    lost_since: float | None = None
    nodes: Sequence[str] = ()

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        lost = self.lost_since
        return {
            "kind": self.kind,
            "reachable": lost is None,
            "since": None if lost is None else _iso(datetime.fromtimestamp(lost, timezone.utc)),
            "nodes": list(self.nodes),
        }


@frozen
class Status:
    """What ``GET /health`` reports about the CLI, its upstream and the store. ``lost_facts``: the
    names of the facts to which this version of the CLI does not hold; ``recording``: whether
    exchanges are; ``node``: which daemon this is."""

    cli_version: str
    upstream: str
    lost_facts: Sequence[str] = ()
    recording: bool = False
    node: str = ""
    store: StoreState = StoreState()


def health(engine: Engine, status: Status) -> dict[str, Any]:
    """Whether turns can be served; what needs no store can be without it."""
    keeper, admission, login = engine.keeper, engine.admission, engine.quota.login
    well = keeper.failures == 0 and not login.failing and not status.lost_facts
    well = well and status.store.lost_since is None
    return {
        "status": "ok" if well else "degraded",
        "provider": "claude-code-cli",
        "timestamp": _iso(datetime.now(timezone.utc)),
        "node": status.node,
        "store": status.store.as_dict(),
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


def _iso(when: datetime) -> str:
    return when.isoformat().replace("+00:00", "Z")
