"""What is told of the daemon itself: its models and its health."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from attrs import frozen

from claudeproxy.engine.catalogue import Entry
from claudeproxy.engine.engine import Engine

_LISTED_SINCE = 1_700_000_000
"""``created`` of every model: the CLI does not tell."""


@frozen
class Status:
    """What ``GET /health`` says. ``logged_in`` is as last known, ``None`` while unknown."""

    cli_version: str
    upstream: str
    logged_in: bool | None


def model_object(entry: Entry) -> dict[str, Any]:
    """One object for both families: OpenAI's fields and Anthropic's."""
    return {
        "id": entry.id,
        "object": "model",
        "created": _LISTED_SINCE,
        "owned_by": "anthropic",
        "type": "model",
        "display_name": entry.title,
        "created_at": datetime.fromtimestamp(_LISTED_SINCE, timezone.utc).isoformat(),
    }


def model_list(entries: Sequence[Entry]) -> dict[str, Any]:
    """The list of models, for both families."""
    data = [model_object(entry) for entry in entries]
    return {
        "object": "list",
        "data": data,
        "has_more": False,
        "first_id": data[0]["id"],
        "last_id": data[-1]["id"],
    }


def health(engine: Engine, status: Status) -> dict[str, Any]:
    """Whether turns can be served."""
    pool, admission = engine.pool, engine.admission
    return {
        "status": "ok" if pool.failures == 0 and status.logged_in is not False else "degraded",
        "provider": "claude-code-cli",
        "timestamp": datetime.now(timezone.utc).isoformat().replace("+00:00", "Z"),
        "cli_version": status.cli_version,
        "upstream": status.upstream,
        "logged_in": status.logged_in,
        "used_up_until": engine.standing.report(),
        "processes": {
            "warm": pool.warm,
            "starting": pool.starting,
            "kept": len(engine.conversations),
            "failed_starts": pool.failures,
        },
        "turns": {"running": admission.running, "waiting": admission.waiting},
    }
