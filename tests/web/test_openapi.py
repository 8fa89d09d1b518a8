"""The description is that of what is served."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import treq
from harness import Daemon, in_thread
from pytest_twisted import ensureDeferred

from claudeproxy.testing import fake_cli
from claudeproxy.web import chat, conversations, ollama, openapi, responses, routes
from claudeproxy.web.operations import EXAMPLES, OPERATIONS, Operation

HEAD = {"HEAD", "OPTIONS"}
APPS = (
    routes.API,
    chat.ChatAPI,
    responses.ResponsesAPI,
    conversations.ConversationsAPI,
    ollama.OllamaAPI,
)


def served() -> set[tuple[str, str]]:
    """Method and path of each route; those without ``/v1`` that also exist with it left out."""
    rules = [
        (method.lower(), rule.rule)
        for api in APPS
        for rule in api.app.url_map.iter_rules()
        for method in (rule.methods or set()) - HEAD
        if rule.endpoint != "absent"
    ]
    named = {
        (method, path.replace("path:", "").replace("<", "{").replace(">", "}"))
        for method, path in rules
    }
    return {(method, path) for method, path in named if (method, f"/v1{path}") not in named}


def test_it_describes_every_route_and_no_other() -> None:
    described = {
        (method, path) for path, told in openapi.describe()["paths"].items() for method in told
    }
    assert described == served()


def test_its_schemas_are_schemas() -> None:
    whole = openapi.describe()
    for name, schema in whole["components"]["schemas"].items():
        jsonschema.Draft202012Validator.check_schema(schema)
        if name in EXAMPLES:
            validator(name).validate(EXAMPLES[name])
    assert set(EXAMPLES) == {operation.body for operation in OPERATIONS} - {None}


def validator(name: str) -> Any:
    whole = openapi.describe()
    schema = {"$ref": f"#/components/schemas/{name}", "components": whole["components"]}
    return jsonschema.Draft202012Validator(schema)


def named(operations: Any) -> Any:
    return pytest.mark.parametrize(
        "operation", [pytest.param(one, id=f"{one.method} {one.path}") for one in operations]
    )


async def reply_to(daemon: Daemon, operation: Operation, path: str, **fields: Any) -> Any:
    if operation.method == "post":
        body = EXAMPLES[operation.body] if operation.body else {}
        return await daemon.post(path, {**body, **fields})
    return await treq.request(operation.method, daemon.url + path)


BAD_QUERIES = {
    "limit": "0", "order": "up", "after": "nothing", "stream": "maybe", "starting_after": "x",
    "metadata": "a", "days": "0", "before": "x",
}  # fmt: skip


async def check_queries(daemon: Daemon, operation: Operation, path: str) -> None:
    """What breaks the description of a parameter is refused."""
    for name in operation.query.keys() & BAD_QUERIES.keys():
        response = await reply_to(daemon, operation, f"{path}?{name}={BAD_QUERIES[name]}")
        told = await treq.json_content(response)
        assert (response.code, told["error"]["param"]) == (400, name)


@named(one for one in OPERATIONS if "{" not in one.path)
@ensureDeferred
async def test_good_replies_are_as_described(daemon: Daemon, operation: Operation) -> None:
    response = await reply_to(daemon, operation, operation.path)
    text = await treq.text_content(response)
    assert response.code == 200, text
    kind = response.headers.getRawHeaders("content-type")[0].partition(";")[0]
    assert kind == ("application/json" if operation.reply else operation.other)
    if operation.reply is not None:
        validator(operation.reply).validate(json.loads(text))
    await check_queries(daemon, operation, operation.path)
    if operation.reply is not None and operation.other is not None:
        response = await reply_to(daemon, operation, operation.path, stream=True)
        await treq.content(response)
        assert response.headers.getRawHeaders("content-type")[0].startswith(operation.other)


async def made(daemon: Daemon, path: str, body: str, **fields: Any) -> tuple[str, str]:
    """The ids of what a request makes, and of the request."""
    response = await daemon.post(path, {**EXAMPLES[body], **fields})
    told = await treq.json_content(response)
    return told["id"], response.headers.getRawHeaders("x-request-id")[0]


@named(one for one in OPERATIONS if "{" in one.path)
@ensureDeferred
async def test_replies_about_one_thing_are_as_described(
    daemon: Daemon, operation: Operation
) -> None:
    path, item = operation.path, ""
    if "/conversations/" in path:
        ident, _ = await made(daemon, "/v1/conversations", "NewConversation")
        listed = await treq.get(f"{daemon.url}/v1/conversations/{ident}/items")
        item = (await treq.json_content(listed))["data"][0]["id"]
    elif "/chat/" in path:
        ident, _ = await made(daemon, "/v1/chat/completions", "ChatCompletionRequest", store=True)
    else:
        background = path.endswith("/cancel")
        ident, turn = await made(daemon, "/v1/responses", "ResponseRequest", background=background)
        if "/turns/" in path:
            ident = turn
    path = path.format(name="haiku", ident=ident, item=item)
    response = await reply_to(daemon, operation, path)
    assert response.code == 200, await treq.text_content(response)
    validator(operation.reply or "").validate(await treq.json_content(response))
    if operation.other is not None:
        response = await reply_to(daemon, operation, f"{path}?stream=true&starting_after=1")
        await treq.content(response)
        assert response.headers.getRawHeaders("content-type")[0].startswith(operation.other)
    await check_queries(daemon, operation, path)
    nothing = operation.path.format(name="nothing", ident="nothing", item="nothing")
    response = await reply_to(daemon, operation, nothing)
    assert response.code == 404
    validator("Error").validate(await treq.json_content(response))


BAD = {"NewConversation": {"items": 7}, "NewItems": {"items": 7}, "Metadata": {"metadata": 7}}


@named(one for one in OPERATIONS if one.body is not None)
@ensureDeferred
async def test_what_breaks_the_description_is_refused(daemon: Daemon, operation: Operation) -> None:
    bad = {**EXAMPLES[str(operation.body)], **BAD.get(str(operation.body), {"model": 7})}
    response = await daemon.post(operation.path, bad)
    assert response.code == 400
    kind = "OllamaError" if operation.path.startswith("/api/") else "Error"
    kind = "MessageError" if operation.path.startswith("/v1/messages") else kind
    validator(kind).validate(await treq.json_content(response))


@ensureDeferred
async def test_the_page_shows_all_of_it(daemon: Daemon) -> None:
    page = await treq.text_content(await treq.get(daemon.url + "/docs/api"))
    assert all(f"{one.method.upper()} {one.path}" in page for one in OPERATIONS)
    assert "parallel_tool_calls" in page
    assert "options.num_predict" in page
    assert "?starting_after" in page and "asc or desc" in page
    assert "`" not in page
    assert "<script" not in page


@pytest.mark.slow
@pytest.mark.skipif(find_spec("schemathesis") is None, reason="schemathesis is not installed")
@ensureDeferred
async def test_schemathesis_finds_nothing(make_daemon: Any, tmp_path: Path) -> None:
    """It makes bodies that fit the description, and bodies that do not. Left out: that all that
    fits is accepted, for the description says less than the daemon asks for; and that ``Allow``
    names nothing else, for a response might be called ``input_tokens``."""
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"))
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", f"{daemon.url}/openapi.json",
        "--url", daemon.url, "--generation-deterministic", "--max-examples", "30", "--no-color",
        "--phases", "examples,coverage,fuzzing", "--exclude-checks",
        "positive_data_acceptance,ignored_auth,allow_header_conformance",
    ]  # fmt: skip
    run = partial(subprocess.run, command, cwd=tmp_path, capture_output=True, text=True)
    done = await in_thread(run, timeout=170)
    assert done.returncode == 0, done.stdout
