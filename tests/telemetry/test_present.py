"""What is read at a scrape, and labels that hostile clients cannot multiply."""

from __future__ import annotations

from typing import Any

import pytest
from scraping import by, samples, value
from twisted.internet.task import Clock

from claudeproxy.cli.models import ModelInfo
from claudeproxy.cli.states import State
from claudeproxy.engine.catalogue import Catalogue
from claudeproxy.engine.engine import Engine, Limits
from claudeproxy.ledger.record import TurnRecord
from claudeproxy.messages import Failure, Kind, Usage
from claudeproxy.telemetry.labels import MOST_UNLISTED, OTHER, ModelLabels
from claudeproxy.telemetry.metrics import Metrics
from claudeproxy.telemetry.present import MOST_WINDOWS, Build
from claudeproxy.telemetry.reactor_lag import PERIOD, WATCHED

NOW = 1000.0


class Scraped:
    """An engine that has no process and needs none, and its metrics."""

    def __init__(self) -> None:
        self.clock = Clock()
        catalogue = Catalogue({"gpt-4": "opus"})
        catalogue.learn(
            [ModelInfo("opus", "claude-opus-5-5"), ModelInfo("haiku", "claude-haiku-5")]
        )
        self.engine = Engine(
            self.clock, lambda _: pytest.fail("a process"), catalogue, Limits(), lambda: NOW
        )
        self.models = ModelLabels(catalogue)
        self.metrics = Metrics(
            self.clock, self.engine, self.models, lambda: Build("0.1", "2.1.300", 2)
        )

    def text(self) -> str:
        return self.metrics.scrape("")[1].decode()

    def observe(self, **known: Any) -> None:
        self.metrics.observe(record(**known))


def record(**known: Any) -> TurnRecord:
    return TurnRecord(
        **{"time": NOW, "request_id": "r", "dialect": "chat", "model": "opus", **known}
    )


@pytest.fixture
def scraped() -> Scraped:
    return Scraped()


def test_the_plan(scraped: Scraped) -> None:
    quota = scraped.engine.quota
    quota.hear({"unifiedWindows": {
        "five_hour": {"utilization": 0.825, "resetsAt": 5000},
        "seven_day": {"utilization": 0.1, "resetsAt": 900},
    }})  # fmt: skip
    quota.close(Failure(Kind.PLAN_LIMIT, "", 429, retry_after=9.0, window="seven_day_opus"))
    quota.charges.paid = 3
    text = scraped.text()
    assert by(text, "claudemax_window_used_ratio", "window") == {"five_hour": 0.825}
    assert by(text, "claudemax_window_resets_timestamp_seconds", "window") == {
        "five_hour": 5000, "seven_day_opus": 1009
    }  # fmt: skip
    assert by(text, "claudemax_window_closed", "window") == {"five_hour": 0, "seven_day_opus": 1}
    assert value(text, "claudemax_paid_turns_total") == 3


def test_windows_are_bounded(scraped: Scraped) -> None:
    windows = {f"w{n:03}": {"utilization": 0.5, "resetsAt": 5000} for n in range(200)}
    scraped.engine.quota.hear({"unifiedWindows": windows})
    text = scraped.text()
    for name in ("used_ratio", "resets_timestamp_seconds", "closed"):
        assert len(by(text, f"claudemax_window_{name}", "window")) == MOST_WINDOWS


def test_the_login(scraped: Scraped) -> None:
    login = scraped.engine.quota.login

    def told() -> list[float]:
        found = samples(scraped.text())
        return [number for (name, _), number in found.items() if name == "claudemax_login_works"]

    assert told() == []
    login.works = True
    assert told() == [1]
    login.ended(Failure(Kind.AUTHENTICATION, "", 401, code="not_logged_in"), login.number)
    login.works = False
    assert told() == [0]


def test_versions_states_and_limits(scraped: Scraped) -> None:
    text = scraped.text()
    assert value(text, "claudemax_build_info", version="0.1", cli_version="2.1.300") == 1
    assert value(text, "claudemax_lost_facts") == 2
    states = {state.value.replace(" ", "_") for state in State}
    assert by(text, "claudemax_processes", "state") == dict.fromkeys(states, 0)
    assert value(text, "claudemax_running_turns_limit") == Limits().concurrency
    assert value(text, "claudemax_waiting_turns_limit") == Limits().queue
    assert value(text, "claudemax_processes_limit") == Limits().processes


def test_what_a_turn_adds(scraped: Scraped) -> None:
    usage = Usage(10, 7, 80, 20, 3)
    scraped.observe(
        answered_by="claude-opus-5-5", usage=usage, placement="kept", first_token_ms=700.0,
        total_ms=4000.0, queue_ms=20.0,
    )  # fmt: skip
    scraped.observe(outcome="client left", placement="kept", total_ms=9e6)
    text = scraped.text()
    tokens = by(text, "claudemax_tokens_total", "kind")
    assert tokens == {"input": 10, "cache_read": 80, "cache_write": 20, "output": 7}
    model = "claude-opus-5-5"
    assert value(text, "claudemax_turn_first_token_seconds_sum", model=model) == 0.7
    assert value(text, "claudemax_turn_first_token_seconds_bucket", model=model, le="0.5") == 0
    assert value(text, "claudemax_turn_first_token_seconds_bucket", model=model, le="1.0") == 1
    assert value(text, "claudemax_turn_seconds_sum", model=model) == 4
    assert value(text, "claudemax_turn_queue_seconds_sum") == 0.02
    assert by(text, "claudemax_turn_placements_total", "placement") == {"kept": 2}
    assert by(text, "claudemax_turns_total", "outcome") == {"ok": 1, "client_left": 1}


def test_hostile_model_names_make_no_series(scraped: Scraped) -> None:
    for number in range(500):
        scraped.observe(model=f"claude-evil-{number}", outcome="overloaded")
        scraped.observe(answered_by=f"claude-echo-{number}")
    for name in ('claude-"}\n', "x" * 65, "ключ"):
        scraped.observe(answered_by=name)
    for name in ("opus", "gpt-4", "openai/claude-opus-5-5", "claude-opus-4"):
        scraped.observe(model=name, outcome="timeout")
    scraped.observe(answered_by="claude-haiku-5")
    turns = by(scraped.text(), "claudemax_turns_total", "model")
    assert sum(turns.values()) == 1008
    assert len(turns) == MOST_UNLISTED + 3
    assert turns["claude-opus-5-5"] == 4  # whatever it was called
    assert turns["claude-haiku-5"] == 1  # although all places were taken
    assert turns[OTHER] == 500 + (500 - MOST_UNLISTED) + 3


def test_the_reactors_lag_is_measured_while_somebody_reads_it(scraped: Scraped) -> None:
    clock = scraped.clock
    assert not clock.getDelayedCalls()
    scraped.text()
    clock.advance(PERIOD)
    clock.advance(PERIOD + 0.3)  # something kept it busy
    text = scraped.text()
    assert value(text, "claudemax_reactor_lag_seconds_count") == 2
    assert value(text, "claudemax_reactor_lag_seconds_sum") == pytest.approx(0.3)
    for _ in range(int(WATCHED / PERIOD) + 1):
        clock.advance(PERIOD)
    assert not clock.getDelayedCalls(), "nobody has asked for long"
    scraped.text()
    assert clock.getDelayedCalls()
    scraped.metrics.stop()
    assert not clock.getDelayedCalls()
