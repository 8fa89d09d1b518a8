"""What is told of the plan: the usage page, the headers of replies, and reserves by key."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import treq
from attrs import evolve
from harness import Daemon
from pytest_twisted import ensureDeferred
from twisted.internet.task import Clock

from claudeproxy.engine.catalogue import Catalogue
from claudeproxy.engine.charges import setup_key
from claudeproxy.engine.engine import Engine, Limits
from claudeproxy.engine.quota import Policy
from claudeproxy.ledger.projection import Projection
from claudeproxy.ledger.record import TurnRecord
from claudeproxy.messages import Failure, Kind, Request
from claudeproxy.testing import fake_cli
from claudeproxy.web.gate import EXPOSED
from claudeproxy.web.usage import plan

NOW = 1000.0
INFO = {
    "status": "allowed",
    "rateLimitType": "five_hour",
    "overageStatus": "allowed",
    "unifiedWindows": {
        "five_hour": {"utilization": 0.825, "resetsAt": 5000, "status": "allowed_warning"},
        "seven_day": {"utilization": 0.1, "resetsAt": 900},
    },
}


def engine(**policy: Any) -> Engine:
    """An engine that has no process and needs none."""
    limits = Limits(policy=Policy(**policy))
    made = Engine(Clock(), lambda _: pytest.fail("a process"), Catalogue(), limits, lambda: NOW)
    made.quota.applies = True
    return made


def test_nothing_is_known() -> None:
    assert plan(engine(), {}) == {
        "object": "usage",
        "plan": True,
        "logged_in": None,
        "windows": {},
        "extra_usage": {
            "enabled": None,
            "disabled_reason": None,
            "in_use": False,
            "allowed_here": False,
            "paid_turns": 0,
            "refused_setups": 0,
            "undecided": False,
        },
    }


def test_windows_that_run_and_windows_that_are_closed() -> None:
    asked = engine(extra_usage=True, reserve={"five_hour": 0.2})
    asked.quota.hear(INFO)
    for window, after in (("five_hour", 4000.0), ("seven_day_opus", 9000.0)):
        asked.quota.close(Failure(Kind.PLAN_LIMIT, "", 429, retry_after=after, window=window))
    told = plan(asked, {"five_hour": Projection(0.1, None, 0.9, 3, 1200.0)})
    assert told["windows"] == {
        "five_hour": {
            "used": 82.5, "resets_at": 5000, "status": "allowed_warning", "closed": True,
            "reserve": 20.0,
            "projection": {
                "percent_per_hour": 10.0, "full_at": None, "percent_at_reset": 90.0,
                "based_on": {"reports": 3, "minutes": 20},
            },
        },
        "seven_day_opus": {
            "used": None, "resets_at": 10_000, "status": None, "closed": True, "reserve": 0.0,
            "projection": None,
        },
    }  # fmt: skip
    assert (told["extra_usage"]["enabled"], told["extra_usage"]["allowed_here"]) == (True, True)
    json.dumps(told)


# -- over HTTP: a daemon that takes its upstream for a plan --


async def planned(make_daemon: Any, home: Path, **settings: Any) -> Daemon:
    """A daemon over the CLI's double, for which windows count as they do with a login."""
    daemon: Daemon = await make_daemon(claude=fake_cli(home / "cli"), **settings)
    daemon.api.engine.quota.applies = True
    return daemon


def full(daemon: Daemon, **used: float) -> None:
    """Tell the daemon of windows that run for another hour."""
    until = daemon.api.engine.now() + 3600
    windows = {name: {"utilization": share, "resetsAt": until} for name, share in used.items()}
    daemon.api.engine.quota.hear({"overageStatus": "rejected", "unifiedWindows": windows})


async def say(daemon: Daemon, **headers: str) -> tuple[Any, Any]:
    """A turn's response, and its JSON."""
    body = {"model": "sonnet", "messages": [{"role": "user", "content": "x"}]}
    response = await daemon.post("/v1/chat/completions", body, **headers)
    return response, await treq.json_content(response)


@ensureDeferred
async def test_the_usage_page(make_daemon: Any, tmp_path: Path) -> None:
    daemon = await planned(make_daemon, tmp_path, reserve=(("five_hour", 0.2),))
    full(daemon, five_hour=0.5)
    for path in ("/v1/usage", "/usage"):
        told = await treq.json_content(await treq.get(daemon.url + path))
        assert told["windows"]["five_hour"]["used"] == 50.0
        assert told["windows"]["five_hour"]["reserve"] == 20.0


