"""The log for people, from events as the daemon logs them."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from attrs import evolve
from twisted.logger import Logger, LogLevel

from claudeproxy.command.terminal import console
from claudeproxy.command.turn_lines import (
    DEMO,
    NOT_LOGGED_IN,
    SUBSCRIPTION,
    UNKNOWN,
    Start,
    TurnLines,
)

REQUEST = {
    "key": None, "model": "opus", "answered_by": "claude-opus-5-5", "method": "POST",
    "path": "/v1/messages", "status": 200, "outcome": "ok", "code": None, "cause": None,
    "seconds": 3.1, "first_token": 0.42, "input_tokens": 12_345, "cached_tokens": 12_000,
    "output_tokens": 212,
}  # fmt: skip

START = Start(("http://localhost:3456",), "/bin/claude", "2.1.331", SUBSCRIPTION, "", False)


def shown(namespace: str, level: LogLevel = LogLevel.info, format: str = "", **fields: Any) -> str:
    """What is written for an event, without its time."""
    file = io.StringIO()
    Logger(namespace, observer=TurnLines(console(file))).emit(level, format, **fields)
    assert "\x1b" not in file.getvalue()
    return re.sub(r"^\d\d:\d\d:\d\d  ", "", file.getvalue())


def request(**fields: Any) -> str:
    return " ".join(shown("claudeproxy.web.access_log", **{**REQUEST, **fields}).split())


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({}, "claude-opus-5-5 12,345 in 12,000 cached 212 out first 0.42 s 3.10 s ok"),
        (
            {"key": "laptop"},
            "laptop claude-opus-5-5 12,345 in 12,000 cached 212 out first 0.42 s 3.10 s ok",
        ),
        (
            {"answered_by": None, "output_tokens": None, "first_token": None, "status": 429,
             "outcome": "plan_limit", "code": "rate_limit_exceeded"},
            "opus 3.10 s 429 plan_limit rate_limit_exceeded",
        ),
        (
            {"output_tokens": None, "outcome": "timeout", "cause": "the model was silent"},
            "claude-opus-5-5 first 0.42 s 3.10 s 200 timeout: the model was silent",
        ),
        ({"status": None, "outcome": "client left", "output_tokens": None},
         "claude-opus-5-5 first 0.42 s 3.10 s - client left"),
        ({"model": "", "method": "GET", "path": "/v1/models"}, "GET /v1/models 3.10 s ok"),
        ({"model": "", "path": "/[bold]x", "status": 404, "outcome": "not_found"},
         "POST /[bold]x 3.10 s 404 not_found"),
    ],
)  # fmt: skip
def test_a_request_is_a_line(fields: dict[str, Any], line: str) -> None:
    assert request(**fields) == line


@pytest.mark.parametrize(
    ("upstream", "line"),
    [
        (SUBSCRIPTION, "Login your subscription"),
        (DEMO, "Upstream demo: no model, it repeats what is said"),
        (UNKNOWN, "Login not known yet: the CLI has not told"),
        ("http://localhost:1", "Upstream http://localhost:1"),
        (NOT_LOGGED_IN, "Login NOT LOGGED IN claudemax login in another terminal; this server "
         "notices it"),
    ],
)  # fmt: skip
def test_the_start_tells_what_is_used(upstream: str, line: str) -> None:
    start = evolve(START, upstream=upstream, remedy="claudemax login")
    said = " ".join(shown("claudeproxy.command.banner", start=start).split())
    assert line in said
    assert (
        "API http://localhost:3456/v1 Page http://localhost:3456/ what it does, in a browser"
        in said
    )
    assert "CLI claude 2.1.331 /bin/claude" in said


def test_the_start_tells_of_sockets_and_keys() -> None:
    start = evolve(START, addresses=("unix:/run/a", "http://localhost:1"), keyed=True)
    said = " ".join(shown("claudeproxy.command.banner", start=start).split())
    assert "API unix:/run/a API http://localhost:1/v1 Page http://localhost:1/ " in said
    assert "Key clients must send it" in said


def test_the_start_tells_of_a_recording_in_strong_words() -> None:
    words = "RECORDING every prompt and every answer is written to disk"
    said = " ".join(shown("claudeproxy.command.banner", start=evolve(START, record="/r")).split())
    assert f"{words} /r Stop Ctrl-C" in said
    assert "RECORDING" not in shown("claudeproxy.command.banner", start=START)


def test_of_twisted_only_what_goes_wrong_is_shown() -> None:
    assert shown("twisted.internet.base", format="Main loop terminated.") == ""
    assert shown("claudeproxy.cli.process.CLIProcess", format="ending 7") == ""
    assert shown("twisted.web.http", LogLevel.warn, "odd {what}", what="[red]") == "odd [red]\n"
    assert shown("claudeproxy.service.Claudemax", format="now {n}", n=1) == "now 1\n"


def test_a_failure_has_its_traceback() -> None:
    file = io.StringIO()
    log = Logger("claudeproxy.web", observer=TurnLines(console(file)))
    try:
        raise RuntimeError("it broke")
    except RuntimeError:
        log.failure("a request broke")
    assert "a request broke\nTraceback" in file.getvalue()
    assert "RuntimeError: it broke" in file.getvalue()
