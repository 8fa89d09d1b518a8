"""The description of the API that ``GET /openapi.json`` gives.

It says of a body what every good one has, and no more: whatever breaks it is refused. What else the
fields may hold, the tables of the dialects say in words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from attrs import field, frozen

from claudeproxy import __version__
from claudeproxy.dialects import anthropic, chat, completions, ollama, responses
from claudeproxy.dialects.policies import Policies

from .usage import DAYS, MAX_DAYS, MAX_TURNS, TURNS

Schema = Mapping[str, Any]

_TEXT: Schema = {"type": "string"}
_NAME: Schema = {"type": "string", "minLength": 1}
_FLAG: Schema = {"type": ["boolean", "null"]}
_NUMBER: Schema = {"type": "number"}
_INTEGER: Schema = {"type": "integer"}
_OBJECT: Schema = {"type": "object"}
_LIST: Schema = {"type": "array"}
_OBJECTS: Schema = {"type": "array", "items": _OBJECT}
_MESSAGES: Schema = {"type": "array", "minItems": 1, "items": _OBJECT}


def _object(**properties: Schema) -> dict[str, Any]:
    """An object that has all of ``properties``."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def _body(policies: Policies, required: Iterable[str], **types: Schema) -> dict[str, Any]:
    """``types``: of those fields that can be told in a schema. A field that is null is absent."""
    properties: dict[str, Any] = {}
    for name, policy in policies.items():
        if "." not in name:
            said = f"{policy.effect.value}; {policy.note}" if policy.note else policy.effect.value
            properties[name] = {**types.get(name, {}), "description": said}
    return {"type": "object", "properties": properties, "required": list(required)}


def _listed(kind: str) -> dict[str, Any]:
    return _object(object={"const": "list"}, data={"type": "array", "items": _ref(kind)})


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


_COMMON = {"model": _NAME, "stream": _FLAG}
_CHAT = _body(chat.FIELDS, ("model", "messages"), messages=_MESSAGES, **_COMMON)
_MESSAGE = {"messages": _MESSAGES, **_COMMON}

SCHEMAS: Mapping[str, Schema] = {
    "ChatCompletionRequest": _CHAT,
    "CompletionRequest": _body(
        completions.FIELDS,
        ("model", "prompt"),
        prompt={"type": ["string", "array"]},
        echo=_FLAG,
        **_COMMON,
    ),
    "ResponseRequest": _body(responses.FIELDS, ("model",), **_COMMON),
    "MessageRequest": _body(
        anthropic.FIELDS,
        ("model", "messages", "max_tokens"),
        max_tokens={"type": "integer", "minimum": 1},
        **_MESSAGE,
    ),
    "CountRequest": _body(anthropic.FIELDS, ("model", "messages"), **_MESSAGE),
    "OllamaChatRequest": _body(ollama.CHAT_FIELDS, ("model",), **_COMMON),
    "OllamaGenerateRequest": _body(ollama.GENERATE_FIELDS, ("model",), **_COMMON),
    "OllamaModelRequest": {
        "type": "object",
        "anyOf": [{"required": ["model"]}, {"required": ["name"]}],
    },
    "ChatCompletion": _object(
        id=_TEXT, object={"const": "chat.completion"}, created=_INTEGER, model=_TEXT,
        choices=_OBJECTS, usage=_OBJECT,
    ),
    "Completion": _object(
        id=_TEXT, object={"const": "text_completion"}, created=_INTEGER, model=_TEXT,
        choices=_OBJECTS, usage=_OBJECT,
    ),
    "Response": _object(
        id=_TEXT, object={"const": "response"}, created_at=_NUMBER, model=_TEXT, status=_TEXT,
        output=_OBJECTS,
    ),
    "Message": _object(
        id=_TEXT, type={"const": "message"}, role={"const": "assistant"}, model=_TEXT,
        content=_OBJECTS, stop_reason=_TEXT, usage=_OBJECT,
    ),
    "Tokens": _object(input_tokens=_INTEGER),
    "ItemList": _object(object={"const": "list"}, data=_OBJECTS, has_more={"type": "boolean"}),
    "Deleted": _object(id=_TEXT, object={"const": "response"}, deleted={"const": True}),
    "Model": _object(
        id=_TEXT, object={"const": "model"}, display_name=_TEXT, resolved=_TEXT,
        context_length=_INTEGER, max_output_tokens=_INTEGER, capabilities=_OBJECT,
    ),
    "ModelList": _listed("Model"),
    "Usage": _object(object={"const": "usage"}, windows=_OBJECT, extra_usage=_OBJECT, keys=_LIST),
    "Turn": _object(object={"const": "turn"}, request_id=_TEXT, model=_TEXT, outcome=_TEXT),
    "TurnList": _listed("Turn"),
    "Health": _object(status={"enum": ["ok", "degraded"]}),
    "OllamaAnswer": _object(model=_TEXT, created_at=_TEXT, done={"type": "boolean"}),
    "OllamaModels": _object(models=_OBJECTS),
    "OllamaModel": _object(details=_OBJECT, model_info=_OBJECT, capabilities=_LIST),
    "OllamaStatus": _object(status=_TEXT),
    "OllamaVersion": _object(version=_TEXT),
    "Description": _object(openapi=_TEXT, info=_OBJECT, paths=_OBJECT),
    "Error": _object(
        error=_object(message=_TEXT, type=_TEXT, param={}, code={}),
    ),
    "MessageError": _object(
        type={"const": "error"}, error=_object(type=_TEXT, message=_TEXT, details=_OBJECT)
    ),
    "OllamaError": _object(error=_TEXT),
}  # fmt: skip


