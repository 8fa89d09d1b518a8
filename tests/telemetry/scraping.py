"""``GET /metrics`` as Prometheus reads it."""

from __future__ import annotations

from typing import Any

import treq
from harness import Daemon
from prometheus_client.parser import text_string_to_metric_families

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def scrape(daemon: Daemon, **headers: str) -> str:
    """The text of a scrape."""
    response = await treq.get(daemon.url + "/metrics", headers=headers)
    assert response.code == 200
    return str(await treq.text_content(response))


def samples(text: str) -> Samples:
    """Values by name and labels."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, key
            found[key] = sample.value
    return found


def value(text: str, name: str, **labels: str) -> float:
    """The value of one sample; 0 if there is none, as for a label never seen."""
    return samples(text).get((name, frozenset(labels.items())), 0.0)


def by(text: str, name: str, label: str) -> dict[str, float]:
    """The values of a metric by one of its labels, summed over the others."""
    sums: dict[str, float] = {}
    for (found, labels), number in samples(text).items():
        if found == name:
            sums[dict(labels)[label]] = sums.get(dict(labels)[label], 0.0) + number
    return sums


def user(text: str) -> list[dict[str, Any]]:
    """A conversation of one message."""
    return [{"role": "user", "content": text}]
