"""What is told of models: OpenAI's and Anthropic's fields in one object, and those that clients
look for to know how much fits."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from claudeproxy.cli.models import ModelInfo, most_tokens
from claudeproxy.engine.catalogue import Catalogue, Entry
from claudeproxy.ledger.prices import CACHE_WRITE_5M, price_of
from claudeproxy.messages import EFFORTS

_LISTED_SINCE = 1_700_000_000
"""``created`` of every model: the CLI does not report it."""

_YES, _NO = {"supported": True}, {"supported": False}


def model_list(catalogue: Catalogue, entries: Sequence[Entry]) -> dict[str, Any]:
    """The list of models."""
    data = [model_object(catalogue, entry) for entry in entries]
    return {
        "object": "list",
        "data": data,
        "has_more": False,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
    }


def model_object(catalogue: Catalogue, entry: Entry) -> dict[str, Any]:
    """One model: ``resolved`` is the id that goes upstream; sizes are tokens."""
    model = catalogue.resolve(entry.id)
    reads, writes = catalogue.context_tokens(model), most_tokens(model.resolved)
    return {
        "id": entry.id,
        "object": "model",
        "created": _LISTED_SINCE,
        "owned_by": "anthropic",
        "type": "model",
        "display_name": entry.title,
        "created_at": datetime.fromtimestamp(_LISTED_SINCE, timezone.utc).isoformat(),
        "lifecycle": "active",
        "resolved": model.resolved,
        # The same two figures under the names that clients know: OpenRouter's, vLLM's, Anthropic's.
        "context_length": reads,
        "max_model_len": reads,
        "max_input_tokens": reads,
        "max_output_tokens": writes,
        "max_tokens": writes,
        "capabilities": _capabilities(model),
        "pricing": _pricing(model),
    }


def _capabilities(model: ModelInfo) -> dict[str, Any]:
    """What can be had of it through this server, in the shape of Anthropic's API."""
    levels = {level: {"supported": level in model.efforts} for level in EFFORTS}
    thinking = {
        "adaptive": {"supported": model.adaptive},
        "between_tools": _NO,
        "disabled": {"supported": model.thinking_off},
        "enabled": {"supported": model.thinking_off},
    }
    return {
        "batch": _NO,
        "citations": _NO,
        "code_execution": _NO,
        "context_management": _NO,
        "effort": {"supported": bool(model.efforts), **levels},
        "image_input": _YES,
        "pdf_input": _YES,
        "server_tools": {"supported": False, "code_execution": _NO, "web_search": _NO},
        "structured_outputs": _YES,
        "thinking": {"supported": True, "types": thinking},
    }


def _pricing(model: ModelInfo) -> dict[str, str] | None:
    """US dollars a token at Anthropic's list price, in OpenRouter's shape; ``None`` if it is not
    known. A plan does not charge it."""
    price = price_of(model.resolved)
    if price is None:
        return None
    each = {
        "prompt": price.input,
        "completion": price.output,
        "input_cache_read": price.cache_read,
        "input_cache_write": price.input * CACHE_WRITE_5M,
    }
    return {name: f"{dollars / 1e6:.12f}".rstrip("0") for name, dollars in each.items()}
