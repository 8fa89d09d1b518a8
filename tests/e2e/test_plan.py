"""What the plan pays for: windows, the reserve, and extra usage that is never spent unasked."""

from __future__ import annotations

import json
from http.client import HTTPConnection
from typing import Any

import pytest
import treq
from harness import Daemon, in_thread, until
from pytest_twisted import ensureDeferred
from twisted.internet.defer import ensureDeferred as run
from twisted.internet.defer import gatherResults

from claudeproxy.demo.steps import ApiError
from claudeproxy.rehearsal.account import Account, PlanWindow

pytestmark = pytest.mark.only("subscription")

FOREIGN = "I am a foreign client."


def account(daemon: Daemon) -> Account:
    assert daemon.subscription is not None
    return daemon.subscription.account


def window(daemon: Daemon, used: float, name: str = "five_hour") -> None:
    resets = int(account(daemon).now()) + 3600
    account(daemon).windows[name] = PlanWindow(used, resets)


async def ask(daemon: Daemon, text: str, system: str = "", **fields: Any) -> tuple[int, Any, Any]:
    """Status, JSON and headers."""
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": text})
    body = {"model": "opus", "messages": messages, **fields}
    response = await daemon.post("/v1/chat/completions", body)
    return response.code, await treq.json_content(response), response.headers


async def heard(daemon: Daemon, used: float) -> None:
    known = daemon.api.engine.quota.windows.known
    await until(lambda: "five_hour" in known and known["five_hour"].used == used)


async def usage(daemon: Daemon) -> Any:
    return await treq.json_content(await treq.get(daemon.url + "/v1/usage"))


async def charging(make_daemon: Any, **changes: Any) -> Daemon:
    """A daemon whose account has extra usage switched on, and knows it; foreign clients are charged
    for."""
    daemon: Daemon = await make_daemon(**changes)
    account(daemon).extra_usage = True
    account(daemon).judged = FOREIGN
    assert (await ask(daemon, "x"))[0] == 200
    return daemon


@ensureDeferred
async def test_the_windows_are_told(make_daemon: Any) -> None:
    daemon = await make_daemon()
    window(daemon, 0.42)
    assert (await ask(daemon, "x"))[0] == 200
    await until(lambda: daemon.api.engine.quota.windows.known)
    told = await usage(daemon)
    assert told["windows"]["five_hour"]["used"] == 42
    assert told["extra_usage"]["enabled"] is False
    _, _, headers = await ask(daemon, "x")
    assert headers.getRawHeaders("anthropic-ratelimit-unified-5h-utilization") == ["0.42"]
    assert headers.getRawHeaders("anthropic-ratelimit-unified-overage-status") == ["rejected"]


async def turns(daemon: Daemon) -> list[Any]:
    """The turns of the ledger, the oldest first."""
    page = await treq.json_content(await treq.get(daemon.url + "/v1/usage/turns"))
    return list(reversed(page["data"]))


@ensureDeferred
async def test_the_ledger_tells_who_paid_and_how_the_windows_moved(make_daemon: Any) -> None:
    daemon = await charging(make_daemon)
    await daemon.at_rest()
    window(daemon, 0.5)
    assert (await ask(daemon, "x", FOREIGN))[0] == 200
    await daemon.at_rest()
    assert (await ask(daemon, "y", FOREIGN))[0] == 402
    by_plan, paid, refused = await turns(daemon)
    assert [turn["paid_by"] for turn in (by_plan, paid, refused)] == ["plan", "paid", None]
    assert (paid["windows_before"]["five_hour"], paid["windows_after"]["five_hour"]) == (0.25, 0.5)
    assert (refused["status"], refused["code"]) == (402, "insufficient_quota")
    assert refused["usage"]["input_tokens"] == refused["cli_bytes"] == 0
    told = (await usage(daemon))["ledger"]["total"]
    assert (told["turns"], told["paid_turns"], told["failed"]) == (3, 1, 1)
    assert told["list_price_usd"] > told["saved_usd"] == by_plan["list_price_usd"] > 0


@ensureDeferred
async def test_they_survive_a_restart(make_daemon: Any, tmp_path: Any) -> None:
    daemon = await make_daemon()
    window(daemon, 0.42)
    assert (await ask(daemon, "x"))[0] == 200
    await until(lambda: daemon.api.engine.quota.windows.known)
    await daemon.api.stopService()
    daemon.api.engine.quota.windows.forget()
    daemon.api.startService()
    assert daemon.api.engine.quota.windows.known["five_hour"].used == 0.42


