"""One turn each, as clients of each kind ask it: the SDKs, which never ask again by themselves, and
plain HTTP.

Each function takes a :class:`~.turns.Turn`, notes the request's id there as soon as it is told, and
returns the answer's text. It raises :class:`Failed` or what its SDK raises.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any
from urllib.parse import urlsplit

import anthropic
import openai
from websockets.exceptions import (
    ConnectionClosed,
    ConnectionClosedOK,
    InvalidStatus,
    WebSocketException,
)
from websockets.sync.client import ClientConnection, connect

from .keys import secret
from .turns import Turn

MODEL = "sonnet"
SECONDS = 90.0
LOST = "connection lost"
CUT = "stream cut"
STORE_LOST = "store_lost"
CONVERSATION = "x-claudemax-conversation"

Messages = list[dict[str, Any]]


class Failed(Exception):
    """Its text is the cause."""


def cause_of(error: Exception) -> str:
    """A word for each kind of failure, the same for all clients."""
    if isinstance(error, Failed):
        return str(error)
    if isinstance(error, (openai.APIStatusError, anthropic.APIStatusError)):
        return f"{error.status_code} {_code(error.body)}"
    if isinstance(error, (openai.APIConnectionError, anthropic.APIConnectionError)):
        return LOST
    if isinstance(error, (openai.APIError, anthropic.APIError)):
        return f"event {_code(error.body)}"
    if isinstance(error, InvalidStatus):
        return f"{error.response.status_code} handshake"
    if isinstance(error, ConnectionClosedOK):
        return f"WebSocket closed: {error.rcvd and error.rcvd.reason}"
    lost = (OSError, HTTPException, ConnectionClosed, WebSocketException)
    if isinstance(error, lost) or type(error).__module__.startswith("httpx"):
        return LOST
    return repr(error)[:200]


def _code(body: Any) -> str:
    """What is wrong, from a body of any dialect; that of the balancer is its own."""
    error = body.get("error", body) if isinstance(body, Mapping) else body
    if isinstance(error, Mapping):
        if STORE_LOST in str(error) or "the store does not answer" in str(error):
            return STORE_LOST
        return str(error.get("code") or error.get("type"))
    return str(error)[:60].strip()


# -- the SDKs --


@cache
def openai_client(url: str, key: str, worker: int) -> openai.OpenAI:
    """Of each worker its own: they keep connections."""
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=SECONDS)


@cache
def anthropic_client(url: str, key: str, worker: int) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=url, api_key=key, max_retries=0, timeout=SECONDS)


def chat(
    client: openai.OpenAI, turn: Turn, messages: Messages, stream: bool, name: str = "", **more: Any
) -> str:
    """``name``: what the client calls its conversation."""
    more["extra_headers"] = {CONVERSATION: name} if name else {}
    if not stream:
        whole = client.chat.completions.create(model=MODEL, messages=messages, **more)
        turn.request_id = whole._request_id or ""
        return whole.choices[0].message.content or ""
    text, finished = "", False
    events = client.chat.completions.create(model=MODEL, messages=messages, stream=True, **more)
    turn.request_id = events.response.headers["x-request-id"]
    for event in events:
        for choice in event.choices:
            text += choice.delta.content or ""
            finished = finished or choice.finish_reason is not None
    if not finished:
        raise Failed(CUT)
    return text


def call(client: openai.OpenAI, turn: Turn, messages: Messages, tools: Any) -> dict[str, Any]:
    """The message of the assistant, which calls a tool."""
    whole = client.chat.completions.create(model=MODEL, messages=messages, tools=tools)
    turn.request_id = whole._request_id or ""
    return whole.choices[0].message.model_dump(exclude_none=True)


def message(
    client: anthropic.Anthropic, turn: Turn, messages: Messages, stream: bool, **more: Any
) -> str:
    body: Any = {"model": MODEL, "max_tokens": 500, "messages": messages, **more}
    if not stream:
        whole = client.messages.create(**body)
        turn.request_id = whole._request_id or ""
        return "".join(block.text for block in whole.content if block.type == "text")
    text, finished = "", False
    events = client.messages.create(**body, stream=True)
    turn.request_id = events.response.headers["request-id"]
    for event in events:
        if event.type == "content_block_delta" and event.delta.type == "text_delta":
            text += event.delta.text
        finished = finished or event.type == "message_stop"
    if not finished:
        raise Failed(CUT)
    return text


def respond(
    client: openai.OpenAI, turn: Turn, text: str, stream: bool, **more: Any
) -> tuple[str, str]:
    """The answer and the response's id."""
    if not stream:
        whole = client.responses.create(model=MODEL, input=text, **more)
        turn.request_id = whole._request_id or ""
        return responded(whole), whole.id
    events = client.responses.create(model=MODEL, input=text, stream=True, **more)
    turn.request_id = events.response.headers["x-request-id"]
    for event in events:
        if event.type in ("response.completed", "response.failed", "response.incomplete"):
            return responded(event.response), event.response.id
    raise Failed(CUT)


