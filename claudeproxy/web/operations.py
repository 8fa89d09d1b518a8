"""What the API takes and gives, as schemas, and its operations: the material of
:mod:`~claudeproxy.web.openapi`.

A schema says of a body what every good one has, and no more: whatever breaks it is refused. What
else the fields may hold, the tables of the dialects say in words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from attrs import field, frozen

from claudeproxy.dialects import anthropic, chat, completions, ollama, responses_fields
from claudeproxy.dialects.policies import Policies
from claudeproxy.dialects.responses_items import LIMIT, MAX_LIMIT

from .responses import MAX_EVENT
from .usage import DAYS, MAX_DAYS, MAX_TURNS, TURNS

Schema = Mapping[str, Any]

TEXT: Schema = {"type": "string"}
NAME: Schema = {"type": "string", "minLength": 1}
_FLAG: Schema = {"type": ["boolean", "null"]}
_NUMBER: Schema = {"type": "number"}
_INTEGER: Schema = {"type": "integer"}
OBJECT: Schema = {"type": "object"}
_LIST: Schema = {"type": "array"}
_OBJECTS: Schema = {"type": "array", "items": OBJECT}
_MESSAGES: Schema = {"type": "array", "minItems": 1, "items": OBJECT}
_OPTIONS: Schema = {"type": ["object", "null"], "description": "an object of these:"}


def _object(**properties: Schema) -> dict[str, Any]:
    """An object that has all of ``properties``."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def _body(policies: Policies, required: Iterable[str], **types: Schema) -> dict[str, Any]:
    """``types``: of those fields that can be told in a schema. A field that is null is absent."""
    properties: dict[str, Any] = {}
    for name, policy in policies.items():
        said = f"{policy.effect.value}; {policy.note}" if policy.note else policy.effect.value
        holder, dot, inner = name.partition(".")
        if dot:  # options.stop
            options = properties.setdefault(holder, {**_OPTIONS, "properties": {}})
            options["properties"][inner] = {"description": said}
        else:
            properties[name] = {**types.get(name, {}), "description": said}
    return {"type": "object", "properties": properties, "required": list(required)}


def _listed(kind: str) -> dict[str, Any]:
    return _object(object={"const": "list"}, data={"type": "array", "items": ref(kind)})


def ref(name: str) -> dict[str, Any]:
    """A reference to a schema by its name."""
    return {"$ref": f"#/components/schemas/{name}"}


_ITEMS = {"type": ["array", "null"], "items": OBJECT, "maxItems": 20}
_COMMON = {"model": NAME, "stream": _FLAG}
_TALK = {"messages": _MESSAGES, **_COMMON}