@ensureDeferred
async def test_a_set_up_that_is_charged_for_is_refused(make_daemon: Any) -> None:
    daemon = await charging(make_daemon)
    assert (await ask(daemon, "x", FOREIGN))[0] == 200
    status, body, headers = await ask(daemon, "y", FOREIGN)
    assert (status, body["error"]["code"]) == (402, "insufficient_quota")
    assert "/docs/plan" in body["error"]["message"]
    assert headers.getRawHeaders("x-should-retry") == ["false"]
    assert account(daemon).paid == 1
    assert (await ask(daemon, "x", "I am another."))[0] == 200
    told = await usage(daemon)
    assert (told["extra_usage"]["paid_turns"], told["extra_usage"]["refused_setups"]) == (1, 1)
    page = await treq.text_content(await treq.get(daemon.url + "/docs/plan"))
    assert "What you can do about a 402" in page


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"stream": False, "max_tokens": 5},
        {"stop": ["word word"]},
    ],
    ids=["whole", "limited", "stopped"],
)
@ensureDeferred
async def test_at_most_one_of_many_at_once_is_charged_for(make_daemon: Any, fields: Any) -> None:
    """However its answer ends."""
    daemon = await charging(make_daemon)
    asked = [run(ask(daemon, "[[repeat 30 word]]", FOREIGN, **fields)) for _ in range(4)]
    statuses = sorted(status for status, _, _ in await gatherResults(asked))
    assert statuses == [200, 402, 402, 402]
    assert account(daemon).paid == 1


@pytest.mark.parametrize(
    ("answer", "read"),
    [("[[pause 0.05]][[repeat 40 word]]", 200), ("[[wait 2]]word", 0)],
    ids=["within", "before"],
)
@ensureDeferred
async def test_a_client_that_leaves_is_charged_for_once(
    make_daemon: Any, answer: str, read: int
) -> None:
    """Within its answer, and before that has begun."""
    daemon = await charging(make_daemon)
    client = HTTPConnection(daemon.url.removeprefix("http://"))
    said = [{"role": "system", "content": FOREIGN}, {"role": "user", "content": answer}]
    body = {"model": "opus", "stream": True, "messages": said}

    def begin() -> None:
        headers = {"content-type": "application/json"}
        client.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        if read:
            client.getresponse().read(read)

    await in_thread(begin)
    await until(lambda: account(daemon).paid)
    client.close()
    status, _, _ = await ask(daemon, "y", FOREIGN)
    assert (status, account(daemon).paid) == (402, 1)


@ensureDeferred
async def test_a_full_window_is_not_paid_over(make_daemon: Any) -> None:
    daemon = await charging(make_daemon)
    window(daemon, 1.0)
    assert (await ask(daemon, "x"))[0] == 200  # nobody knew
    await until(lambda: daemon.api.engine.quota.charges.paid)
    status, body, headers = await ask(daemon, "y")
    assert (status, body["error"]["type"]) == (429, "rate_limit_error")
    assert "not spent without --extra-usage" in body["error"]["message"]
    assert 3500 < int(headers.getRawHeaders("retry-after")[0]) <= 3600
    assert account(daemon).paid == 1


@ensureDeferred
async def test_extra_usage_on_purpose(make_daemon: Any) -> None:
    daemon = await charging(make_daemon, extra_usage=True)
    for _ in range(2):
        assert (await ask(daemon, "x", FOREIGN))[0] == 200
    window(daemon, 1.0)
    for _ in range(2):
        assert (await ask(daemon, "x"))[0] == 200
    await until(lambda: daemon.api.engine.quota.charges.paid == 4)
    assert account(daemon).paid == 4


@ensureDeferred
async def test_a_refusal_as_a_third_party_has_a_name(make_daemon: Any) -> None:
    daemon = await make_daemon()
    account(daemon).judged = FOREIGN
    assert (await ask(daemon, "x"))[0] == 200
    await heard(daemon, 0.25)
    status, body, headers = await ask(daemon, "x", FOREIGN)
    assert (status, body["error"]["type"]) == (402, "insufficient_quota")
    assert "five hour: 25% used, seven day: 50% used" in body["error"]["message"]
    assert "Third-party apps now draw from your extra usage" in body["error"]["message"]
    assert headers.getRawHeaders("x-should-retry") == ["false"]
    message = {"model": "opus", "max_tokens": 9, "system": FOREIGN}
    message["messages"] = [{"role": "user", "content": "x"}]
    response = await daemon.post("/v1/messages", message)
    error = (await treq.json_content(response))["error"]
    assert (response.code, error["type"]) == (402, "billing_error")
    assert len(daemon.turns()) == 3


