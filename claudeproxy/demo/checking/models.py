"""What single models refuse. The API does not know names that are not those of Claude models.

Sources: the API's own 400s as quoted in public issues, of 4.7 and later (sampling:
github.com/BoltAI/BoltAI/issues/410; thinking: earendil-works/pi/issues/3297), of 4.6 (prefill:
HKUDS/Vibe-Trading/issues/246), of 4.1 to 4.6 (BerriAI/litellm/issues/15097), of those without
effort (vellum-ai/vellum-assistant/pull/17994).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from claudeproxy.demo.checking.basics import Refused, need

_NAME = re.compile(r"claude-(opus|sonnet|haiku|fable|mythos)-(\d)(?:-(\d))?(?!\d)")
_EFFORT_SINCE = {"opus": (4, 5), "sonnet": (4, 6)}
_NO_PREFILL_SINCE = _ADAPTIVE_SINCE = (4, 6)
_NO_SAMPLING_SINCE = (4, 7)


def check_model(body: Mapping[str, Any]) -> None:
    """Refuse what the model named in a body, whose fields have the right shape, does not take."""
    model = body["model"]
    if not model.startswith("claude-"):
        raise Refused(f"model: {model}", status=404)
    name = _NAME.match(model)
    if name is None:
        return
    version = (int(name[2]), int(name[3] or 0))
    _check_sampling(body, version)
    _check_thinking((body.get("thinking") or {}).get("type"), version)
    if (body.get("output_config") or {}).get("effort") is not None:
        takes_effort = version >= _EFFORT_SINCE.get(name[1], (5, 0))
        need(takes_effort, "This model does not support the effort parameter.")
    ends = next(m["role"] for m in reversed(body["messages"]) if m["role"] != "system")
    need(
        ends == "user" or version < _NO_PREFILL_SINCE,
        "This model does not support assistant message prefill. The conversation must end with a "
        "user message.",
    )


def _check_sampling(body: Mapping[str, Any], version: tuple[int, int]) -> None:
    given = [name for name in ("temperature", "top_p", "top_k") if body.get(name) is not None]
    if version >= _NO_SAMPLING_SINCE:
        for name in given:
            default = body[name] == 1 and name != "top_k"
            need(default, f"`{name}` is deprecated for this model.")
    elif version >= (4, 1):
        both = "temperature" in given and "top_p" in given
        need(
            not both,
            "`temperature` and `top_p` cannot both be specified for this model. Please use only "
            "one.",
        )


def _check_thinking(kind: str | None, version: tuple[int, int]) -> None:
    need(
        kind != "enabled" or version < _NO_SAMPLING_SINCE,
        '"thinking.type.enabled" is not supported for this model. Use "thinking.type.adaptive" '
        'and "output_config.effort" to control thinking behavior.',
    )
    adaptive = kind != "adaptive" or version >= _ADAPTIVE_SINCE
    need(adaptive, "adaptive thinking is not supported on this model")