SCHEMAS: Mapping[str, Schema] = {
    "ChatCompletionRequest": _body(chat.FIELDS, ("model", "messages"), **_TALK),
    "CompletionRequest": _body(
        completions.FIELDS,
        ("model", "prompt"),
        prompt={"type": ["string", "array"]},
        echo=_FLAG,
        **_COMMON,
    ),
    "ResponseRequest": _body(responses_fields.FIELDS, ("model",), **_COMMON),
    "CompactRequest": _body(responses_fields.FIELDS, ("model",), model=NAME),
    "ResponseCountRequest": _body(
        responses_fields.FIELDS, (), model={"type": ["string", "null"]}
    ),
    "MessageRequest": _body(
        anthropic.FIELDS,
        ("model", "messages", "max_tokens"),
        max_tokens={"type": "integer", "minimum": 1},
        **_TALK,
    ),
    "CountRequest": _body(anthropic.FIELDS, ("model", "messages"), **_TALK),
    "OllamaChatRequest": _body(ollama.CHAT_FIELDS, ("model",), **_COMMON),
    "OllamaGenerateRequest": _body(ollama.GENERATE_FIELDS, ("model",), **_COMMON),
    "OllamaModelRequest": {
        "type": "object",
        "anyOf": [{"required": ["model"]}, {"required": ["name"]}],
    },
    "ChatCompletion": _object(
        id=TEXT, object={"const": "chat.completion"}, created=_INTEGER, model=TEXT,
        choices=_OBJECTS, usage=OBJECT,
    ),
    "Completion": _object(
        id=TEXT, object={"const": "text_completion"}, created=_INTEGER, model=TEXT,
        choices=_OBJECTS, usage=OBJECT,
    ),
    "Response": _object(
        id=TEXT, object={"const": "response"}, created_at=_NUMBER, model=TEXT, status=TEXT,
        output=_OBJECTS,
    ),
    "Message": _object(
        id=TEXT, type={"const": "message"}, role={"const": "assistant"}, model=TEXT,
        content=_OBJECTS, stop_reason=TEXT, usage=OBJECT,
    ),
    "Tokens": _object(input_tokens=_INTEGER),
    "ItemList": _object(object={"const": "list"}, data=_OBJECTS, has_more={"type": "boolean"}),
    "Metadata": {
        "type": "object",
        "properties": {"metadata": {"type": ["object", "null"]}},
        "required": ["metadata"],
    },
    "NewConversation": {
        "type": "object",
        "properties": {"metadata": {"type": ["object", "null"]}, "items": _ITEMS},
    },
    "NewItems": {"type": "object", "properties": {"items": _ITEMS}, "required": ["items"]},
    "Conversation": _object(id=TEXT, object={"const": "conversation"}, created_at=_NUMBER),
    "Item": _object(id=TEXT, type=TEXT),
    "Compaction": _object(id=TEXT, object={"const": "response.compaction"}, output=_OBJECTS),
    "ChatCompletionList": _listed("ChatCompletion"),
    "Forgotten": _object(id=TEXT, object=TEXT, deleted={"const": True}),
    "Refused": _object(object={"const": "list"}, data=_OBJECTS),
    "Deleted": _object(id=TEXT, object={"const": "response"}, deleted={"const": True}),
    "Model": _object(
        id=TEXT, object={"const": "model"}, display_name=TEXT, resolved=TEXT,
        context_length=_INTEGER, max_output_tokens=_INTEGER, capabilities=OBJECT,
    ),
    "ModelList": _listed("Model"),
    "Usage": _object(object={"const": "usage"}, windows=OBJECT, extra_usage=OBJECT, keys=_LIST),
    "Turn": _object(object={"const": "turn"}, request_id=TEXT, model=TEXT, outcome=TEXT),
    "TurnList": _listed("Turn"),
    "Health": _object(status={"enum": ["ok", "degraded", "draining"]}),
    "OllamaAnswer": _object(model=TEXT, created_at=TEXT, done={"type": "boolean"}),
    "OllamaModels": _object(models=_OBJECTS),
    "OllamaModel": _object(details=OBJECT, model_info=OBJECT, capabilities=_LIST),
    "OllamaStatus": _object(status=TEXT),
    "OllamaVersion": _object(version=TEXT),
    "Description": _object(openapi=TEXT, info=OBJECT, paths=OBJECT),
    "Error": _object(
        error=_object(message=TEXT, type=TEXT, param={}, code={}),
    ),
    "MessageError": _object(
        type={"const": "error"}, error=_object(type=TEXT, message=TEXT, details=OBJECT)
    ),
    "OllamaError": _object(error=TEXT),
}  # fmt: skip


_HI = [{"role": "user", "content": "Hi"}]

_SAID = [{"type": "message", "role": "user", "content": "Hi"}]

EXAMPLES: Mapping[str, Mapping[str, Any]] = {
    "ChatCompletionRequest": {"model": "haiku", "messages": _HI},
    "CompletionRequest": {"model": "haiku", "prompt": "Hi"},
    "ResponseRequest": {"model": "haiku", "input": "Hi"},
    "CompactRequest": {"model": "haiku", "input": "Hi"},
    "ResponseCountRequest": {"model": "haiku", "input": "Hi"},
    "MessageRequest": {"model": "haiku", "max_tokens": 100, "messages": _HI},
    "CountRequest": {"model": "haiku", "messages": _HI},
    "OllamaChatRequest": {"model": "haiku", "messages": _HI, "stream": False},
    "OllamaGenerateRequest": {"model": "haiku", "prompt": "Hi", "stream": False},
    "OllamaModelRequest": {"model": "haiku", "stream": False},
    "Metadata": {"metadata": {"project": "a"}},
    "NewConversation": {"items": _SAID},
    "NewItems": {"items": _SAID},
}
"""A body of each kind."""


@frozen
class Operation:
    """``reply``: the schema of a good reply in JSON; ``other``: its media type in place of JSON, or
    besides it where an answer is streamed; ``query``: the schemas of its parameters."""

    method: str
    path: str
    summary: str
    reply: str | None = None
    body: str | None = None
    other: str | None = None
    query: Mapping[str, Schema] = field(factory=dict)