_HI = [{"role": "user", "content": "Hi"}]

EXAMPLES: Mapping[str, Mapping[str, Any]] = {
    "ChatCompletionRequest": {"model": "haiku", "messages": _HI},
    "CompletionRequest": {"model": "haiku", "prompt": "Hi"},
    "ResponseRequest": {"model": "haiku", "input": "Hi"},
    "MessageRequest": {"model": "haiku", "max_tokens": 100, "messages": _HI},
    "CountRequest": {"model": "haiku", "messages": _HI},
    "OllamaChatRequest": {"model": "haiku", "messages": _HI, "stream": False},
    "OllamaGenerateRequest": {"model": "haiku", "prompt": "Hi", "stream": False},
    "OllamaModelRequest": {"model": "haiku", "stream": False},
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

OPERATIONS = (
    Operation("post", "/v1/chat/completions", "A chat completion, as OpenAI has it.",
              "ChatCompletion", "ChatCompletionRequest", _SSE),
    Operation("post", "/v1/responses", "A response, as OpenAI has it.",
              "Response", "ResponseRequest", _SSE),
    Operation("get", "/v1/responses/{ident}", "A stored response.", "Response"),
    Operation("delete", "/v1/responses/{ident}", "Forget a stored response.", "Deleted"),
    Operation("get", "/v1/responses/{ident}/input_items", "What it was an answer to.", "ItemList"),
    Operation("post", "/v1/responses/input_tokens", "An estimate of its input.",
              "Tokens", "ResponseRequest"),
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
    Operation("get", "/health", "Whether turns can be served.", "Health"),
    Operation("get", "/docs/plan", "What the plan pays for.", other=_PLAIN),
    Operation("get", "/docs/api", "This description, to be read.", other=_HTML),
    Operation("get", "/openapi.json", "This description.", "Description"),
)  # fmt: skip


def describe() -> dict[str, Any]:
    """The description, as OpenAPI 3.1."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "claudemax",
            "version": __version__,
            "description": "What is below /v1 is also there without it. A key is needed where the "
            "daemon runs with --api-key-file.",
        },
        "servers": [{"url": "."}],
        "security": [{}, {"bearer": []}, {"key": []}],
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def _operation(operation: Operation) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if operation.reply is not None:
        content["application/json"] = {"schema": _ref(operation.reply)}
    if operation.other is not None:
        content[operation.other] = {"schema": _TEXT}
    error = {
        "description": "Why there is no answer.",
        "content": {"application/json": {"schema": _ref(_error(operation.path))}},
    }
    told: dict[str, Any] = {
        "summary": operation.summary,
        "responses": {
            "200": {"description": "The answer.", "content": content},
            "4XX": error,
            "5XX": error,
        },
    }
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": _NAME}
        for name in re.findall(r"\{(\w+)\}", operation.path)
    ]
    parameters += [
        {"name": name, "in": "query", "schema": schema} for name, schema in operation.query.items()
    ]
    if parameters:
        told["parameters"] = parameters
    if operation.body is not None:
        body = {"schema": _ref(operation.body), "example": EXAMPLES[operation.body]}
        told["requestBody"] = {"required": True, "content": {"application/json": body}}
    return told


def _error(path: str) -> str:
    if path.startswith("/api/"):
        return "OllamaError"
    return "MessageError" if path.startswith("/v1/messages") else "Error"


def page() -> str:
    """The same for people, in HTML."""
    parts = [_HEAD]
    for operation in OPERATIONS:
        name = f"{operation.method.upper()} {operation.path}"
        parts.append(f"<h2><code>{escape(name)}</code></h2><p>{escape(operation.summary)}")
        fields = SCHEMAS[operation.body] if operation.body else _OBJECT
        required = fields.get("required", ())
        rows = [
            (name, "required" if name in required else "", about["description"])
            for name, about in fields.get("properties", {}).items()
        ]
        rows += [
            (name, "", f"{about.get('minimum', '')} to {about['maximum']}" if "maximum" in about
             else about["type"])
            for name, about in operation.query.items()
        ]  # fmt: skip
        if operation.body:
            parts.append(f"<pre>{escape(json.dumps(EXAMPLES[operation.body]))}</pre>")
        if rows:
            cells = ("".join(f"<td>{escape(cell)}" for cell in row) for row in rows)
            parts.append(f"<table>{''.join(f'<tr>{row}' for row in cells)}</table>")
    return "\n".join(parts)


_HEAD = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>claudemax: the API</title>
<style>body{max-width:60em;margin:2em auto;padding:0 1em;font:1em/1.5 sans-serif}
td{vertical-align:top;padding-right:1em}td:first-child{font-family:monospace}
:root{color-scheme:light dark}</style>
<h1>The API</h1><p>What is below <code>/v1</code> is also there without it. The same for programs:
<a href="../openapi.json">openapi.json</a>."""
