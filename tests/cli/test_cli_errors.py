"""What the CLI prints when a turn fails, and the failure that it is."""

from __future__ import annotations

from typing import Any

import pytest

from claudeproxy.cli.errors import (
    LOGGED_OUT,
    NOT_RENEWED,
    PAID_FOR,
    RENEWAL_RETRY,
    LoginAdvice,
    classify,
    not_logged_in,
    plan_limit,
)
from claudeproxy.messages import Failure, Kind

ADVICE = LoginAdvice("run `claude auth login`")
TOKEN = LoginAdvice("run `claude setup-token`", renewable=False)
USED_UP = {"status": "rejected", "rateLimitType": "five_hour", "resetsAt": 1500}


def failed(
    text: str,
    status: int | None = None,
    *,
    reason: str | None = None,
    limits: Any = None,
    advice: LoginAdvice = ADVICE,
) -> Failure:
    return classify(text, status, reason, limits, 1000.0, advice)


@pytest.mark.parametrize(
    ("text", "status", "reason", "kind", "http"),
    [
        ("API Error: 400 messages: bad", 400, None, Kind.INVALID, 400),
        ("Failed to authenticate. API Error: 401 no", 401, None, Kind.AUTHENTICATION, 401),
        ("API Error: 402 pay", 402, None, Kind.BILLING, 402),
        ("API Error: 403 no", 403, None, Kind.PERMISSION, 403),
        ("API Error: 404 no such model", 404, None, Kind.MODEL_NOT_FOUND, 404),
        ("API Error: 404 nothing", 404, None, Kind.NOT_FOUND, 404),
        ("API Error: 413 large", 413, None, Kind.TOO_LARGE, 413),
        ("API Error: 418 teapot", 418, None, Kind.INVALID, 400),
        ("API Error: Request rejected (429) · slow", 429, None, Kind.RATE_LIMIT, 429),
        ("API Error: 500 oops", 500, None, Kind.UPSTREAM, 500),
        ("API Error: 529 busy", 529, None, Kind.OVERLOADED, 529),
        ("API Error: Connection error.", None, None, Kind.UPSTREAM, 502),
        ("Prompt is too long", None, None, Kind.CONTEXT_LENGTH, 400),
        ("", None, "prompt_too_long", Kind.CONTEXT_LENGTH, 400),
        ("Not logged in · Please run /login", None, None, Kind.AUTHENTICATION, 401),
        ("", None, None, Kind.UPSTREAM, 502),
    ],
)
def test_by_status(text: str, status: Any, reason: Any, kind: Kind, http: int) -> None:
    failure = failed(text, status, reason=reason)
    assert (failure.kind, failure.status) == (kind, http)
    assert failure.message
    assert "API Error" not in failure.message


@pytest.mark.parametrize(
    ("text", "status", "expected"),
    [
        (
            "API Error: 404 no model of that name",
            404,
            Failure(
                Kind.MODEL_NOT_FOUND,
                "no model of that name",
                404,
                param="model",
                code="model_not_found",
            ),
        ),
        (
            "API Error: 529 busy. If it persists, check your inference gateway (http://u).",
            529,
            Failure(Kind.OVERLOADED, "busy.", 529, cause="the upstream answered 529"),
        ),
        (
            "API Error: 500 oops",
            500,
            Failure(Kind.UPSTREAM, "oops", 500, cause="the upstream answered 500"),
        ),
        (
            "API Error: Connection error.",
            None,
            Failure(Kind.UPSTREAM, "Connection error.", 502, cause="the CLI gave up the turn"),
        ),
        ("API Error: 418 teapot", 418, Failure(Kind.INVALID, "teapot", 400)),
        (
            "API Error: 429 Extra usage is required for long context requests.",
            429,
            Failure(
                Kind.CONTEXT_LENGTH,
                "the plan does not pay for so long a conversation: "
                "Extra usage is required for long context requests.",
                400,
                param="messages",
                code="context_length_exceeded",
            ),
        ),
    ],
)
def test_the_whole_failure(text: str, status: int | None, expected: Failure) -> None:
    assert failed(text, status) == expected


# -- the login --


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("Not logged in · Please run /login", None),
        ("Failed to authenticate: OAuth session expired and could not be refreshed", None),
        ("Failed to authenticate. API Error: 401 OAuth token has been revoked", 401),
        ("API Error: 403 OAuth token has been revoked. Please obtain a new token.", 403),
        ("API Error: 401 OAuth authentication is currently not supported.", 401),
        ("Failed to authenticate. API Error: 401 Invalid bearer token", 401),
    ],
)
def test_a_login_that_has_ended(text: str, status: int | None) -> None:
    for advice in (ADVICE, TOKEN):
        failure = failed(text, status, advice=advice)
        assert failure == not_logged_in(advice)
        assert (failure.kind, failure.status, failure.code) == (
            Kind.AUTHENTICATION,
            401,
            LOGGED_OUT,
        )
        assert failure.message.endswith(advice.remedy)


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("Failed to refresh OAuth token: 500", None),
        ("Failed to authenticate: OAuth session could not be refreshed: another process", None),
        ("API Error: 401 OAuth token has expired. Please obtain a new token.", 401),
    ],
)
def test_a_login_that_could_not_be_renewed_just_now(text: str, status: int | None) -> None:
    failure = failed(text, status)
    assert (failure.kind, failure.status) == (Kind.UNAVAILABLE, 503)
    assert (failure.code, failure.retry_after) == (NOT_RENEWED, RENEWAL_RETRY)
    assert failure.cause == "the login could not be renewed"
    assert ADVICE.remedy in failure.message


