"""Looks at the page of a daemon as a browser gets it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import treq
from harness import Daemon
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol

HTML = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}

CHARTS = tuple(
    f"/page/{what}-{period}-{width}.svg"
    for what in ("tokens", "cache") for period in ("24h", "30d") for width in (620, 340)
)  # fmt: skip


class Look:
    """A document: it is well-formed, so that an XML parser reads what a browser does."""

    def __init__(self, html: str) -> None:
        self.html = html
        self.root: Element = ElementTree.fromstring(html.removeprefix("<!doctype html>\n"))

    def text(self, section: str) -> str:
        """What is read in a section, by its id."""
        found = self.root.find(f".//section[@id='{section}']")
        assert found is not None, section
        return " ".join(" ".join(found.itertext()).split())

    def rows(self, section: str) -> list[list[str]]:
        """The cells of a section's tables, without their heads."""
        return [
            [" ".join("".join(cell.itertext()).split()) for cell in row]
            for row in self.root.findall(f".//section[@id='{section}']//tbody/tr")
        ]

    def tags(self) -> list[str]:
        """The name of every element."""
        return [element.tag for element in self.root.iter()]


async def look(daemon: Daemon, path: str = "/", **headers: str) -> Look:
    """The page, or a part of it."""
    response = await treq.get(daemon.url + path, headers={**HTML, **headers})
    text = await treq.text_content(response)
    assert response.code == 200, text
    return Look(text)


async def everything(daemon: Daemon, **headers: str) -> str:
    """All that the page sends, as one text."""
    found = []
    for path in ("/", "/page/main", *CHARTS, "/page/page.css", "/page/page.js", "/page/icon.svg"):
        response = await treq.get(daemon.url + path, headers={**HTML, **headers})
        assert response.code == 200, path
        found.append(await treq.text_content(response))
    return "\n".join(found)


async def held(daemon: Daemon, text: str = "Hello") -> Any:
    """The connection of a turn that stays in the middle of its answer; for the CLI's double."""
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", daemon.port[0].getHost().port)
    client = await connectProtocol(endpoint, Protocol())
    body = json.dumps(hello(f"{text} [[middle silence]]", stream=True))
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nuser-agent: Zed/1.0\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    client.transport.write(f"{head}{body}".encode())
    return client.transport


def header(response: Any, name: str) -> str | None:
    values = response.headers.getRawHeaders(name)
    return values[0] if values else None


def key_file(folder: Path, text: str = "laptop: s3cret\ndesk: other\n") -> str:
    path = folder / "keys"
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


def hello(text: str = "Hello", model: str = "haiku", **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **fields}


def words(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(" | ".join(row) for row in rows)
