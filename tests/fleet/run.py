"""Two nodes, a balancer, a database and clients: what happens in which order."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import SystemRandom

from harness import newest_cli
from postgres import GUARDED, PASSWORD, Postgres

from claudeproxy.ports import is_free

from . import keys
from .balancer import Balancer
from .checks import Checks, by_kind
from .clients import Farm, work
from .disturbances import Disturbances
from .nodes import ROOT, Node, wait
from .plan import Plan
from .tables import Tables
from .turns import Turns
from .upstream import Upstream
from .verdict import Verdict

WORKERS = 8
PROBE = 3.0
"""Seconds after which nodes probe a closed window: minutes would be long to wait for."""

LOGS = ROOT / ".cache" / "cluster"

OPTIONS = ("--concurrency", "6", "--processes", "6", "--drain", "30", "--drain-notice", "5")


class Run:
    """``most``: turns."""

    def __init__(self, directory: Path, upstream: Upstream, server: Postgres, most: int) -> None:
        self.verdict = Verdict()
        self._upstream = upstream
        self._most = most
        self._turns = Turns()
        self._seconds = 0.0
        # Below those that the system gives to connections: a node gets its own again.
        self._ports = iter(SystemRandom().sample(range(30_000, 32_000), 100))
        database = server.create_database()
        store = server.url(database.rpartition("/")[2], GUARDED)
        key_file = directory / "keys"
        keys.write(key_file)
        options = [*OPTIONS, "--claude", newest_cli(), "--api-key-file", str(key_file)]
        options += ["--store", store]
        self._nodes = [self._node(directory, name, options) for name in ("a", "b")]
        ports = {node.name: node.port for node in self._nodes}
        self._balancer = Balancer(directory, self._port(), ports)
        self._farm = Farm(self._balancer.url, self._nodes, self._turns)
        tables = Tables(server, database)
        self._disturbances = Disturbances(
            self._farm, upstream, server, tables, self.verdict, self._say
        )
        self._checks = Checks(self._disturbances, self._turns)

    def _node(self, directory: Path, name: str, options: list[str]) -> Node:
        home = directory / name
        home.mkdir()
        # About noon, whenever this runs: the day of the quotas must not end meanwhile.
        zone = {"TZ": f"<noon>{(time.gmtime().tm_hour - 12):+d}"}
        environ = {**self._upstream.log_in(name, home), **zone, "PGPASSWORD": PASSWORD}
        return Node(name, home, self._port(), environ, PROBE, options)

    def _port(self) -> int:
        return next(port for port in self._ports if is_free(port))

    def stop(self) -> None:
        """End all that still runs."""
        self._farm.over.set()
        for node in self._nodes:
            if node.running:
                node.kill()
        self._balancer.stop()
        LOGS.mkdir(parents=True, exist_ok=True)
        for log in self._all_logs():
            (LOGS / _name(log)).write_bytes(log.read_bytes())
        (LOGS / "postgresql-log").write_bytes(self._disturbances.server.log.read_bytes())

    def all(self) -> None:
        """Do it all, as far as it goes."""
        self._began = time.monotonic()
        with ThreadPoolExecutor(len(self._nodes)) as starting:
            list(starting.map(Node.start, self._nodes))
        self._is_up("a", "b")
        self._clients()
        self._say("the clients are done")
        Plan(self._disturbances, PROBE).all()
        self._say("the plan is asked")
        self.verdict.happens("all turns end", self._at_rest)
        self.verdict.happens("no row waits any more", self._disturbances.none_wait, 10)
        self._checks.all()
        for node in self._nodes:
            node.terminate()
        ends = [node.ended() for node in self._nodes]
        self.verdict.check("the nodes end well", ends == [0, 0], ends)
        for node in self._nodes:
            self.verdict.none(f"{node.name} leaves no process", node.left_over)
            self.verdict.none(f"{node.name} has logged no error", node.errors())
        self._logs()

    def _clients(self) -> None:
        """They ask, and meanwhile things happen."""
        began = time.monotonic()
        with ThreadPoolExecutor(WORKERS) as workers:
            working = [workers.submit(work, self._farm, number) for number in range(WORKERS)]
            self.verdict.goes_on("what happens meanwhile", self._disturb)
            self._farm.over.set()
        self._seconds = time.monotonic() - began
        for one in working:
            self.verdict.goes_on("a client", one.result)

    def _all_logs(self) -> list[Path]:
        return [*(node.log for node in self._nodes), self._balancer.log]

    def _logs(self) -> None:
        """Nobody may find there what was said, or a password."""
        for log in self._all_logs():
            secrets = [PASSWORD, *map(keys.secret, keys.RULES), "question-"]
            found = [secret for secret in secrets if secret in log.read_text()]
            self.verdict.none(f"no secret and nothing said is in {_name(log)}", found)

    def _disturb(self) -> None:
        a, b = self._nodes
        disturb = self._disturbances
        self._reach(0.15)
        disturb.kill(b)
        self._reach(0.30)
        b.start()
        self._is_up("b")
        self._reach(0.40)
        disturb.drain(a)
        self._reach(0.55)
        a.start()
        self._is_up("a")
        self._reach(0.65)
        disturb.lose_database(self._most // 20)
        self._reach(0.75)
        disturb.restart_database()
        self._reach(0.85)
        disturb.freeze_database()
        self._reach(1.0)

    def _is_up(self, *names: str) -> None:
        wait(lambda: self._balancer.up.issuperset(names), what=f"turns for {names}")
        self._say(f"{' and '.join(names)} get turns")

    def _reach(self, share: float) -> None:
        self._turns.reach(int(share * self._most))

    def _at_rest(self) -> bool:
        running = [node.health()[1]["turns"] for node in self._nodes]
        return not any(turns["running"] or turns["waiting"] for turns in running)

    def _say(self, text: str) -> None:
        seconds = time.monotonic() - self._began
        print(f"{seconds:6.1f} s {self._turns.done:6} turns  {text}", flush=True)

    # -- what it came to --

    def report(self) -> bool:
        """Print it all; whether all of it holds."""
        times = by_kind(self._turns)
        answered = sum(map(len, times.values()))
        print(f"\n{answered} turns answered in {self._seconds:.0f} s, "
              f"{answered / self._seconds:.1f} a second, by two nodes\n")  # fmt: skip
        print(f"{'milliseconds':30} turns  median     95 %     most")
        for kind, of in times.items():
            median, late = of[len(of) // 2], of[int(len(of) * 0.95)]
            print(f"{kind:30} {len(of):5} {median:7.0f}  {late:7.0f}  {of[-1]:7.0f}")
        if self._checks.causes:
            print("\nfailed, and why")
            for (why, cause), number in sorted(self._checks.causes.items()):
                print(f"{number:5}  {why}: {cause}")
        print(f"\nlogs: {LOGS}\n")
        for name, figure in self.verdict.figures.items():
            print(f"{name}: {figure}")
        print()
        for name, holds, seen in self.verdict.checked:
            print(f"{'ok    ' if holds else 'FAILED'}  {name}" + (f": {seen}" if not holds else ""))
        return not self.verdict.failed


def _name(log: Path) -> str:
    """That of a node's log begins with the node's."""
    return f"{log.parent.name}-log" if log.name == "log" else log.name
