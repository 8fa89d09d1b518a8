"""What the Messages API refuses: one function, `refusal`.

Statuses, error types and wording follow the real API (its 400s as quoted in public issues and in
the CLI itself); where only the rule is known, the wording keeps the API's style. Not refused is
what depends on an account: credentials are never checked, only that some are there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from claudeproxy.demo.checking.basics import (
    Refused,
    boolean,
    cache_control,
    fields,
    fraction,
    integer,
    items,
    need,
    one_of,
    string,
)
from claudeproxy.demo.checking.blocks import check_text
from claudeproxy.demo.checking.conversation import check_messages
from claudeproxy.demo.checking.models import check_model
from claudeproxy.demo.checking.schemas import check_output_schema
from claudeproxy.demo.checking.tools import check_tool_choice, check_tools
from claudeproxy.demo.steps import ApiError
from claudeproxy.demo.tokens import input_tokens

BODY_LIMIT = 32 * 1024 * 1024
"""Bytes of a request body (platform.claude.com/docs/en/api/errors)."""

_REQUIRED = ("model", "messages", "max_tokens")
_OPTIONAL = (
    "cache_control",
    "compaction",
    "container",
    "context_management",
    "diagnostics",
    "fallback_credit_token",
    "fallbacks",
    "inference_geo",
    "mcp_servers",
    "metadata",
    "output_config",
    "safeguards",
    "service_tier",
    "speed",
    "stop_sequences",
    "stream",
    "system",
    "temperature",
    "thinking",
    "tool_choice",
    "tools",
    "top_k",
    "top_p",
)
"""The body fields of anthropic SDK 2.12, where `betas` is a header and no field of the body, and
`safeguards`, which CLI 2.1.290 sends with its experimental betas."""

_CACHE_LIMIT = 4
_BUDGET_LEAST = 1024
_THINKING_TOP_P = 0.95


def refusal(
    body: Any, headers: Mapping[str, str], *, size: int = 0, context_window: int = 200_000
) -> ApiError | None:
    """The error the API would answer with, or None for a request it would take.

    `body` is the decoded JSON of `size` bytes, `headers` have lower-case names, `context_window`
    is in tokens (estimated at four bytes of text each).
    """
    try:
        _check_request(headers, size)
        _check_body(body)
        tokens = input_tokens(body)
        fits = tokens <= context_window
        need(fits, f"prompt is too long: {tokens} tokens > {context_window} maximum")
    except Refused as refused:
        return ApiError(refused.status, refused.message)
    return None


def _check_request(headers: Mapping[str, str], size: int) -> None:
    if not (headers.get("x-api-key") or headers.get("authorization")):
        raise Refused("x-api-key header is required", status=401)
    need(headers.get("anthropic-version"), "anthropic-version: header is required")
    if size > BODY_LIMIT:
        raise Refused("Request exceeds the maximum size", status=413)


def _check_body(body: Any) -> None:
    fields(body, "", _REQUIRED, _OPTIONAL)
    string(body["model"], "model")
    integer(body["max_tokens"], "max_tokens", 1)
    boolean(body.get("stream", False), "stream")
    fields(body.get("metadata") or {}, "metadata", [], ["user_id"])
    _check_system(body.get("system", ""))
    check_messages(body["messages"])
    check_tools(body.get("tools") or [])
    if body.get("tool_choice") is not None:
        check_tool_choice(body["tool_choice"], body.get("tools") or [])
    _check_cache_control(body)
    _check_stop_sequences(body.get("stop_sequences") or [])
    _check_sampling(body)
    _check_output_config(body.get("output_config") or {})
    if body.get("thinking") is not None:
        _check_thinking(body)
    check_model(body)


def _check_system(system: Any) -> None:
    if not isinstance(system, str):
        for index, block in enumerate(items(system, "system")):
            check_text(block, f"system.{index}", root="system")


def _check_cache_control(body: Mapping[str, Any]) -> None:
    cache_control(body, "")
    controls = list(_controls([body.get(name) for name in ("tools", "system", "messages")]))
    controls += [body["cache_control"]] if body.get("cache_control") else []
    need(
        len(controls) <= _CACHE_LIMIT,
        f"A maximum of {_CACHE_LIMIT} blocks with cache_control may be provided. Found "
        f"{len(controls)}.",
    )
    lifetimes = [control.get("ttl", "5m") for control in controls]
    need(
        lifetimes == sorted(lifetimes),
        "a ttl='1h' cache_control block must not come after a ttl='5m' cache_control block. Note "
        "that blocks are processed in the following order: `tools`, `system`, `messages`.",
    )


def _controls(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, list):
        for item in value:
            yield from _controls(item)
    elif isinstance(value, Mapping):
        if isinstance(value.get("cache_control"), Mapping):
            yield value["cache_control"]
        yield from _controls(value.get("content"))


def _check_stop_sequences(sequences: Any) -> None:
    for index, sequence in enumerate(items(sequences, "stop_sequences")):
        string(sequence, f"stop_sequences.{index}")
        need(sequence.strip(), "stop_sequences: each stop sequence must contain non-whitespace")


def _check_sampling(body: Mapping[str, Any]) -> None:
    for name in ("temperature", "top_p"):
        if body.get(name) is not None:
            fraction(body[name], name)
    if body.get("top_k") is not None:
        integer(body["top_k"], "top_k", 0)


def _check_output_config(config: Any) -> None:
    fields(config, "output_config", [], ["effort", "format", "task_budget"])
    if config.get("effort") is not None:
        one_of(config["effort"], "output_config.effort", ["low", "medium", "high", "xhigh", "max"])
    if config.get("format") is not None:
        fields(config["format"], "output_config.format", ["type", "schema"], [])
        one_of(config["format"]["type"], "output_config.format.type", ["json_schema"])
        check_output_schema(config["format"]["schema"])


def _check_thinking(body: Mapping[str, Any]) -> None:
    thinking = body["thinking"]
    fields(thinking, "thinking", ["type"], ["budget_tokens", "display", "block_binding"])
    one_of(thinking["type"], "thinking.type", ["enabled", "adaptive", "disabled"])
    if thinking["type"] == "disabled":
        fields(thinking, "thinking.disabled", ["type"], [])
        return
    if thinking["type"] == "adaptive":
        fields(thinking, "thinking.adaptive", ["type"], ["display", "block_binding"])
    else:
        fields(
            thinking, "thinking.enabled", ["type", "budget_tokens"], ["display", "block_binding"]
        )
        budget = thinking["budget_tokens"]
        integer(budget, "thinking.enabled.budget_tokens", _BUDGET_LEAST)
        larger = body["max_tokens"] > budget
        need(larger, "`max_tokens` must be greater than `thinking.budget_tokens`.")
    forced = (body.get("tool_choice") or {}).get("type") in ("any", "tool")
    need(not forced, "Thinking may not be enabled when tool_choice forces tool use.")
    hot = body.get("temperature", 1) in (1, None)
    need(hot, "`temperature` may only be set to 1 when thinking is enabled.")
    need(body.get("top_k") is None, "`top_k` must be unset when thinking is enabled.")
    top_p = body.get("top_p")
    need(
        top_p is None or top_p >= _THINKING_TOP_P,
        "`top_p` must be greater than or equal to 0.95 or unset when thinking is enabled.",
    )
