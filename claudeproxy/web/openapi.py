"""The description of the API that ``GET /openapi.json`` gives."""

from __future__ import annotations

import re
from typing import Any

from claudeproxy import __version__

from .operations import EXAMPLES, NAME, OPERATIONS, SCHEMAS, Operation, Schema, ref


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
        content[operation.other] = {}
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
        {"name": name, "in": "query", "schema": schema, **_spelt(schema)}
        for name, schema in operation.query.items()
    ]
    if parameters:
        told["parameters"] = parameters
    if operation.body is not None:
        body = {"schema": ref(operation.body), "example": EXAMPLES[operation.body]}
        told["requestBody"] = {"required": True, "content": {"application/json": body}}
    return told


def _spelt(schema: Schema) -> dict[str, Any]:
    """How an object is spelt in a query: ``metadata[topic]=a``."""
    return {"style": "deepObject", "explode": True} if schema.get("type") == "object" else {}


def _error(path: str) -> str:
    if path.startswith("/api/"):
        return "OllamaError"
    return "MessageError" if path.startswith("/v1/messages") else "Error"
