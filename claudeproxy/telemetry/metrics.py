"""The metrics of ``GET /metrics``: counted turn by turn, or read when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, PlatformCollector
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from twisted.internet.interfaces import IReactorTime

from claudeproxy.engine.engine import Engine
from claudeproxy.ledger.record import TurnRecord

from .labels import ModelLabels, outcome
from .present import Build, KeyQuota, Present
from .reactor_lag import ReactorLag

FIRST_TOKEN = (0.1, 0.25, 0.5, 1, 2, 3, 5, 8, 13, 20, 30, 60, 120)
TURN = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800)
QUEUE = (0.01, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 300)
LAG = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
"""Upper bounds of histogram buckets, in seconds."""


class Metrics(Collector):
    """A registry of its own: nothing is mixed with what an embedding program counts."""

    def __init__(
        self,
        reactor: IReactorTime,
        engine: Engine,
        models: ModelLabels,
        build: Callable[[], Build],
        quotas: Callable[[], Iterable[KeyQuota]] = tuple,
    ) -> None:
        self._models = models
        self._registry = registry = CollectorRegistry()
        self._turns = Counter(
            "claudemax_turns",
            "Turns that are over, refused ones too.",
            ("dialect", "model", "outcome"),
            registry=registry,
        )
        self._placements = Counter(
            "claudemax_turn_placements",
            "Turns by how they were served: warm, kept, parked or rewound.",
            ("placement",),
            registry=registry,
        )
        self._tokens = Counter(
            "claudemax_tokens",
            "Tokens by kind: input (not cached), cache_read, cache_write, output.",
            ("model", "kind"),
            registry=registry,
        )
        self._price = Counter(
            "claudemax_list_price_dollars",
            "What the tokens would have cost at Anthropic's list prices, in US dollars.",
            ("model",),
            registry=registry,
        )
        self._first_token = Histogram(
            "claudemax_turn_first_token_seconds",
            "Time from the arrival of a request to the first token of its answer.",
            ("model",),
            registry=registry,
            buckets=FIRST_TOKEN,
        )
        self._seconds = Histogram(
            "claudemax_turn_seconds",
            "Time from the arrival of a request to the end of its answer, if it got one.",
            ("model",),
            registry=registry,
            buckets=TURN,
        )
        self._queue = Histogram(
            "claudemax_turn_queue_seconds",
            "Time that an answered turn waited for a slot.",
            registry=registry,
            buckets=QUEUE,
        )
        lag = Histogram(
            "claudemax_reactor_lag_seconds",
            "How late timers of the daemon are; measured while somebody scrapes.",
            registry=registry,
            buckets=LAG,
        )
        self._lag = ReactorLag(reactor, lag.observe)
        PlatformCollector(registry=registry)
        registry.register(Present(engine, build, quotas))

    def observe(self, record: TurnRecord) -> None:
        """Count a turn that is over."""
        model, came_to = self._models.of(record), outcome(record)
        self._turns.labels(record.dialect, model, came_to).inc()
        if record.placement:
            self._placements.labels(record.placement).inc()
        usage = record.usage
        for kind, tokens in (
            ("input", usage.input_tokens),
            ("cache_read", usage.cache_read_tokens),
            ("cache_write", usage.cache_write_tokens),
            ("output", usage.output_tokens),
        ):
            self._tokens.labels(model, kind).inc(tokens)
        if record.list_price:
            self._price.labels(model).inc(record.list_price)
        if record.first_token_ms is not None:
            self._first_token.labels(model).observe(record.first_token_ms / 1000)
        if came_to == "ok":
            self._seconds.labels(model).observe(record.total_ms / 1000)
            self._queue.observe(record.queue_ms / 1000)

    def scrape(self, accept: str) -> tuple[str, bytes]:
        """Content type and body of a reply to a request with this ``Accept`` header."""
        self._lag.wanted()
        try:
            encoder, content_type = choose_encoder(accept)
        except (TypeError, ValueError):  # a version in it that is none
            encoder, content_type = choose_encoder("")
        return content_type, encoder(self)

    def collect(self) -> Iterator[Metric]:
        """All metrics, without the time at which each was first counted: they would be half of all
        series, and Prometheus has no use for them."""
        for metric in self._registry.collect():
            metric.samples = [s for s in metric.samples if not s.name.endswith("_created")]
            yield metric

    def stop(self) -> None:
        """Leave no timer behind."""
        self._lag.stop()
