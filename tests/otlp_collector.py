"""A real OTLP collector over HTTP: it takes what the SDK sends, and keeps it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from attrs import Factory, define
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@define
class Collector:
    """``received``: path, headers and body of every request."""

    url: str
    received: list[tuple[str, dict[str, str], bytes]] = Factory(list)

    def spans(self) -> list[Any]:
        """Every span, as protobuf has it."""
        return [
            span
            for batch in self._parsed("/v1/traces", ExportTraceServiceRequest)
            for resource in batch.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def metrics(self) -> dict[str, list[tuple[dict[str, Any], Any]]]:
        """The latest points of each metric, with their attributes."""
        return {
            metric.name: [
                (attributes(point), point) for point in metric.histogram.data_points
            ]
            for batch in self._parsed("/v1/metrics", ExportMetricsServiceRequest)
            for resource in batch.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }  # fmt: skip

    def resource(self) -> dict[str, Any]:
        """What the sender says of itself."""
        return attributes(
            self._parsed("/v1/traces", ExportTraceServiceRequest)[0].resource_spans[0].resource
        )

    def _parsed(self, path: str, kind: Any) -> list[Any]:
        return [kind.FromString(body) for where, _, body in list(self.received) if where == path]


def attributes(thing: Any) -> dict[str, Any]:
    """The attributes of a span, a point or a resource."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in
            thing.attributes}  # fmt: skip


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that listens."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            collector.received.append((self.path, dict(self.headers), body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Not to stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector = Collector(f"http://127.0.0.1:{server.server_port}")
    Thread(target=server.serve_forever, daemon=True).start()
    yield collector
    server.shutdown()
    server.server_close()
