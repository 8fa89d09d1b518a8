"""The description of the API for people, at ``/docs/api``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from html import escape

from .operations import EXAMPLES, OPERATIONS, SCHEMAS, Operation, Schema

_HEAD = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>claudemax: the API</title>
<style>:root{color-scheme:light dark}
body{max-width:60em;margin:2em auto;padding:0 1em;font:1em/1.5 sans-serif}
h2{margin-top:2em;overflow-wrap:anywhere}pre{white-space:pre-wrap;overflow-wrap:anywhere}
td{vertical-align:top;padding:.1em 1em .1em 0}td:first-child{font-family:monospace}</style>
<h1>The API</h1><p>What is below <code>/v1</code> is also there without it. The same for programs:
<a href="../openapi.json">openapi.json</a>."""


def page() -> str:
    """All operations, in HTML."""
    return "\n".join([_HEAD, *(part for one in OPERATIONS for part in _operation(one))])


def _operation(operation: Operation) -> Iterator[str]:
    yield f"<h2><code>{operation.method.upper()} {escape(operation.path)}</code></h2>"
    yield f"<p>{_said(operation.summary)}"
    if operation.body is not None:
        yield f"<pre>{escape(json.dumps(EXAMPLES[operation.body]))}</pre>"
        body = SCHEMAS[operation.body]
        needed = body.get("required", ())
        yield _table(
            (name, "required" if name in needed else "", about.get("description", ""))
            for name, about in _fields(body)
        )
    yield _table((f"?{name}", "", _parameter(about)) for name, about in operation.query.items())
    answers = []
    if operation.reply is not None:
        answers.append(", ".join(SCHEMAS[operation.reply]["required"]))
    if operation.other is not None:
        answers.append(operation.other)
    yield f"<p>The answer: {escape('; or '.join(answers))}"


def _fields(schema: Schema, within: str = "") -> Iterator[tuple[str, Schema]]:
    for name, about in schema.get("properties", {}).items():
        yield within + name, about
        yield from _fields(about, f"{within}{name}.")


def _parameter(schema: Schema) -> str:
    if "maximum" in schema:
        bounds = f"from {schema['minimum']:,} to {schema['maximum']:,}"
        return f"{schema['description']}; {bounds}" if "description" in schema else bounds
    return str(schema.get("description", " or ".join(schema.get("enum", ()))))


def _table(rows: Iterable[tuple[str, ...]]) -> str:
    cells = ["<tr>" + "".join(f"<td>{_said(cell)}" for cell in row) for row in rows]
    return f"<table>{''.join(cells)}</table>" if cells else ""


def _said(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
