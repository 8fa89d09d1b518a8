"""What it costs to note a turn: journal, ledger, quotas and metrics, with the ledger's thread.

Its key has quotas, and the plan two windows.

``python -m benchmarks.bookkeeping`` prints milliseconds of CPU a turn, one line a round.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from twisted.internet.defer import ensureDeferred
from twisted.internet.task import deferLater, react

from claudeproxy.cli.models import ModelInfo
from claudeproxy.engine.catalogue import Catalogue
from claudeproxy.engine.engine import Engine, Limits
from claudeproxy.ledger.file import sqlite_ledger
from claudeproxy.ledger.ledger import Ledger
from claudeproxy.ledger.record import TurnRecord
from claudeproxy.messages import Usage
from claudeproxy.telemetry.labels import ModelLabels
from claudeproxy.telemetry.metrics import Metrics
from claudeproxy.telemetry.present import Build
from claudeproxy.web.access_log import Facts
from claudeproxy.web.journal import Journal
from claudeproxy.web.key_rules import Rules
from claudeproxy.web.quotas import Quotas

ROUNDS, TURNS = 7, 500

RULES = Rules(requests={"min": 10**6, "day": 10**6}, tokens={"day": 10**9}, shares={"five_hour": 1})


async def measure(reactor: Any) -> None:
    """Print the figures."""
    catalogue = Catalogue()
    catalogue.learn([ModelInfo("sonnet", "claude-sonnet-4-5-20250929")])
    engine = Engine(reactor, _no_process, catalogue, Limits())
    metrics = Metrics(reactor, engine, ModelLabels(catalogue), lambda: Build("", ""))
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        file = sqlite_ledger(Path(folder) / "ledger.sqlite")
        file.open(reactor)
        ledger = Ledger(file)
        journal = Journal(engine)
        quotas = Quotas(engine, ledger.counts)
        journal.observers += [lambda turn: ledger.add(turn, quotas.plan()), metrics.observe]
        for round_ in range(ROUNDS):
            before = time.process_time()
            for number in range(TURNS):
                ensureDeferred(quotas.take("laptop", RULES))
                engine.quota.hear({"unifiedWindows": _windows(round_ * TURNS + number)})
                _turn(journal, f"req_{round_}_{number}")
                if number % 10 == 0:  # turns do not come all at once
                    await deferLater(reactor, 0, lambda: None)
            await ledger.latest(1)
            print(f"{1000 * (time.process_time() - before) / TURNS:.4f}", flush=True)
        file.close()


def _windows(number: int) -> dict[str, Any]:
    resets = time.time() + 3600
    return {
        name: {"utilization": number / 1e4, "resetsAt": resets}
        for name in ("five_hour", "seven_day")
    }


def _turn(journal: Journal, ident: str) -> None:
    record = TurnRecord(
        time=time.time(), request_id=ident, key="laptop", dialect="chat", model="sonnet",
        usage=Usage(12, 300, 20_000, 500, 40),
    )  # fmt: skip
    facts = Facts(answered_by="claude-sonnet-4-5-20250929", placement="kept", first_token=0.9)
    journal.began(record, facts)
    journal.ended(ident, 4.0, 200, 9000, False)


def _no_process(_: Engine) -> Any:
    raise AssertionError("no process is needed")


if __name__ == "__main__":
    react(lambda reactor: ensureDeferred(measure(reactor)))
