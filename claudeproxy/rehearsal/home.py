"""A home directory with a made-up login in it, as ``claude auth login`` leaves one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .account import EMAIL, Login
from .subscription import ORGANIZATION, PERSON

_SCOPES = "user:inference user:profile user:sessions:claude_code user:mcp_servers user:file_upload"


def put_login(home: Path, login: Login, email: str = EMAIL) -> None:
    """Be logged in as ``login`` in ``home``, instead of whoever was before."""
    folder = home / ".claude"
    folder.mkdir(parents=True, exist_ok=True)
    kept = {
        "accessToken": login.access,
        "refreshToken": login.refresh,
        "expiresAt": int(login.until * 1000),
        "scopes": _SCOPES.split(),
        "subscriptionType": "max",
        "rateLimitTier": "default_claude_max_20x",
    }
    credentials = folder / ".credentials.json"
    credentials.write_text(json.dumps({"claudeAiOauth": kept}))
    credentials.chmod(0o600)
    known = {
        "accountUuid": PERSON,
        "emailAddress": email,
        "organizationUuid": ORGANIZATION["uuid"],
    }
    config = {"hasCompletedOnboarding": True, "oauthAccount": known}
    (home / ".claude.json").write_text(json.dumps(config))


def login_in(home: Path) -> Any:
    """The login that is kept in ``home``, or ``None``: made-up ones only are ever there."""
    try:
        kept = json.loads((home / ".claude" / ".credentials.json").read_text())
    except (OSError, ValueError):
        return None
    return kept.get("claudeAiOauth")