@ensureDeferred
async def test_the_pace_is_that_of_the_turns_in_the_ledger(
    make_daemon: Any, tmp_path: Path
) -> None:
    daemon = await planned(make_daemon, tmp_path)
    full(daemon, five_hour=0.5, seven_day=0.1)  # so the window began four hours ago
    now = daemon.api.engine.now()
    made = TurnRecord(time=now, request_id="req_1", dialect="chat", model="opus", placement="kept")
    for ago, share in ((4000, 0.9), (1800, 0.4), (900, 0.45)):  # the first is too long ago
        await daemon.api._ledger.add(
            evolve(
                made,
                request_id=f"req_{ago}",
                time=now - ago,
                windows_after={"five_hour": share},
            )
        )
    await daemon.api._ledger.add(evolve(made, placement="", windows_after={"five_hour": 0.0}))
    told = await treq.json_content(await treq.get(daemon.url + "/v1/usage"))
    found = told["windows"]["five_hour"]["projection"]
    assert found["percent_per_hour"] == pytest.approx(20, abs=0.5)
    assert found["based_on"] == {"reports": 2, "minutes": 30}
    assert found["percent_at_reset"] == pytest.approx(70, abs=0.5)
    assert told["windows"]["seven_day"]["projection"] is None


@ensureDeferred
async def test_a_short_time_asked_for_cuts_no_longer_sums(make_daemon: Any, tmp_path: Path) -> None:
    daemon = await planned(make_daemon, tmp_path)
    now = daemon.api.engine.now()
    for back in (0, 3, 8):
        at = now - back * 86_400
        await daemon.api._ledger.add(
            TurnRecord(time=at, request_id=f"req_{back}", dialect="chat", model="opus")
        )
    told = await treq.json_content(await treq.get(daemon.url + "/v1/usage?days=2"))
    ledger = told["ledger"]
    assert [ledger[sums]["turns"] for sums in ("today", "last_7_days", "total")] == [1, 2, 1]
    assert [len(ledger[name]) for name in ("by_day", "by_hour", "sessions")] == [1, 1, 1]


@ensureDeferred
async def test_the_page_that_errors_lead_to(make_daemon: Any, tmp_path: Path) -> None:
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"))
    response = await treq.get(daemon.url + "/docs/plan")
    assert response.headers.getRawHeaders("content-type") == ["text/plain; charset=utf-8"]
    text = await treq.text_content(response)
    assert "--extra-usage" in text and "--reserve" in text


@ensureDeferred
async def test_replies_carry_the_windows_under_anthropics_names(
    make_daemon: Any, tmp_path: Path
) -> None:
    daemon = await planned(make_daemon, tmp_path)
    full(daemon, five_hour=0.25)
    response, _ = await say(daemon)
    name = "anthropic-ratelimit-unified-5h-utilization"
    assert response.headers.getRawHeaders(name) == ["0.25"]
    assert name in EXPOSED
    daemon.api.engine.quota.applies = False
    response, _ = await say(daemon)
    assert response.headers.getRawHeaders(name) is None


@ensureDeferred
async def test_a_reserve_is_left_by_every_key_but_one(make_daemon: Any, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("app: apps\nmine: mine reserve=five_hour=5\ncron: cron reserve=five_hour=50\n")
    os.chmod(keys, 0o600)
    shares = (("five_hour", 0.2),)
    daemon = await planned(make_daemon, tmp_path, reserve=shares, api_key_file=str(keys))
    full(daemon, five_hour=0.85)
    for key, expected in (("apps", 429), ("mine", 200), ("cron", 429)):
        response, body = await say(daemon, authorization=f"Bearer {key}")
        assert response.code == expected, body
        if expected == 429:
            assert body["error"]["code"] == "rate_limit_exceeded"
            assert 3500 < int(response.headers.getRawHeaders("retry-after")[0]) <= 3600
            assert response.headers.getRawHeaders("x-should-retry") == ["false"]


@ensureDeferred
async def test_a_charged_set_up_is_402_and_not_to_be_retried(
    make_daemon: Any, tmp_path: Path
) -> None:
    daemon = await planned(make_daemon, tmp_path)
    full(daemon, five_hour=0.4)
    quota = daemon.api.engine.quota
    quota.windows.extra_usage = True
    quota.charges.charge(setup_key(Request("sonnet", ())))
    response, body = await say(daemon)
    assert (response.code, body["error"]["code"]) == (402, "insufficient_quota")
    assert response.headers.getRawHeaders("x-should-retry") == ["false"]
    asked = {"model": "sonnet", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]}
    response = await daemon.post("/v1/messages", asked)
    refused = await treq.json_content(response)
    assert (response.code, refused["error"]["type"]) == (402, "billing_error")
    assert response.headers.getRawHeaders("x-should-retry") == ["false"]
