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
    answer, epoch seconds; ``nodes``: the ids of those that share it and are alive;
    ``other_accounts``: digests of the accounts of those that do not share this node's plan;
    ``waiting_rows``: turns that are over, and not in it yet."""

    kind: str = "none"
    lost_since: float | None = None
    nodes: Sequence[str] = ()
    other_accounts: Sequence[str] = ()
    waiting_rows: int = 0

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        lost = self.lost_since
        return {
            "kind": self.kind,
            "reachable": lost is None,
            "since": None if lost is None else _iso(datetime.fromtimestamp(lost, timezone.utc)),
            "nodes": list(self.nodes),
            "other_accounts": list(self.other_accounts),
            "waiting_rows": self.waiting_rows,
        }


@frozen
class Status:
    """What ``GET /health`` reports about the CLI, its upstream and the store. ``lost_facts``: the
    names of the facts to which this version of the CLI does not hold; ``recording``: whether
    exchanges are; ``draining``: the daemon is about to end; ``node``: which daemon this is."""

    cli_version: str
    upstream: str
    lost_facts: Sequence[str] = ()
    recording: bool = False
    draining: bool = False
    node: str = ""
    store: StoreState = StoreState()


def serves(engine: Engine, status: Status) -> bool:
    """Whether a balancer should send turns here: none would be refused because of the CLI or its
    login, or the daemon's end."""
    return not (status.draining or engine.keeper.hopeless or engine.quota.login.refuses)


def health(engine: Engine, status: Status) -> dict[str, Any]:
    """How the daemon is. What needs no store can be served without it."""
    keeper, admission, login = engine.keeper, engine.admission, engine.quota.login
    well = keeper.failures == 0 and not login.failing and not status.lost_facts
    well = well and status.store.lost_since is None
    state = "ok" if well else "degraded"
    return {
        "status": "draining" if status.draining else state,
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
