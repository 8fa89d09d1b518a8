"""What has to hold once all clients are done."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from attrs import define, field

from .asking import CUT, LOST, STORE_LOST
from .disturbances import Disturbances
from .keys import LIMITED, RULES
from .tables import Tables
from .turns import Turn, Turns
from .upstream import Upstream
from .verdict import Verdict

GONE = (LOST, CUT, "502 ", "503 ", "504 ", "response server_error", "event ")
"""How turns may fail whose node is killed."""

COUNTED = "input_tokens + cache_write_tokens + output_tokens"


@define
class Checks:
    disturbances: Disturbances
    turns: Turns
    causes: Counter[tuple[str, str]] = field(factory=Counter)
    """Why turns have failed, and in which words."""

    @property
    def _verdict(self) -> Verdict:
        return self.disturbances.verdict

    @property
    def _tables(self) -> Tables:
        return self.disturbances.tables

    @property
    def _upstream(self) -> Upstream:
        return self.disturbances.upstream

    def all(self) -> None:
        for check in (self._answers, self._failures, self._affinity, self._ledger, self._quotas):
            self._verdict.goes_on(check.__name__, check)

    def _answers(self) -> None:
        check = self._verdict
        check.none("every answer carries its own question, and what is stored is found",
                   self.turns.wrong)  # fmt: skip
        check.none("no request upstream has anything of another conversation",
                   self._upstream.foreign)  # fmt: skip
        twice = {asked: nodes for asked, nodes in self._upstream.reached.items() if len(nodes) > 1}
        check.none("no question was paid for twice", twice)
        unstored = [
            turn
            for turn in self.turns
            if "store" in turn.ignored or turn.question in self.turns.unkept
        ]
        check.none("nothing stays unstored while there is a store",
                   _listed(turn for turn in unstored if not self._without_store(turn)))  # fmt: skip
        unpaid = [
            t.question for t in self.turns if t.answered and not self._upstream.reached[t.question]
        ]
        check.none("every answer comes from upstream", unpaid)

    def _affinity(self) -> None:
        """How many turns went where the one before them had been."""
        before: dict[str, list[str]] = {}
        stayed: Counter[bool] = Counter()
        follow_ups: Counter[bool] = Counter()
        for turn in self.turns:
            at = self._upstream.reached[turn.question]
            if turn.conversation in before and at and turn.where == "balancer":
                follow_ups[turn.named] += 1
                stayed[turn.named] += at == before[turn.conversation]
            before[turn.conversation] = at
        for named, what in ((True, "a named conversation"), (False, "a key's conversations")):
            share = stayed[named] / max(1, follow_ups[named])
            told = f"{share:.0%} of {follow_ups[named]}"
            self._verdict.figures[f"turns of {what} at the node of the turn before"] = told

    # -- failures --

    def _failures(self) -> None:
        unexplained = []
        for turn in self.turns:
            if turn.answered or turn.kind == "plan":
                continue
            why = self._why(turn)
            self.causes[why or "?", str(turn.cause)] += 1
            if why is None:
                unexplained += [f"{told}: {turn.cause}" for told in _listed([turn])]
        name = "turns failed on a killed node only, or for want of the store or by a quota"
        self._verdict.none(name, unexplained)

    def _why(self, turn: Turn) -> str | None:
        cause = str(turn.cause)
        if cause.startswith("429") and turn.key == "carl":
            return "quota"
        if cause.endswith(STORE_LOST) and self._without_store(turn):
            return "database lost"
        if cause.startswith("404") and self._before_was_lost(turn):
            return "stored while the database was lost"
        if cause.startswith(GONE) and self._was_killed(turn):
            return "node killed"
        if cause.startswith("503") and self._asked_directly(turn):
            return "asked of a node that stops, past the balancer"
        return None

    def _without_store(self, turn: Turn) -> bool:
        return any(turn.overlaps(*outage) for outage in self.disturbances.outages)

    def _before_was_lost(self, turn: Turn) -> bool:
        """Whether what it goes on with could not be stored."""
        before = [one for one in self.turns if one.conversation == turn.conversation]
        at = before.index(turn)
        return at > 0 and self._without_store(before[at - 1])

    def _was_killed(self, turn: Turn) -> bool:
        """Whether it was under way on a node when that was killed."""
        reached = self._upstream.reached[turn.question]
        return any(
            turn.overlaps(*when) and (reached or [node]) == [node]
            for node, when in self.disturbances.killed.items()
        )

    def _asked_directly(self, turn: Turn) -> bool:
        stopped = self.disturbances.stopped.get(turn.where)
        return stopped is not None and turn.overlaps(*stopped)

    # -- the ledger --

    def _ledger(self) -> None:
        check = self._verdict
        answered = {turn.request_id: turn for turn in self.turns if turn.answered}
        check.check("every answer has a request id", "" not in answered)
        # How a turn was paid for is known a moment after its end.
        check.happens("every answered turn is in the ledger",
                      lambda: answered.keys() <= set(self._tables.turns()))  # fmt: skip
        told = self._tables.turns()
        missing = [turn for ident, turn in answered.items() if not told[ident]]
        check.none("and none is missing", _listed(missing))
        twice = {ident: n for ident, n in told.items() if n > 1}
        check.none("no turn is there twice", twice)
        self._node_lost(told)
        self._sums()

    def _node_lost(self, told: Counter[str]) -> None:
        """The turns of a killed node are told once it is back."""
        check = self._verdict
        rows = self._tables.rows("SELECT request_id FROM turns WHERE outcome = 'node lost'")
        lost = {row["request_id"] for row in rows}
        killed = [turn for turn in self.turns if turn.cause and self._why(turn) == "node killed"]
        known = [turn for turn in killed if turn.request_id]
        check.none("the turns of a killed node are told once it is back",
                   _listed(turn for turn in known if not told[turn.request_id]))  # fmt: skip
        # Of the others, nobody knows the ids: one row for each that had begun.
        begun = [turn for turn in killed if self._upstream.reached[turn.question]]
        check.check(
            "as lost with their node, all that had begun and no others",
            len(begun) <= len(lost) <= len(killed) + self._answered_at(lost),
            f"{len(killed)} failed, {len(begun)} of them had begun, {len(lost)} are told",
        )
        self._verdict.figures["turns that failed with the killed node"] = str(len(killed))
        self._verdict.figures["of them told as lost"] = str(len(lost))

    def _answered_at(self, lost: set[str]) -> int:
        """Of those told as lost, how many were answered: the node had not told yet how."""
        return sum(turn.request_id in lost for turn in self.turns if turn.answered)

    def _sums(self) -> None:
        columns = "input_tokens", "output_tokens", "cache_write_tokens", "cache_read_tokens"
        sums = ", ".join(f"sum({name}) AS {name}" for name in columns)
        turns, hours = self._tables.rows(
            f"SELECT count(*) AS turns, {sums} FROM turns UNION ALL "
            f"SELECT sum(turns) AS turns, {sums} FROM hours"
        )
        self._verdict.check(
            "the hours' sums are those of the turns", turns == hours, (turns, hours)
        )
        said = self._tables.rows("SELECT * FROM turns WHERE CAST(turns AS TEXT) LIKE '%question-%'")
        self._verdict.none("the ledger has nothing that was said", said)
        self._verdict.figures["turns in the ledger"] = str(turns["turns"])

    # -- quotas --

    def _quotas(self) -> None:
        check = self._verdict
        counts = {
            row["key"]: row
            for row in self._tables.rows(
                "SELECT key, requests, tokens FROM counts WHERE period = 'day'"
            )
        }
        spent = self._tables.rows(f"SELECT key, sum({COUNTED}) AS tokens FROM turns GROUP BY key")
        for row in spent:
            if "tokens=" in RULES.get(row["key"] or "", ""):
                counted = counts[row["key"]]["tokens"]
                check.check(f"the tokens counted for {row['key']} are those of the ledger",
                            counted == row["tokens"], (counted, row["tokens"]))  # fmt: skip
        carl = [turn for turn in self.turns if turn.key == "carl"]
        served = sum(turn.answered for turn in carl)
        lost = sum(turn.cause != "" and self._why(turn) == "node killed" for turn in carl)
        counted = counts["carl"]["requests"]
        asked = len(carl)
        check.check(
            f"a key with {LIMITED} requests a day has had {LIMITED}, with those that were lost",
            asked > LIMITED and counted == LIMITED and served <= LIMITED <= served + lost,
            f"{asked} asked, {counted} counted, {served} answered, {lost} lost",
        )


def _listed(turns: Iterable[Turn]) -> list[str]:
    return [f"{turn.question} ({turn.kind}, at {turn.where}) {turn.request_id}" for turn in turns]


def by_kind(turns: Turns) -> dict[str, list[float]]:
    """The milliseconds of what was answered, sorted."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for turn in turns:
        if turn.answered and turn.kind != "plan":
            found[turn.kind].append(turn.seconds * 1000)
    return {kind: sorted(times) for kind, times in sorted(found.items())}
