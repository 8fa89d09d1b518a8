"""What a trial came to, as it may be told to others.

There are only words of ours, numbers, and words of the API's own: no address, key, path, prompt or
answer, and no message of an error, which may quote any of them.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from typing import Any

from claudeproxy import __version__

from .asker import Refused, Tokens
from .trial import DEMO, SUBSCRIPTION, Outcome, Trial

ANSWERS = {True: "yes", False: "no", None: "not asked"}

_WORD = re.compile(r"[a-z][a-z_]{0,39}")
_VERSION = re.compile(r"[0-9]+(\.[0-9]+){1,3}")
_MODEL = re.compile(r"(claude-)?(opus|sonnet|haiku|fable)(-[0-9]{1,8}){0,3}(\[1m\])?")


def as_dict(trial: Trial, model: str, *, own: bool) -> dict[str, Any]:
    """For machines and for others. ``own``: whether the daemon was there for the trial only."""
    upstream = trial.health["upstream"]
    return {
        "holds": trial.holds,
        "stopped": trial.stopped,
        "claudemax": __version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cli": _safe(_VERSION, trial.health["cli_version"]),
        "upstream": upstream if upstream in (SUBSCRIPTION, DEMO) else "another",
        "daemon": "of the trial" if own else "running",
        "model": _safe(_MODEL, model),
        "requests": trial.requests,
        "tokens": _tokens(trial.tokens),
        "seconds": round(trial.seconds, 2),
        "windows": _windows(trial),
        "extra_usage": {
            "enabled": trial.after["extra_usage"]["enabled"] if trial.after["plan"] else None,
            "paid_turns": _paid(trial),
        },
        "questions": [_question(one) for one in trial.outcomes],
    }


def as_text(told: Mapping[str, Any]) -> str:
    """The same as Markdown, for an issue."""
    tokens = told["tokens"]
    lines = [
        "### claudemax try",
        "",
        f"claudemax {told['claudemax']}, claude {told['cli']}, Python {told['python']},"
        f" {told['platform']}",
        "",
        f"Upstream: {told['upstream']}; daemon: {told['daemon']}; model: {told['model']}",
        "",
        f"{told['requests']} requests in {told['seconds']} s; tokens: {tokens['in']} in, of which"
        f" {tokens['cached']} cached, {tokens['out']} out",
        "",
        *([f"**Stopped: {told['stopped']}**", ""] if told["stopped"] else []),
        "| | Question | Answer | Seconds | In | Cached | Out | Seen |",
        "|-|-|-|-:|-:|-:|-:|-|",
    ]
    for one in told["questions"]:
        error, used = one["error"], one["tokens"]
        seen = one["why"] or ""
        if error:
            seen = f"status {error['status']}, type {error['type']}, code {error['code']}"
        lines.append(
            f"| {one['name']} | {one['question']} | **{one['answer']}** | {one['seconds']} |"
            f" {used['in']} | {used['cached']} | {used['out']} | {seen} |"
        )
    if told["windows"]:
        lines += ["", "| Window | Used before | Used after |", "|-|-:|-:|"]
    for name, window in told["windows"].items():
        lines.append(f"| {name} | {percent(window['before'])} | {percent(window['after'])} |")
    extra = told["extra_usage"]
    enabled = {True: "on", False: "off", None: "not known"}[extra["enabled"]]
    lines += ["", f"Extra usage: {enabled}; turns paid by it: {extra['paid_turns']}", ""]
    return "\n".join(lines)


def percent(used: float | None) -> str:
    """A used share of a window."""
    return "?" if used is None else f"{used:g} %"


def seen(refused: Refused) -> dict[str, Any]:
    """An error without its message."""
    return {
        "status": refused.status,
        "type": _safe(_WORD, refused.kind),
        "code": _safe(_WORD, refused.code),
    }


def _question(one: Outcome) -> dict[str, Any]:
    return {
        "name": one.question.name,
        "question": one.question.text,
        "answer": ANSWERS[one.holds],
        "why": one.why or None,
        "error": None if one.refused is None else seen(one.refused),
        "seconds": round(one.seconds, 2),
        "tokens": _tokens(one.tokens),
    }


def _windows(trial: Trial) -> dict[str, Any]:
    before, after = trial.before["windows"], trial.after["windows"]
    return {
        str(_safe(_WORD, name)): {
            "before": before.get(name, {}).get("used"),
            "after": after.get(name, {}).get("used"),
        }
        for name in {**before, **after}
    }


def _paid(trial: Trial) -> int:
    paid = [told["extra_usage"]["paid_turns"] for told in (trial.before, trial.after)]
    return int(paid[1]) - int(paid[0])


def _tokens(tokens: Tokens) -> dict[str, int]:
    return {"in": tokens.read, "cached": tokens.cached, "out": tokens.written}


def _safe(pattern: re.Pattern[str], text: Any) -> str | None:
    """``text`` if it is of a kind that tells nothing of anybody."""
    if text is None:
        return None
    return text if isinstance(text, str) and pattern.fullmatch(text) else "another"
