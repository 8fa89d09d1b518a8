"""What is so at present, read when somebody asks: until then it costs nothing."""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import TypeVar

import psutil
from attrs import frozen
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from claudeproxy.cli.states import State
from claudeproxy.engine import memory
from claudeproxy.engine.engine import Engine

T = TypeVar("T")

MOST_WINDOWS = 20
"""Windows of the plan that are told of; there are five or so, but their names are not ours."""


@frozen
class Build:
    """``version``: of the daemon; ``lost_facts``: how many facts this version of the CLI no longer
    keeps to; ``store_up``: whether what is kept can be reached."""

    version: str
    cli_version: str
    lost_facts: int = 0
    store_up: bool = True


@frozen
class KeyQuota:
    """``used``: the share (0 to 1, or beyond) of what the holder of ``key`` may use."""

    key: str
    quota: str
    used: float


class Present(Collector):
    """The state of ``engine``, of the keys' quotas, and of this process."""

    def __init__(
        self,
        engine: Engine,
        build: Callable[[], Build],
        quotas: Callable[[], Iterable[KeyQuota]],
    ) -> None:
        self._engine = engine
        self._build = build
        self._quotas = quotas

    def collect(self) -> Iterator[Metric]:
        build = self._build()
        about = GaugeMetricFamily(
            "claudemax_build_info",
            "The versions of daemon and CLI; always 1.",
            labels=("version", "cli_version"),
        )
        about.add_metric((build.version, build.cli_version), 1)
        yield about
        yield _gauge("lost_facts", "Facts this CLI no longer keeps to.", build.lost_facts)
        yield _gauge("store_up", "Whether the store can be reached.", build.store_up)
        yield from self._turns()
        yield from self._processes()
        yield from self._plan()
        yield self._keys()
        yield from _this_process()

    def _turns(self) -> Iterator[Metric]:
        admission = self._engine.admission
        yield _gauge("running_turns", "Turns that run.", admission.running)
        yield _gauge("running_turns_limit", "Turns that may run at once.", admission.concurrency)
        yield _gauge("waiting_turns", "Turns that wait for a slot.", admission.waiting)
        yield _gauge("waiting_turns_limit", "Turns that may wait.", admission.queue)

    def _processes(self) -> Iterator[Metric]:
        engine, keeper = self._engine, self._engine.keeper
        states = Counter(process.state for process in engine.processes)
        by_state = {state.value.replace(" ", "_"): states[state] for state in State}
        yield _by("processes", "Claude CLIs by state.", "state", by_state)
        yield _gauge("processes_limit", "Claude CLIs that may run.", keeper.budget)
        yield _gauge(
            "processes_resident_memory_bytes",
            "Resident memory of all Claude CLIs together, shared pages counted in each.",
            sum(memory.used(process.pid) for process in list(engine.processes)),
        )
        yield _counter("process_starts", "Claude CLIs started.", engine.started)
        yield _counter("process_rewinds", "Rewinds of Claude CLIs.", engine.rewinds)
        yield _gauge(
            "process_start_failures",
            "Starts of a Claude CLI that failed since the last good one.",
            keeper.failures,
        )

    def _plan(self) -> Iterator[Metric]:
        quota, now = self._engine.quota, self._engine.now()
        windows, closed = quota.windows, quota.closed()
        known = {name: each for name, each in windows.known.items() if now < each.resets}
        yield _by(
            "window_used_ratio",
            "Used share of a window of the plan, as last reported.",
            "window",
            {name: window.used for name, window in _few(known)},
        )
        yield _by(
            "window_resets_timestamp_seconds",
            "When a window of the plan resets, in epoch seconds.",
            "window",
            dict(_few({**closed, **{name: window.resets for name, window in known.items()}})),
        )
        yield _by(
            "window_closed",
            "Whether turns are refused because a window of the plan is used up.",
            "window",
            {name: name in closed for name, _ in _few({**closed, **known})},
        )
        yield _counter("paid_turns", "Turns paid as extra usage.", quota.charges.paid)
        yield _gauge(
            "refused_setups",
            "System prompts with their tools that are refused because they would be charged for.",
            quota.charges.charged,
        )
        login = GaugeMetricFamily(
            "claudemax_login_works", "Whether the CLI's login works; absent while that is unknown."
        )
        if quota.login.works is not None or quota.login.failing:
            login.add_metric((), bool(quota.login.works) and not quota.login.failing)
        yield login

    def _keys(self) -> Metric:
        metric = GaugeMetricFamily(
            "claudemax_key_quota_used_ratio",
            "Used share of what the holder of a key may use.",
            labels=("key", "quota"),
        )
        for each in self._quotas():  # as many as the key file has
            metric.add_metric((each.key, each.quota), each.used)
        return metric


def _this_process() -> Iterator[Metric]:
    """Under the names that every Prometheus client gives them. The client library's own collector
    reads ``/proc``, which macOS does not have."""
    process = psutil.Process()
    with process.oneshot():
        memory_used, cpu = process.memory_info(), process.cpu_times()
        started, open_fds = process.create_time(), process.num_fds()
    told = {
        "resident_memory_bytes": ("Resident memory size in bytes.", memory_used.rss),
        "virtual_memory_bytes": ("Virtual memory size in bytes.", memory_used.vms),
        "start_time_seconds": ("Start time since unix epoch in seconds.", started),
        "open_fds": ("Number of open file descriptors.", open_fds),
        "max_fds": (
            "Maximum number of open file descriptors.",
            resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        ),
    }
    for name, (help, value) in told.items():
        yield GaugeMetricFamily(f"process_{name}", help, value=value)
    yield CounterMetricFamily(
        "process_cpu_seconds",
        "Total user and system CPU time spent in seconds.",
        value=cpu.user + cpu.system,
    )


def _gauge(name: str, help: str, value: float) -> Metric:
    return GaugeMetricFamily(f"claudemax_{name}", help, value=value)


def _counter(name: str, help: str, value: float) -> Metric:
    return CounterMetricFamily(f"claudemax_{name}", help, value=value)


def _by(name: str, help: str, label: str, values: Mapping[str, float]) -> Metric:
    metric = GaugeMetricFamily(f"claudemax_{name}", help, labels=(label,))
    for value, number in values.items():
        metric.add_metric((value,), number)
    return metric


def _few(windows: Mapping[str, T]) -> Iterable[tuple[str, T]]:
    return islice(sorted(windows.items(), key=lambda item: item[0]), MOST_WINDOWS)
