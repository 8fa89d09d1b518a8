"""One plan on several nodes: what one learns of it, all know."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

from twisted.internet.defer import Deferred, DeferredLock, ensureDeferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from claudeproxy.engine.leases import Leases
from claudeproxy.engine.quota import Quota
from claudeproxy.store.database import StoreLost

PLAN = "plan"
"""The kind of news that this is about."""

SAVE = 1.0
"""Seconds after which a change is kept, with those that follow it."""

RETRY = 5.0
"""Seconds after which it is tried again to keep what could not be kept."""

OTHERS = 24 * 3600.0
"""Seconds for which another account is told of that was heard of."""


class News(Protocol):
    """What the nodes tell each other. ``heard``: called with the kind and the content of what
    another node has told."""

    heard: list[Callable[[str, dict[str, Any]], object]]

    def tell(self, kind: str, what: dict[str, Any]) -> None:
        """Tell all other nodes, if they can be told; ``what``: a JSON object of less than 8,000
        bytes."""


class PlanStates(Protocol):
    """Where the states of plans are kept, by account."""

    def load(self, account: str) -> Deferred[dict[str, Any] | None]:
        """The state of the plan of ``account``; fails with :class:`StoreLost`."""

    def save(self, account: str, state: Mapping[str, Any]) -> Deferred[None]:
        """Merge ``state`` (:func:`claudeproxy.engine.merging.merge`) with what is kept, in one
        transaction; fails with :class:`StoreLost`."""


class SharedPlan:
    """Joins a quota to those of the other nodes that use the same account. Accounts are kept apart:
    what nodes of others tell is not taken in.

    It is also the :class:`Leases` of its quota: whoever takes a lease knows, by then, what the one
    has learnt who held it before. For that it is kept before a lease is given back, and looked up
    after one was taken, however late the news of it come.
    """

    log = Logger()

    def __init__(
        self, reactor: IReactorTime, quota: Quota, news: News, states: PlanStates, leases: Leases
    ) -> None:
        self._reactor = reactor
        self._quota = quota
        self._news = news
        self._states = states
        self._leases = leases
        self._changed = self._look_again = False
        self._saving = DeferredLock()
        self._later: IDelayedCall | None = None
        self._held: dict[str, str] = {}
        self._unreleased: set[str] = set()
        self._others: dict[str, float] = {}
        self._stopped = False

    def start(self) -> Deferred[None]:
        """Join the others. Fires once it is known here what they know, or cannot be."""
        self._quota.on_learnt = self._learnt
        self._quota.on_account = self._account_changed
        self._quota.share(self, self._reactor)
        self._news.heard.append(self._heard)
        return self.back()

    def stop(self) -> Deferred[None]:
        """Leave the others, and keep what is not kept yet."""
        self._news.heard.remove(self._heard)
        self._stopped = True
        return ensureDeferred(self._keep_on())

    def back(self) -> Deferred[None]:
        """Whatever was told is to be looked up, since it may not have been heard: the store was
        lost, and is back. The others hear what was learnt here meanwhile."""
        return ensureDeferred(self._back())

    @property
    def other_accounts(self) -> list[str]:
        """The accounts (:attr:`.login.LoginState.account`) of other nodes that were heard of and
        are not the one of this node, the latest last."""
        now = self._reactor.seconds()
        return [account for account, heard in self._others.items() if now < heard + OTHERS]

    # -- Leases --

    def take(self, names: Collection[str]) -> Deferred[set[str]]:
        return ensureDeferred(self._take(names))

    def release(self, names: Collection[str]) -> Deferred[None]:
        self._unreleased |= {self._held.pop(name) for name in names if name in self._held}
        return ensureDeferred(self._keep_on())

    async def _take(self, names: Collection[str]) -> set[str]:
        if self._unreleased or self._saving.locked:
            await self._keep()  # they may be among them
        # Another account has windows of its own.
        account = self._quota.login.account
        named = {f"{PLAN} {account} {name}": name for name in names}
        missing = await self._leases.take(named)
        if not missing:
            self._held.update({name: lease for lease, name in named.items()})
            try:
                await self._look_up()
            except BaseException:
                self.release(names)
                raise
        return {named[lease] for lease in missing}

    # -- what is told and heard --

    def _learnt(self, event: dict[str, Any]) -> None:
        account = self._quota.login.account
        if account is not None:
            self._news.tell(PLAN, {"account": account, "event": event})
        if event.keys() == {"decided"}:
            return
        self._changed = True
        if event.keys() & {"closed", "charged"}:
            # A node that is just starting may have missed the news, and have looked before it is
            # kept: it is to look again.
            self._look_again = True
            self._keep_later(0.0)
        else:
            self._keep_later(SAVE)

    def _account_changed(self) -> None:
        self._others.pop(str(self._quota.login.account), None)
        self.back()

    def _heard(self, kind: str, what: dict[str, Any]) -> None:
        own, account = self._quota.login.account, what.get("account")
        if kind != PLAN or own is None:
            return
        if account != own:
            self._heard_of_other(str(account))
        elif "event" in what:
            self._apply(what["event"])
        else:
            self._look_up().addErrback(_is_lost)

    def _heard_of_other(self, account: str) -> None:
        if account not in self.other_accounts:
            self.log.warn(
                "another node is logged in to another account ({account}): their plans are not "
                "shared. Log all nodes in to one account, or give each account a store of its own",
                account=account,
            )
        self._others.pop(account, None)
        self._others[account] = self._reactor.seconds()

    def _apply(self, event: Any) -> None:
        try:
            self._quota.apply(event)
        except (ValueError, TypeError, KeyError, AttributeError):
            self.log.warn("a node of another version told of the plan what is not known here")

    # -- what is kept --

    def _look_up(self) -> Deferred[None]:
        account = self._quota.login.account

        def loaded(state: dict[str, Any] | None) -> None:
            if state is not None and account == self._quota.login.account:
                self._apply(state)

        if account is None:
            return succeed(None)
        return self._states.load(account).addCallback(loaded)

    async def _back(self) -> None:
        account = self._quota.login.account
        if account is None:
            return
        self._changed = True
        try:
            await self._look_up()
            await self._keep()
        except StoreLost:
            self._keep_later(RETRY)
        else:
            self._news.tell(PLAN, {"account": account})

    def _keep_later(self, after: float) -> None:
        if self._stopped:
            return
        if self._later is None or not self._later.active():
            self._later = self._reactor.callLater(after, lambda: ensureDeferred(self._keep_on()))
        elif self._later.getTime() > self._reactor.seconds() + after:
            self._later.reset(after)

    async def _keep_on(self) -> None:
        """Keep what has changed and give back leases; what cannot be done now is tried again."""
        if self._later is not None and self._later.active():
            self._later.cancel()
        try:
            await self._keep()
        except StoreLost:
            self._keep_later(RETRY)

    def _keep(self) -> Deferred[None]:
        # One after the other: what one begins to save is saved before the next gives leases back.
        return self._saving.run(lambda: ensureDeferred(self._keep_now()))

    async def _keep_now(self) -> None:
        account = self._quota.login.account
        if self._changed and account is not None:
            self._changed = False
            try:
                await self._states.save(account, self._quota.kept())
            except BaseException:
                self._changed = True
                raise
            if self._look_again:
                self._look_again = False
                self._news.tell(PLAN, {"account": account})
        names, self._unreleased = self._unreleased, set()
        if names:
            try:
                await self._leases.release(names)
            except BaseException:
                self._unreleased |= names
                raise


def _is_lost(reason: Failure) -> None:
    """What was not heard is looked up once the store is back."""
    reason.trap(StoreLost)