_SSE, _LINES, _PLAIN, _HTML = (
    "text/event-stream", "application/x-ndjson", "text/plain", "text/html",
)  # fmt: skip
_DAYS = {"type": "integer", "minimum": 1, "maximum": MAX_DAYS, "default": DAYS}
_LIMIT = {"type": "integer", "minimum": 1, "maximum": MAX_TURNS, "default": TURNS}
_PAGE: Mapping[str, Schema] = {
    "limit": {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": LIMIT},
    "order": {"enum": ["asc", "desc"]},
    "after": {**TEXT, "description": "the id of the last one of the page before"},
}
_STORED: Mapping[str, Schema] = {
    **_PAGE,
    "model": {**TEXT, "description": "by the name that was asked for"},
    "metadata": {**OBJECT, "description": "those with it, as `metadata[topic]=a`"},
}
_EVENTS: Mapping[str, Schema] = {
    "stream": {"type": "boolean", "description": "its events in place of the response"},
    "starting_after": {
        "type": "integer",
        "minimum": 0,
        "maximum": MAX_EVENT,
        "description": "without those up to this number",
    },
}

OPERATIONS = (
    Operation("post", "/v1/chat/completions", "A chat completion, as OpenAI has it.",
              "ChatCompletion", "ChatCompletionRequest", _SSE),
    Operation("get", "/v1/chat/completions", "Those that were stored (`store`).",
              "ChatCompletionList", query=_STORED),
    Operation("get", "/v1/chat/completions/{ident}", "One of them.", "ChatCompletion"),
    Operation("post", "/v1/chat/completions/{ident}", "Change its metadata.",
              "ChatCompletion", "Metadata"),
    Operation("delete", "/v1/chat/completions/{ident}", "Forget it.", "Forgotten"),
    Operation("get", "/v1/chat/completions/{ident}/messages", "What it was an answer to.",
              "ItemList", query=_PAGE),
    Operation("post", "/v1/responses", "A response, as OpenAI has it.",
              "Response", "ResponseRequest", _SSE),
    Operation("get", "/v1/responses/{ident}", "A response that is stored, or that runs.",
              "Response", other=_SSE, query=_EVENTS),
    Operation("delete", "/v1/responses/{ident}", "Forget a stored response.", "Deleted"),
    Operation("get", "/v1/responses/{ident}/input_items", "What it was an answer to.", "ItemList",
              query=_PAGE),
    Operation("post", "/v1/responses/{ident}/cancel", "Stop one that runs in the background.",
              "Response"),
    Operation("post", "/v1/responses/compact", "A conversation, summed up by the model.",
              "Compaction", "CompactRequest"),
    Operation("post", "/v1/responses/input_tokens", "An estimate of its input.",
              "Tokens", "ResponseCountRequest"),
    Operation("post", "/v1/conversations", "A new conversation, for `conversation` of responses.",
              "Conversation", "NewConversation"),
    Operation("get", "/v1/conversations/{ident}", "A conversation.", "Conversation"),
    Operation("post", "/v1/conversations/{ident}", "Change its metadata.",
              "Conversation", "Metadata"),
    Operation("delete", "/v1/conversations/{ident}", "Forget it.", "Forgotten"),
    Operation("get", "/v1/conversations/{ident}/items", "What was said in it.", "ItemList",
              query=_PAGE),
    Operation("post", "/v1/conversations/{ident}/items", "Say more in it.", "ItemList", "NewItems"),
    Operation("get", "/v1/conversations/{ident}/items/{item}", "One thing said.", "Item"),
    Operation("delete", "/v1/conversations/{ident}/items/{item}", "Forget it.", "Conversation"),
    Operation("post", "/v1/messages", "A message, as Anthropic has it.",
              "Message", "MessageRequest", _SSE),
    Operation("post", "/v1/messages/count_tokens", "An estimate of its input.",
              "Tokens", "CountRequest"),
    Operation("post", "/v1/completions", "A legacy completion, as OpenAI has it.",
              "Completion", "CompletionRequest", _SSE),
    Operation("get", "/v1/models", "The models.", "ModelList"),
    Operation("get", "/v1/models/{name}", "One model, by any of its names.", "Model"),
    Operation("get", "/v1/usage", "What is known of the plan, and what was used.", "Usage",
              query={"days": _DAYS}),
    Operation("get", "/v1/usage/turns", "The latest turns, the newest first.", "TurnList",
              query={"limit": _LIMIT, "before": _NUMBER}),
    Operation("get", "/v1/usage/turns/{ident}", "One turn, by the id of its request.", "Turn"),
    Operation("post", "/api/chat", "An answer, as Ollama has it.",
              "OllamaAnswer", "OllamaChatRequest", _LINES),
    Operation("post", "/api/generate", "An answer to a prompt, as Ollama has it.",
              "OllamaAnswer", "OllamaGenerateRequest", _LINES),
    Operation("get", "/api/tags", "The models, for Ollama's clients.", "OllamaModels"),
    Operation("get", "/api/ps", "The models that processes serve now.", "OllamaModels"),
    Operation("post", "/api/show", "What a model can do.", "OllamaModel", "OllamaModelRequest"),
    Operation("post", "/api/pull", "A known model is there at once.",
              "OllamaStatus", "OllamaModelRequest", _LINES),
    Operation("get", "/api/version", "The version of Ollama's API.", "OllamaVersion"),
    Operation("get", "/v1/debug/refused", "The latest requests that were refused.", "Refused"),
    Operation("get", "/metrics", "Metrics, as Prometheus reads them.", other=_PLAIN),
    Operation("get", "/health", "Whether turns can be served; 503 if not.",
              "Health"),
    Operation("get", "/docs/plan", "What the plan pays for.", other=_PLAIN),
    Operation("get", "/docs/api", "This description, to be read.", other=_HTML),
    Operation("get", "/openapi.json", "This description.", "Description"),
)  # fmt: skip
