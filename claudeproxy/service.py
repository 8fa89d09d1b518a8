"""The wiring: settings in, a service out. Everything is made here and passed on from here."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress

from attrs import evolve
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.web.resource import IResource

from claudeproxy import __version__
from claudeproxy._installed import installer
from claudeproxy._reactor import IDaemonReactor
from claudeproxy.cli import launch
from claudeproxy.cli.installation import Installation
from claudeproxy.cli.login import advice
from claudeproxy.cli.watch import Watch
from claudeproxy.demo.app import DemoUpstream
from claudeproxy.demo.service import DemoService
from claudeproxy.endpoints import ListeningService, check
from claudeproxy.engine import memory
from claudeproxy.engine.catalogue import Catalogue
from claudeproxy.engine.deadlines import Deadlines
from claudeproxy.engine.engine import Engine, Limits
from claudeproxy.engine.quota import Policy
from claudeproxy.keeping import Files, Shared
from claudeproxy.options import ConfigError, Settings, written
from claudeproxy.page.routes import AREAS, FORMS, Page
from claudeproxy.page.settings import Setting
from claudeproxy.page.snapshot import Sources
from claudeproxy.selftest.trial import Trial
from claudeproxy.state import (
    QuotaFile,
    Scratch,
    StateError,
    directory,
    recordings,
    working_directory,
)
from claudeproxy.store.database import StoreLost
from claudeproxy.telemetry.labels import ModelLabels
from claudeproxy.telemetry.metrics import Metrics
from claudeproxy.telemetry.present import Build, KeyQuota
from claudeproxy.web.gate import Gate
from claudeproxy.web.keys import KeyFileError
from claudeproxy.web.keys_file import KeysFile
from claudeproxy.web.pages import Status
from claudeproxy.web.recorder import Recorder
from claudeproxy.web.routes import API
from claudeproxy.web.site import CONNECTIONS, LimitedSite

SUBSCRIPTION = "subscription"
"""The name of the upstream that the CLI talks to by itself."""

LAST_BYTES = 2.0
"""Seconds for the last replies to leave, once all turns are over."""


class Claudemax(MultiService):
    """The daemon without its ports: start it, and mount :attr:`resource` wherever you like.

    ``site`` is the same resource with the limits of the daemon's own site around it.
    """

    log = Logger()

    def __init__(
        self, reactor: IDaemonReactor, settings: Settings, environ: Mapping[str, str]
    ) -> None:
        """:raises ConfigError: when there is no CLI to use, or a directory cannot be used."""
        super().__init__()
        self.reactor = reactor
        self._settings = settings
        self._environ = environ
        self._scratch: Scratch | None = None
        self.cli = _installation(reactor, settings, environ)
        self.engine = Engine(
            reactor, self.cli.spawn, Catalogue(dict(settings.model_alias)), _limits(settings)
        )
        self._trial = Trial(reactor, self.cli)
        self._watch = Watch(reactor, self.cli, self.engine, self._trial.run)
        self._quota_file = QuotaFile(reactor, directory(environ))
        self._demo = None
        if settings.demo:
            self._demo = DemoService(reactor, DemoUpstream(reactor))
            self._demo.setServiceParent(self)
        gate = Gate.make(
            settings.allow_host, settings.allow_origin, settings.max_body, _keys(settings)
        )
        self.gate = evolve(gate, pages=AREAS, forms=FORMS)
        self.node = f"{socket.gethostname()}-{secrets.token_hex(3)}"
        """Which daemon this is, of those that are and were."""
        self._kept: Files | Shared
        if settings.store is None:
            self._kept = Files(settings, environ)
        else:
            self._kept = Shared(reactor, settings, environ, self.node)
        self._ledger = self._kept.ledger
        self._recorder = _recorder(reactor, settings)
        models = ModelLabels(self.engine.catalogue)
        self._metrics = Metrics(reactor, self.engine, models, self._build, self._key_quotas)
        api = API(
            reactor,
            self.engine,
            self.gate,
            self._status,
            self._metrics.scrape,
            store=self._kept.store,
            shared=self._kept if isinstance(self._kept, Shared) else None,
            ledger=self._ledger,
            counts=self._kept.counts,
            turns=self._kept.over,
            recorder=self._recorder,
        )
        self.journal, self.quotas = api.journal, api.quotas
        self.journal.beginnings.append(self._kept.began)
        self._settled = api.settled
        self.journal.observers.append(self._metrics.observe)
        if settings.otlp is not None:
            self._trace(settings.otlp, models)
        sources = Sources(
            self.engine, self.journal, self._status, self._ledger, api.told_keys, api.refused
        )
        self._page = Page(reactor, sources, self.gate, _shown(settings))
        self.resource: IResource = api.resource(self._page.resources())
        connections = CONNECTIONS + 2 * (settings.concurrency + settings.queue)
        self.site = LimitedSite(reactor, self.resource, self.gate, api.refused, connections)
        self._notice: IDelayedCall | None = None
        self._leaving: list[Deferred[None]] = []
        self._hurried = False

    def _trace(self, endpoint: str, models: ModelLabels) -> None:
        try:
            # Only where it is asked for: it is an extra, and takes memory.
            from claudeproxy.telemetry.otlp import OTLP
        except ImportError as error:
            why = f"--otlp needs what is not installed ({error}): {installer().add_otel}"
            raise ConfigError(why) from None
        otlp = OTLP(self.reactor, endpoint, models, __version__)
        otlp.setServiceParent(self)
        self.journal.tracers.append(otlp.observe)

    def startService(self) -> None:
        """Start the upstream that was asked for, then the warm processes."""
        super().startService()
        self._kept.start(self.reactor)
        self._scratch = Scratch()
        upstream = self._upstream(self._scratch.path)
        self.cli.environment = launch.environment(
            self._environ,
            upstream,
            plain_names=self._settings.plain_tool_names,
            scratch=self._scratch.path,
        )
        self.cli.holds_login = self.engine.quota.applies = upstream is None
        self.cli.open()
        self.engine.quota.login.advice = advice(self.cli.executable, self.cli.environment)
        if upstream is None:
            self._quota_file.open(self.engine.quota)
            self._kept.share(self.engine.quota)
        if self.gate.keys is not None:
            ensureDeferred(self._recount()).addErrback(
                lambda why: self.log.failure("what keys have used today is not known", why)
            )
        self.log.info(
            "claude {version} at {executable}, upstream: {upstream}",
            version=self.cli.version,
            executable=self.cli.executable,
            upstream=self._upstream_name,
        )
        if self._recorder is not None:
            self.log.warn(
                "RECORDING: every prompt and every answer is written to {folder} (--record)",
                folder=str(self._recorder.folder),
            )
        self.engine.start()
        self._watch.start()

    def leave(self) -> Deferred[None]:
        """Say at ``/health`` that no more turns are to come. Fires after ``--drain-notice``, when
        whoever sends turns here has had the time to notice: those that come meanwhile are
        served."""
        left: Deferred[None] = Deferred()
        self._leaving.append(left)
        if self._notice is None:
            self.site.wind_down()
            notice = self._settings.drain_notice
            if notice:
                self.log.info("/health says 503 for {notice:g} seconds", notice=notice)
            else:
                self.engine.close()
            self._notice = self.reactor.callLater(notice, self._left)
        elif not self._notice.active():
            self._left()
        return left

    def _left(self) -> None:
        self.engine.close()
        leaving, self._leaving = self._leaving, []
        for left in leaving:
            left.callback(None)

    def hurry(self) -> None:
        """End a stop at once, whatever it waits for: running turns are cut off."""
        self._hurried = True
        if self.cli.holds_login and self.cli.renews():
            self.log.info(
                "the Claude CLI is renewing your login: this ends when that is done, within "
                "{grace:g} seconds",
                grace=self.cli.grace,
            )
        if self._notice is not None and self._notice.active():
            self._notice.reset(0)
        self.engine.hurry()

    async def _recount(self) -> None:
        if self._ledger is not None:
            with suppress(StoreLost):
                await self._ledger.restore(self.quotas.plan())
        await self.quotas.refresh()

    def stopService(self) -> Deferred[None]:
        """Let running turns end within ``--drain``, then end every process."""
        return ensureDeferred(self._stop())

    async def _stop(self) -> None:
        left = self.leave()
        self._watch.stop()
        await self._trial.stop()
        await left
        settings = self._settings
        drain = 0.0 if self._hurried else max(0.0, settings.drain - settings.drain_notice)
        await self.engine.stop(drain)
        await self._settled()
        self._page.close()
        drained = self.site.drain()
        await self.cli.close()
        self._quota_file.close()
        self._metrics.stop()
        late = self.reactor.callLater(LAST_BYTES, self.site.abort)
        await drained
        if late.active():
            late.cancel()
        stopped = super().stopService()
        if stopped is not None:
            await stopped
        await self._kept.stop()
        if self._scratch is not None:
            self._scratch.remove()

    @property
    def _upstream_name(self) -> str:
        if self._settings.demo:
            return "demo"
        return self._settings.upstream or SUBSCRIPTION

    def _status(self) -> Status:
        return Status(
            self.cli.version,
            self._upstream_name,
            self._trial.lost,
            recording=self._recorder is not None,
            draining=self._notice is not None,
            node=self.node,
            store=self._kept.state(),
        )

    def _build(self) -> Build:
        lost = len(self._trial.lost)
        up = self._kept.state().lost_since is None
        return Build(__version__, self.cli.version, lost, up)

    def _key_quotas(self) -> Iterator[KeyQuota]:
        keys = self.gate.keys
        for key, rules in ({} if keys is None else keys.rules).items():
            for quota in self.quotas.of(key, rules):
                used = quota.used / quota.limit if quota.limit else 1.0
                yield KeyQuota(key, quota.name, used)

    def _upstream(self, scratch: str) -> launch.Upstream | None:
        """What stands in place of the subscription; ``None`` if nothing does."""
        url = self._settings.upstream if self._demo is None else self._demo.url
        if url is None:
            return None
        return launch.Upstream.make(url, self._settings.upstream_key, scratch)


def make_service(
    reactor: IDaemonReactor, settings: Settings, environ: Mapping[str, str] | None = None
) -> MultiService:
    """The daemon: a :class:`Claudemax`, and a listening service per ``--port``.

    :raises ConfigError: when it cannot be served as the settings ask.
    """
    check(settings.port, keyed=settings.api_key_file is not None)
    daemon = MultiService()
    api = Claudemax(reactor, settings, dict(os.environ if environ is None else environ))
    api.setServiceParent(daemon)
    for endpoint in settings.port:
        ListeningService(endpoint, api.site, reactor, api.leave).setServiceParent(daemon)
    return daemon


def find(daemon: MultiService) -> Claudemax:
    """The API's own service among those of the daemon."""
    for service in daemon.services:
        if isinstance(service, Claudemax):
            return service
        if isinstance(service, MultiService):
            return find(service)
    raise LookupError("this is no daemon")