def responded(response: Any) -> str:
    """The text of a response that is over."""
    if response.status != "completed":
        code = response.error.code if response.error else response.status
        raise Failed(f"response {code}")
    return str(response.output_text)


# -- plain HTTP --


def send(url: str, key: str, path: str, body: Any, **headers: str) -> HTTPResponse:
    """A reply to a JSON body, still to be read. ``key``: its name."""
    connection = HTTPConnection(urlsplit(url).netloc, timeout=SECONDS)
    headers |= {"authorization": f"Bearer {secret(key)}", "content-type": "application/json"}
    connection.request("POST", path, json.dumps(body), headers)
    return connection.getresponse()


def _good(turn: Turn, url: str, path: str, body: Any, **headers: str) -> HTTPResponse:
    reply = send(url, turn.key, path, body, **headers)
    turn.request_id = reply.headers.get("x-request-id", "")
    if reply.status != 200:
        data = reply.read()
        try:
            told = json.loads(data)
        except ValueError:
            told = data.decode(errors="replace")
        raise Failed(f"{reply.status} {_code(told)}")
    return reply


def plain_chat(
    url: str, turn: Turn, messages: Messages, stream: bool, name: str = "", **more: Any
) -> str:
    body = {"model": MODEL, "messages": messages, "stream": stream, **more}
    headers = {CONVERSATION: name} if name else {}
    reply = _good(turn, url, "/v1/chat/completions", body, **headers)
    turn.ignored = reply.headers.get("x-claudemax-ignored", "")
    if not stream:
        return str(json.loads(reply.read())["choices"][0]["message"]["content"])
    lines = [line[6:].strip() for line in reply if line.startswith(b"data: ")]
    if lines[-1:] != [b"[DONE]"]:
        raise Failed(CUT)
    values = [json.loads(line) for line in lines[:-1]]
    for value in values:
        if "error" in value:
            raise Failed(f"event {_code(value)}")
    choices = [choice for value in values for choice in value["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def plain_message(url: str, turn: Turn, messages: Messages) -> str:
    body = {"model": MODEL, "max_tokens": 500, "messages": messages}
    value = json.loads(_good(turn, url, "/v1/messages", body).read())
    return "".join(block["text"] for block in value["content"] if block["type"] == "text")


def ollama(url: str, turn: Turn, messages: Messages, stream: bool) -> str:
    reply = _good(turn, url, "/api/chat", {"model": MODEL, "messages": messages, "stream": stream})
    values = [json.loads(line) for line in reply.read().splitlines()]
    for value in values:
        if "error" in value:
            raise Failed(f"event {_code(value)}")
    if not values or not values[-1]["done"]:
        raise Failed(CUT)
    return "".join(value["message"]["content"] for value in values)


# -- WebSocket --


def open_socket(url: str, key: str) -> ClientConnection:
    return connect(
        f"{url.replace('http', 'ws', 1)}/v1/responses",
        additional_headers={"authorization": f"Bearer {key}"}, open_timeout=SECONDS, proxy=None,
    )  # fmt: skip


def over_socket(socket: ClientConnection, turn: Turn, text: str, **more: Any) -> tuple[str, str]:
    """As :func:`respond`."""
    socket.send(json.dumps({"type": "response.create", "model": MODEL, "input": text, **more}))
    while True:
        event = json.loads(socket.recv(timeout=SECONDS))
        kind = event["type"]
        if kind == "error":
            raise Failed(f"{event['status']} {_code(event)}")
        if kind == "response.created":
            turn.request_id = event["response"]["id"].replace("resp_", "req_", 1)
        if kind in ("response.failed", "response.incomplete"):
            raise Failed(f"response {_code(event['response'])}")
        if kind == "response.completed":
            parts = [part for item in event["response"]["output"] for part in item["content"]]
            return "".join(part["text"] for part in parts), event["response"]["id"]
