"""Responses: what becomes of each field of a body."""

from __future__ import annotations

from .policies import (
    ECHOED,
    HONOURED,
    IGNORED,
    LIMIT,
    REFUSED,
    SCHEMAS,
    SILENT,
    TEMPERATURE,
    TIER,
    TOOL_CHOICE,
    TOOLS,
    TOP_P,
    VALIDATED,
    Policies,
    Policy,
)

FIELDS: Policies = {
    "model": Policy(HONOURED),
    "input": Policy(
        HONOURED,
        "text, images, files (data or URL), calls of functions and custom tools and their outputs; "
        "a system or developer message after the first message keeps its place, as a "
        "`<system-reminder>` text in the user's turn; a last message of the assistant is refused; "
        "`detail` of images and files is ignored and named; reasoning of earlier turns is not "
        "replayed, but a kept process still has its own; a `compaction` item of "
        "this server's is read as the summary that it holds; items of tools that cannot run here "
        "are left out and named",
    ),
    "instructions": Policy(HONOURED),
    "previous_response_id": Policy(HONOURED, "for stored responses"),
    "conversation": Policy(
        HONOURED, "an id or an object with one; one response at a time, others get a 409"
    ),
    "background": Policy(HONOURED, "for responses that are stored; not over a WebSocket"),
    "store": Policy(
        HONOURED,
        "true unless given; with --no-store, or while the store is lost, ignored and named",
    ),
    "tools": Policy(
        HONOURED,
        f"{TOOLS}; {SCHEMAS}; `async`, `defer_loading`, `output_schema` and `allowed_callers` are "
        "ignored and named; all other tools are left out and named",
    ),
    "tool_choice": TOOL_CHOICE,
    "parallel_tool_calls": Policy(HONOURED),
    "text": Policy(
        HONOURED,
        f"format text, json_object, json_schema; {VALIDATED}; `verbosity` is ignored and named",
    ),
    "reasoning": Policy(
        HONOURED,
        "effort (the model's nearest level that is not higher); thinking is "
        "always summarised in full, whatever `summary` says; `mode` and `context` are ignored and "
        "named",
    ),
    "max_output_tokens": LIMIT,
    "temperature": TEMPERATURE,
    "top_p": TOP_P,
    "stream": Policy(HONOURED),
    "metadata": Policy(ECHOED),
    "truncation": Policy(
        HONOURED,
        "disabled, auto: what exceeds nine tenths of the model's context by an estimate (four "
        "bytes are a token) loses its oldest whole turns; `x-claudemax-truncated` says how many",
    ),
    "include": Policy(
        HONOURED,
        "`message.input_image.image_url`, which holds anyway; all others are named, as "
        "`include.reasoning.encrypted_content`: the CLI has nothing of the kind",
    ),
    "service_tier": TIER,
    "top_logprobs": Policy(IGNORED),
    "max_tool_calls": Policy(IGNORED),
    "moderation": Policy(IGNORED),
    "context_management": Policy(IGNORED),
    "access_programs": Policy(IGNORED),
    "background_options": Policy(IGNORED),
    "image": Policy(IGNORED),
    "prompt": Policy(REFUSED, "templates are kept by OpenAI"),
    "stream_options": Policy(SILENT),
    "user": Policy(SILENT),
    "prompt_cache_key": Policy(SILENT),
    "prompt_cache_options": Policy(SILENT),
    "prompt_cache_retention": Policy(SILENT),
    "safety_identifier": Policy(SILENT),
}
"""What becomes of each field of a body."""