def _installation(
    reactor: IDaemonReactor, settings: Settings, environ: Mapping[str, str]
) -> Installation:
    try:
        executable = launch.find(settings.claude, environ.get("PATH"))
        directory = str(working_directory(environ))
    except (launch.CLIError, StateError) as error:
        raise ConfigError(str(error)) from None
    try:
        version = launch.check_version(executable, launch.environment(environ))
    except launch.CLIError as error:
        raise ConfigError(f"{error}{launch.instead_of(executable)}") from None
    return Installation(reactor, executable, version, directory)


def _keys(settings: Settings) -> KeysFile | None:
    if settings.api_key_file is None:
        return None
    try:
        return KeysFile(settings.api_key_file)
    except KeyFileError as error:
        raise ConfigError(f"--api-key-file {settings.api_key_file}: {error}") from None


def _recorder(reactor: IDaemonReactor, settings: Settings) -> Recorder | None:
    if settings.record is None:
        return None
    try:
        return Recorder(reactor, recordings(settings.record))
    except StateError as error:
        raise ConfigError(f"--record: {error}") from None


def _shown(settings: Settings) -> list[Setting]:
    return [
        Setting(name, value, option.default, option.help, is_set)
        for name, option, value, is_set in written(settings)
    ]


def _limits(settings: Settings) -> Limits:
    return Limits(
        processes=processes(settings),
        starts=max(1, os.cpu_count() or 1),
        concurrency=settings.concurrency,
        queue=settings.queue,
        idle=settings.keep_seconds,
        park=settings.park,
        deadlines=Deadlines(
            settings.first_token_timeout, settings.idle_timeout, settings.turn_timeout
        ),
        policy=Policy(settings.extra_usage, dict(settings.reserve)),
        plain_names=settings.plain_tool_names,
        repair=not settings.no_repair,
    )


def processes(settings: Settings) -> int:
    """How many Claude CLIs may run. The former options spoke of idle ones only, so that those at
    work are no fewer by them."""
    if settings.processes is not None:
        return settings.processes
    if settings.keep is None and settings.warm is None:
        return memory.processes()
    return max(settings.concurrency, (settings.keep or 0) + (settings.warm or 0))
