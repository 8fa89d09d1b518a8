"""Errors have their status, before the headers; after them, an event."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
import treq
from harness import Daemon, until
from pytest_twisted import ensureDeferred

from claudeproxy.testing import fake_cli


async def ask(daemon: Daemon, order: str, **fields: Any) -> tuple[int, Any, Any]:
    """Status, JSON and headers of a streamed request that fails early, or text if it does not."""
    body = {
        "model": "claude-sonnet-4-5",
        "messages": [{"role": "user", "content": order}],
        "stream": True,
        **fields,
    }
    response = await daemon.post("/v1/chat/completions", body)
    text = await treq.text_content(response)
    is_json = response.headers.getRawHeaders("content-type") == ["application/json"]
    return response.code, json.loads(text)["error"] if is_json else text, response.headers


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("upstream", "status", "kind", "code"),
    [
        (400, 400, "invalid_request_error", None),
        (401, 401, "authentication_error", None),
        (403, 403, "permission_error", None),
        (404, 404, "invalid_request_error", "model_not_found"),
        (413, 413, "invalid_request_error", None),
        (429, 429, "rate_limit_error", None),
        (500, 500, "server_error", None),
        (529, 529, "server_error", None),
    ],
)
@pytest.mark.asks_again
@ensureDeferred
async def test_upstream_errors(
    daemon: Daemon, mode: str, upstream: int, status: int, kind: str, code: str | None, stream: bool
) -> None:
    before = len(daemon.turns())
    got, error, _ = await ask(daemon, f"[[error {upstream} it says no]]", stream=stream)
    assert (got, error["type"], error["code"]) == (status, kind, code)
    # The CLI asks twice after a 404, whatever it is told; with a login it renews that after a 401.
    again = {404: 1, 401: 2 if mode == "subscription" else 0}
    assert len(daemon.turns()) == before + 1 + again.get(upstream, 0)
    if upstream in (400, 403, 429, 500):
        assert "it says no" in error["message"]
        assert "API Error" not in error["message"]


@pytest.mark.parametrize(
    "order", ["[[chunk 1]][[pause 0.1]][[say some]][[drop]]", "[[error-mid 529 busy]]"]
)
@ensureDeferred
async def test_failures_in_mid_answer_are_events(daemon: Daemon, order: str) -> None:
    before = len(daemon.turns())
    status, text, _ = await ask(daemon, order)
    assert status == 200
    events = text.split("\n\n")
    assert json.loads(events[-2].removeprefix("data: "))["error"]["type"] == "server_error"
    assert "data: [DONE]" not in events
    assert len(daemon.turns()) == before + 1


@ensureDeferred
async def test_a_broken_whole_answer_is_an_error(daemon: Daemon) -> None:
    status, error, _ = await ask(
        daemon, "[[chunk 1]][[pause 0.1]][[say some]][[drop]]", stream=False
    )
    assert (status, error["type"]) == (502, "server_error")


@ensureDeferred
async def test_silence_is_bounded(make_daemon: Any) -> None:
    daemon = await make_daemon(first_token_timeout=1.5, idle_timeout=0.7)
    await until(lambda: daemon.api.engine.keeper.unused, 60)
    status, error, _ = await ask(daemon, "[[wait 30]]")
    assert (status, "1.5 seconds" in error["message"]) == (504, True)
    status, text, _ = await ask(daemon, "[[say so]][[hang]]")
    assert status == 200
    assert "silent for 0.7 seconds" in text
    await until(lambda: daemon.api.engine.admission.running == 0)


@ensureDeferred
async def test_a_turn_is_bounded(make_daemon: Any) -> None:
    daemon = await make_daemon(turn_timeout=2.0)
    await until(lambda: daemon.api.engine.keeper.unused, 60)
    status, text, _ = await ask(daemon, "[[pause 0.2]][[repeat 100 word]]")
    assert status == 200
    assert "longer than 2 seconds" in text


@pytest.mark.only("subscription")
@ensureDeferred
async def test_a_plan_limit(make_daemon: Any) -> None:
    daemon = await make_daemon()
    resets = int(time.time()) + 3000
    status, error, headers = await ask(daemon, f"[[limit five_hour {resets}]]")
    assert (status, error["type"]) == (429, "rate_limit_error")
    assert "five hour limit" in error["message"]
    assert 2900 < int(headers.getRawHeaders("retry-after")[0]) <= 3001
    assert headers.getRawHeaders("x-should-retry") == ["false"]
    turns = len(daemon.turns())
    status, error, _ = await ask(daemon, "x")
    assert (status, len(daemon.turns())) == (429, turns)
    health = await treq.json_content(await treq.get(daemon.url + "/health"))
    assert health["used_up_until"] == {"five_hour": str(resets)}


@ensureDeferred
async def test_a_busy_server_is_no_plan_limit(make_daemon: Any) -> None:
    daemon = await make_daemon()
    status, error, _ = await ask(daemon, "[[error 429 slow down]]")
    assert (status, error["type"]) == (429, "rate_limit_error")
    status, _, _ = await ask(daemon, "x")
    assert status == 200


@pytest.mark.only("key")
@ensureDeferred
async def test_a_login_is_out_of_reach_of_another_upstream(make_daemon: Any) -> None:
    environ = {
        "CLAUDE_CODE_OAUTH_TOKEN": "secret-login",
        "ANTHROPIC_API_KEY": "secret-key",
        "ANTHROPIC_BASE_URL": "http://127.0.0.1:9",
    }
    daemon = await make_daemon(environ=environ)
    status, _, _ = await ask(daemon, "x")
    assert status == 200
    sent = daemon.turns()[-1]
    assert "secret" not in json.dumps(dict(sent.headers))
    assert sent.headers["x-api-key"] == "any"


@ensureDeferred
async def test_more_than_the_queue_holds_is_refused_at_once(make_daemon: Any) -> None:
    daemon = await make_daemon(concurrency=1, queue=1)
    running = ask(daemon, "[[pause 0.3]][[repeat 20 word]]")
    from twisted.internet.defer import ensureDeferred as run

    first = run(running)
    await until(lambda: daemon.api.engine.admission.running == 1)
    second = run(ask(daemon, "second"))
    await until(lambda: daemon.api.engine.admission.waiting == 1)
    status, error, headers = await ask(daemon, "third")
    assert (status, error["code"]) == (429, "rate_limit_exceeded")
    assert int(headers.getRawHeaders("retry-after")[0]) >= 1
    assert (await first)[0] == 200
    status, text, headers = await second
    assert "second" in text
    assert int(headers.getRawHeaders("x-claudemax-queue-ms")[0]) > 100


def retries(headers: Any) -> bool:
    """Whether an SDK would ask again."""
    return headers.getRawHeaders("x-should-retry") != ["false"]


@ensureDeferred
async def test_what_was_paid_for_is_not_to_be_asked_again(make_daemon: Any) -> None:
    """One call of an SDK is one request upstream; only what cost nothing may be tried again."""
    daemon = await make_daemon(first_token_timeout=4.0, idle_timeout=0.7)
    await until(lambda: daemon.api.engine.keeper.unused, 60)
    assert (await ask(daemon, "x"))[0] == 200
    broken = "[[chunk 1]][[pause 0.1]][[say some]]"
    for order, status, again in (
        ("[[wait 30]]", 504, False),
        (f"{broken}[[drop]]", 502, False),
        (f"{broken}[[hang]]", 504, False),
        ("[[error 500 no]]", 500, True),
        ("[[error 529 no]]", 529, True),
    ):
        turns = len(daemon.turns())
        got, _, headers = await ask(daemon, order, stream=False)
        assert (got, retries(headers), len(daemon.turns())) == (status, again, turns + 1), order


@ensureDeferred
async def test_the_deadline_begins_before_there_is_a_process(
    make_daemon: Any, tmp_path: Any
) -> None:
    claude = fake_cli(tmp_path / "cli", start="silence")
    daemon = await make_daemon(mode="key", claude=claude, first_token_timeout=0.5)
    status, error, headers = await ask(daemon, "x")
    assert (status, retries(headers)) == (504, True)
    assert "no Claude CLI was ready" in error["message"]
    assert daemon.api.engine.admission.running == 0