def test_an_expired_token_of_the_environment_is_not_renewed_by_waiting() -> None:
    text = "API Error: 401 OAuth token has expired. Please obtain a new token."
    assert failed(text, 401, advice=TOKEN) == not_logged_in(TOKEN)


def test_a_401_that_says_nothing_known_keeps_its_words_and_gives_the_remedy() -> None:
    failure = failed("Failed to authenticate. API Error: 401 x-api-key is wrong", 401)
    assert (failure.kind, failure.status, failure.code) == (Kind.AUTHENTICATION, 401, None)
    assert "x-api-key is wrong" in failure.message
    assert ADVICE.remedy in failure.message


@pytest.mark.parametrize(
    "text",
    [
        "Your organization does not have access to Claude. Please contact your administrator.",
        "Your account needs verification before it can be used.",
        "Claude Code is not included in your plan.",
    ],
)
def test_what_the_organisation_or_plan_does_not_allow_keeps_its_words(text: str) -> None:
    failure = failed(f"API Error: 403 {text}", 403)
    assert (failure.kind, failure.status, failure.message) == (Kind.PERMISSION, 403, text)


def test_words_of_the_login_in_another_refusal_are_no_matter_of_the_login() -> None:
    failure = failed("API Error: 400 messages.0: Not logged in is no role", 400)
    assert (failure.kind, failure.status) == (Kind.INVALID, 400)


# -- the plan --


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("API Error: 400 Third-party apps now draw from your extra usage, not your plan.", 400),
        ("API Error: 429 You're out of extra usage · resets 5pm", 429),
        ("You're out of extra usage", None),
    ],
)
def test_what_anthropic_wants_paid(text: str, status: int | None) -> None:
    failure = failed(text, status)
    assert (failure.kind, failure.status, failure.code) == (Kind.BILLING, 402, PAID_FOR)
    assert failure.retry_after is None
    assert "extra usage" in failure.message
    assert "/docs/plan" in failure.message


@pytest.mark.parametrize(
    "text",
    [
        "API Error: 429 Extra usage is required for long context requests.",
        "API Error: 429 long_context_credits_required",
        "API Error: 429 Usage credits are required for long context requests: long context "
        "requires credits",
    ],
)
@pytest.mark.parametrize("limits", [None, {"status": "allowed", "rateLimitType": "five_hour"}])
def test_a_conversation_longer_than_the_plan_pays_for(text: str, limits: Any) -> None:
    failure = failed(text, 429, limits=limits)
    assert (failure.kind, failure.status) == (Kind.CONTEXT_LENGTH, 400)
    assert (failure.param, failure.code) == ("messages", "context_length_exceeded")


def test_a_plan_limit_tells_when_it_is_over() -> None:
    failure = failed("API Error: 429", 429, limits=USED_UP)
    assert (failure.kind, failure.status, failure.retry_after) == (Kind.PLAN_LIMIT, 429, 500.0)
    assert (failure.window, failure.code) == ("five_hour", "rate_limit_exceeded")
    assert "five hour" in failure.message
    past = failed("API Error: 429", 429, limits={**USED_UP, "resetsAt": 5})
    assert past.retry_after == 1.0
    unknown = failed("API Error: 429", 429, limits={**USED_UP, "resetsAt": None})
    assert unknown.retry_after is None
    assert unknown == plan_limit({**USED_UP, "resetsAt": None}, 1000.0)


@pytest.mark.parametrize(
    "limits",
    [
        {"status": "rejected"},
        {**USED_UP, "status": "allowed"},
        {**USED_UP, "rateLimitType": None},
        {},
        None,
    ],
)
def test_a_429_that_no_window_explains_is_a_busy_server(limits: Any) -> None:
    assert failed("API Error: 429", 429, limits=limits).kind is Kind.RATE_LIMIT


@pytest.mark.parametrize(
    ("status", "kind"), [(400, Kind.INVALID), (500, Kind.UPSTREAM), (529, Kind.OVERLOADED)]
)
def test_a_window_used_up_explains_only_a_429(status: int, kind: Kind) -> None:
    assert failed(f"API Error: {status} no", status, limits=USED_UP).kind is kind
