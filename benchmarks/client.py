"""A client that costs next to nothing: one request a connection, and a clock."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from attrs import define

Messages = Sequence[dict[str, Any]]
T = TypeVar("T")


@define
class TimedAnswer:
    """What came back. ``first``: seconds to the first content, ``last``: to the end."""

    first: float
    last: float
    message: dict[str, Any]
    """The assistant's message, as it is sent back in the next turn."""


def request(messages: Messages, **fields: Any) -> bytes:
    """A streaming chat completion, with its head."""
    value = {"model": "sonnet", "stream": True, "messages": list(messages), **fields}
    body = json.dumps(value).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def ask(port: int, messages: Messages, **fields: Any) -> TimedAnswer:
    """Ask, and read the answer to its end."""
    data = request(messages, **fields)
    began = time.perf_counter()
    first: float | None = None
    text, calls = "", {}
    pending, done = b"", False
    with socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
        connection.sendall(data)
        # Not to the end of the connection, which the peer holds open for seconds.
        while not done and (got := connection.recv(65536)):
            now = time.perf_counter() - began
            *lines, pending = (pending + got).split(b"\n")
            for line in lines:
                done = done or line.startswith(b"data: [DONE]")
                # What is between the events are the frames of the chunked encoding.
                if not line.startswith(b"data: {"):
                    continue
                chunk = json.loads(line[6:])
                if "error" in chunk:
                    raise RuntimeError(chunk["error"])
                for choice in chunk["choices"]:
                    delta = choice["delta"]
                    text += delta.get("content") or ""
                    for call in delta.get("tool_calls") or ():
                        known = calls.setdefault(call["index"], call)
                        if known is not call:
                            known["function"]["arguments"] += call["function"]["arguments"]
                    if first is None and (text or calls):
                        first = now
    if first is None:
        raise RuntimeError(f"no answer: {lines!r}")
    message: dict[str, Any] = {"role": "assistant", "content": text or None}
    if calls:
        message["tool_calls"] = [calls[index] for index in sorted(calls)]
    return TimedAnswer(first, time.perf_counter() - began, message)


def leave(port: int, messages: Messages) -> None:
    """Ask, and go at the first content."""
    with socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
        connection.sendall(request(messages))
        read = b""
        while b'"content":"' not in read:
            got = connection.recv(65536)
            if not got:
                raise RuntimeError(f"no answer: {read!r}")
            read += got


def together(number: int, function: Callable[[int], T]) -> list[T]:
    """``number`` calls at once."""
    answers: list[T] = []
    errors: list[Exception] = []

    def run(index: int) -> None:
        try:
            answers.append(function(index))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return answers


def get(url: str) -> Any:
    """The JSON at ``url``."""
    import urllib.request

    with urllib.request.urlopen(url, timeout=30) as response:
        return json.load(response)
