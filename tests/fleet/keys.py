"""The holders of keys, and what they may."""

from __future__ import annotations

from pathlib import Path

LIMITED = 40
"""Requests a day of one key that many clients use."""

BURST = 20
"""Requests a day of one that is used by all nodes at once."""

TOKENS = 400
"""Tokens a day of another."""

RULES = {
    "anna": "",
    "bert": "",
    "carl": f"requests={LIMITED}/day tokens=5M/day",
    "dora": f"requests={BURST}/day",
    "emil": f"tokens={TOKENS}/day",
    "frau": "reserve=five_hour=10",
}

CLIENTS = ("anna", "anna", "bert", "bert", "carl")
"""Those that the clients of the whole run choose from."""

QUOTA = ("carl", "dora", "emil")
"""Those that have to be counted."""


def secret(name: str) -> str:
    return f"{name}-secret-for-tests-{name * 3}"


def write(path: Path) -> None:
    lines = [f"{name}: {secret(name)} {rules}".strip() for name, rules in RULES.items()]
    path.write_text("\n".join(lines) + "\n")
    path.chmod(0o600)
