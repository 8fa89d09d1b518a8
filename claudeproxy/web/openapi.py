"""The description of the API that ``GET /openapi.json`` gives."""

from __future__ import annotations

import json
import re
from html import escape
from typing import Any

from claudeproxy import __version__

from .operations import EXAMPLES, NAME, OBJECT, OPERATIONS, SCHEMAS, TEXT, Operation, ref


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
        content["application/json"] = {"schema": ref(operation.reply)}
    if operation.other is not None:
        content[operation.other] = {"schema": TEXT}
    error = {
        "description": "Why there is no answer.",
        "content": {"application/json": {"schema": ref(_error(operation.path))}},
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
        {"name": name, "in": "path", "required": True, "schema": NAME}
        for name in re.findall(r"\{(\w+)\}", operation.path)
    ]
    parameters += [
        {"name": name, "in": "query", "schema": schema} for name, schema in operation.query.items()
    ]
    if parameters:
        told["parameters"] = parameters
    if operation.body is not None:
        body = {"schema": ref(operation.body), "example": EXAMPLES[operation.body]}
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
        fields = SCHEMAS[operation.body] if operation.body else OBJECT
        required = fields.get("required", ())
        rows = [
            (name, "required" if name in required else "", about.get("description", ""))
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
