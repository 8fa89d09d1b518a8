"""The upstream of all subjects, in a process of its own: the demo, and what it was sent.

``GET /received`` answers the requests since the last such question, as a JSON list of objects
with ``size`` (bytes of the body) and ``body``. Prints its URL.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.internet import reactor
from twisted.web.resource import Resource
from twisted.web.server import Site

from claudeproxy.demo.app import DemoUpstream


class Root(Resource):
    def __init__(self, demo: DemoUpstream) -> None:
        super().__init__()
        self._demo = demo

    def getChild(self, path: bytes, request: Any) -> Resource:
        if path == b"received":
            return self
        request.prepath.pop()
        request.postpath.insert(0, path)
        return self._demo.resource()

    def render_GET(self, request: Any) -> bytes:
        received = [
            {"size": one.size, "body": one.body}
            for one in self._demo.requests
            if one.path.startswith("/v1/messages") and one.refused is None
        ]
        self._demo.requests.clear()
        return json.dumps(received).encode()


def main() -> None:
    site = Site(Root(DemoUpstream(reactor)))
    port = reactor.listenTCP(0, site, interface="127.0.0.1")  # type: ignore[attr-defined]
    print(f"http://127.0.0.1:{port.getHost().port}", flush=True)
    reactor.run()  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