@pytest.mark.parametrize(
    ("said", "status", "code"),
    [
        ("400 You're out of extra usage. Add more at claude.ai/settings/usage.", 402,
         "insufficient_quota"),
        ("429 Extra usage is required for long context requests.", 400,
         "context_length_exceeded"),
    ],
)  # fmt: skip
@ensureDeferred
async def test_refusals_have_names(daemon: Daemon, said: str, status: int, code: str) -> None:
    before, account(daemon).windows = account(daemon).windows, {}
    got, body, _ = await ask(daemon, f"[[error {said}]]")
    account(daemon).windows = before
    assert (got, body["error"]["code"]) == (status, code)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (400, "This organization has been disabled."),
        (403, "Your account requires identity verification."),
    ],
)
@ensureDeferred
async def test_an_organisations_refusal_keeps_its_text(
    daemon: Daemon, status: int, said: str
) -> None:
    got, body, _ = await ask(daemon, f"[[error {status} {said}]]")
    assert (got, said in body["error"]["message"]) == (status, True)


@ensureDeferred
async def test_the_reserve_is_left(make_daemon: Any) -> None:
    daemon = await make_daemon(reserve=(("five_hour", 0.2),))
    window(daemon, 0.7)
    assert (await ask(daemon, "x"))[0] == 200
    await heard(daemon, 0.7)
    status, body, _ = await ask(daemon, "x", service_tier="flex")
    assert (status, "--reserve" in body["error"]["message"]) == (429, True)
    status, body, _ = await ask(daemon, "x", service_tier="priority")
    assert (status, body["service_tier"]) == (200, "priority")
    window(daemon, 0.85)
    assert (await ask(daemon, "x"))[0] == 200
    await heard(daemon, 0.85)
    turns = len(daemon.turns())
    status, _, headers = await ask(daemon, "x", stream=True)
    assert (status, len(daemon.turns())) == (429, turns)
    assert headers.getRawHeaders("anthropic-ratelimit-unified-5h-utilization") == ["0.85"]
    status, _, headers = await ask(daemon, "x")
    assert (status, len(daemon.turns())) == (429, turns)
    assert headers.getRawHeaders("anthropic-ratelimit-unified-5h-utilization") == ["0.85"]
    assert 3500 < int(headers.getRawHeaders("retry-after")[0]) <= 3600


@ensureDeferred
async def test_a_window_of_one_model_leaves_the_others(make_daemon: Any) -> None:
    daemon = await make_daemon()
    window(daemon, 1.0, "seven_day_overage_included")
    assert (await ask(daemon, "x", model="claude-fable-5-5"))[0] == 429
    assert (await ask(daemon, "x"))[0] == 200
    assert (await ask(daemon, "x", model="claude-fable-5-5"))[0] == 429


@ensureDeferred
async def test_an_answer_that_was_charged_for_is_not_repaired(make_daemon: Any) -> None:
    daemon = await charging(make_daemon)
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    status, _, headers = await ask(daemon, "[[say no]]", FOREIGN, response_format=form)
    assert (status, headers.getRawHeaders("x-should-retry")) == (502, ["false"])
    assert (account(daemon).paid, len(daemon.turns())) == (1, 2)


@ensureDeferred
async def test_turns_that_waited_for_a_slot_are_judged_anew(make_daemon: Any) -> None:
    daemon = await charging(make_daemon, concurrency=1)
    window(daemon, 0.9)
    assert (await ask(daemon, "x"))[0] == 200
    await heard(daemon, 0.9)
    asked = [run(ask(daemon, "[[pause 0.05]][[repeat 10 word]]")) for _ in range(4)]
    await until(lambda: daemon.api.engine.admission.waiting == 3)
    window(daemon, 1.0)
    statuses = sorted(status for status, _, _ in await gatherResults(asked))
    assert statuses in ([200, 200, 429, 429], [200, 429, 429, 429])  # the first had asked before
    assert account(daemon).paid == 1


@ensureDeferred
async def test_a_schema_that_is_asked_for_twice_is_charged_for_once(make_daemon: Any) -> None:
    """The upstream refuses the constrained form, and the answer tool is tried: one verdict."""

    def script(received: Any) -> Any:
        form = (received.body.get("output_config") or {}).get("format")
        return ApiError(400, "output_config.format: no") if form else None

    daemon = await charging(make_daemon, script=script)
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    asked = [run(ask(daemon, "x", FOREIGN, response_format=form)) for _ in range(3)]
    statuses = sorted(status for status, _, _ in await gatherResults(asked))
    assert statuses == [200, 402, 402]
    assert daemon.api.engine.quota.charges.paid == 1


@ensureDeferred
async def test_two_answers_at_once_after_a_reset(make_daemon: Any) -> None:
    daemon = await make_daemon()
    resets = int(account(daemon).now()) + 2
    assert (await ask(daemon, f"[[limit five_hour {resets}]]"))[0] == 429
    await until(lambda: not daemon.api.engine.quota.closed())
    status, body, _ = await ask(daemon, "x", n=2)
    assert (status, len(body["choices"])) == (200, 2)
