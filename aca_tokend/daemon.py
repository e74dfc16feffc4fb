"""The daemon: puts the parts together, starts them, watches over them and stops them. The file to read first.

    build      configuration ─► endpoints, Vault sessions, pools (parts.py), what is known of each token
    start      every token is put on schedule for now: its first attempt looks, and adopts or rotates
    watch      once a second: has the wall clock been stepped; /-/healthy asks for lost jobs
    reload     on SIGHUP or a changed file: read, validate whole, then swap; what did not change goes on undisturbed
    tell       logs, metrics, pages and, where there is one, the service manager
    stop       nothing new starts, rotations under way finish through publish
    contain    a bug ends what met it, and is told; the process ends where the schedule itself broke

What one attempt does stands in rotation/rotator.py. No other module sees all the parts.
"""

from __future__ import annotations

import math
import random
import time
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import structlog

from aca_tokend import health, log, sinks
from aca_tokend.bell import Bell
from aca_tokend.clock import SystemClock
from aca_tokend.config.watching import ConfigWatch
from aca_tokend.core.demand import Demand
from aca_tokend.core.errors import NO_THREAD, InternalError, contained, is_exhausted
from aca_tokend.core.health import Check, problems
from aca_tokend.core.login import LoggedIn, LoginFailed
from aca_tokend.core.outcome import Component, Granted, TokenEvent
from aca_tokend.core.shards import share
from aca_tokend.core.steps import BEGIN, Call, Duty
from aca_tokend.event_log import EventLog, of_endpoint, of_vault
from aca_tokend.expiry import Expiries
from aca_tokend.metrics import Metrics
from aca_tokend.notify import Notifier
from aca_tokend.parts import Parts
from aca_tokend.reload import Draining, Source
from aca_tokend.rotation.changes import compare
from aca_tokend.rotation.hook_runner import Hooker
from aca_tokend.rotation.rotator import Rotator
from aca_tokend.rotation.tokens import Tokens
from aca_tokend.scheduling.scheduler import RotationScheduler
from aca_tokend.sinks.mounts import FILE_POOL
from aca_tokend.survey import Subject
from aca_tokend.views import due_per_second, token_view
from aca_tokend.watched import Watched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future
    from pathlib import Path

    from aca_tokend.core.breaker import Wake
    from aca_tokend.core.config import AnyFiles, Config
    from aca_tokend.core.login import LoginEvent
    from aca_tokend.core.outcome import Event
    from aca_tokend.core.steps import Work
    from aca_tokend.metrics import TokenView
    from aca_tokend.reload import Loaded
    from aca_tokend.rotation.hook_runner import HookState

# Rotations under way get this long to finish after SIGTERM; Kubernetes kills after 30 seconds by default.
STOP_SECONDS = 12.0
# The wall clock was stepped, or the machine slept, if it moved this much against the clock that threads wait by.
STEP_SECONDS = 1.0
# A configuration that was rejected, or could not be taken up for want of resources, is read again so often: a disk or a
# limit that failed it may be well again, which no file shows.
READ_AGAIN_SECONDS = 60.0
# On the schedule, the keeping of our own token in a Vault; no token has a name with a colon in it.
KEEPER = "vault:"
# On the schedule, at the start and after a reload; no token has a name with a space in it.
CLEANUP = "the temp-file cleanup"
# After a bug in the renewer of our own token; whoever needs the token meanwhile logs in by itself.
KEEP_AGAIN_SECONDS = 60.0


class Daemon:
    """All the parts, put together from one configuration."""

    def __init__(self, config: Config, clock: SystemClock | None = None, rng: random.Random | None = None) -> None:
        """Builds the parts; opens no connection."""
        self.clock = clock or SystemClock()
        self.bell = Bell()
        self.logger: Any = structlog.get_logger()
        self.notify = Notifier()
        self.lines = log.Background()
        self._dropped = 0
        self.bug: InternalError | None = None
        self.demand = Demand(self.clock.monotonic())
        self.watched = Watched(self.clock)
        self.events = EventLog(self.clock.wall, self.clock.monotonic)
        self.parts = Parts(config, self.clock, self._on_login)
        self.shard = self.parts.shard()
        self.config = share(config, self.shard)
        self.source: Source | None = None
        self.draining = Draining()
        self.metrics = Metrics(self._views, self.clock.wall, config.acaengine, self.parts.methods())
        rng = rng or random.SystemRandom()
        self.hooker = Hooker(self.clock, rng, self._observe)
        self.scheduler = RotationScheduler(self.parts.pools(), self.clock, self._on_bug, self.metrics.observe_lag)
        self.tokens = Tokens(self.clock, rng, self.scheduler, self.parts.wire)
        self.tokens.rotator = Rotator(self.clock, self.parts.secrets, rng, self._observe, self._wake, self.tokens.late)
        self._written = config  # at the start, with the tokens of all shards
        self._behind: set[str] = set()
        self._expiries = Expiries()
        self._leaving: list[frozenset[str]] = []  # pools that reloads left without tokens
        self._uncleaned = list(_places(self.config).values())
        self._torn = False  # a reload failed half-way
        self._exhausted = False  # the last one failed for want of resources, and changed nothing
        for token in self.config.tokens:
            self.tokens.add(token, self.clock.monotonic())

    # ── the life of the process ───────────────────────────────────────────────────────────────────────────────────────

    def start(self, *, once: bool = False) -> None:
        """Begins the attempts that are on schedule; with `once` a single one of each token."""
        self.tokens.once = once
        self.scheduler.keep(self._cleanup_work(), self.clock.monotonic())
        self.scheduler.start()

    def watch(self) -> None:
        """Once a second until told to stop."""
        offset, read_at = self.clock.wall() - time.monotonic(), time.monotonic()
        loaded: Future[Loaded] | None = None
        while not self.bell.stop:
            self.bell.wait(1.0)
            source = self.source
            failed = source is not None and (bool(source.problems) or self._exhausted)
            again = failed and time.monotonic() >= read_at + READ_AGAIN_SECONDS
            if source is not None and loaded is None and (self.bell.reload or again):
                read_at = time.monotonic()
                self.bell.reload = False
                self.notify.reloading()
                loaded = source.begin(self.bell.ring)
            if loaded is not None and loaded.done():
                self.reload(loaded)
                loaded = None
                self.notify.ready()
            now = self.clock.wall()
            step = now - time.monotonic() - offset
            if abs(step) > STEP_SECONDS:
                offset += step
                self.contain("clock step", partial(self._clock_stepped, step))
            self.find_threads()
            self.contain("demand", self._weigh)
            self.contain("clean-up", partial(self.draining.settle, self.scheduler.under_way))
            self.contain("unavailable time", partial(self.metrics.tick, now))
            self.contain("log lines", self._count_dropped_lines)
            self.contain("expired tokens", partial(self._tell_expired, now))

    def find_threads(self) -> None:
        """Has the pools share the threads that there are, where the system had none for one, and logs that."""

        def find() -> None:
            if self.scheduler.find_threads():
                raise RuntimeError(NO_THREAD)

        self.contain("threads", find)

    def watch_files(self, path: Path) -> ConfigWatch:
        """From now on changes of these files reload the configuration; `watch` does it."""
        source = Source(path, self._written, self.logger, self._observe_reload)
        watch = ConfigWatch(path, lambda: source.include, self.bell.ring_to_reload)
        self.source = source
        watch.start()
        return watch

    def reload(self, loaded: Future[Loaded] | None = None) -> None:
        """Reads the configuration again, unless it was, and, if all of it is well, swaps it in.

        A bug is contained. Before the swap it changed nothing, and the next change of a file, or SIGHUP, tries again;
        where the system had nothing left for us, `watch` does.
        Half-way through the swap cannot be undone: every token stays on schedule, some of them as they were before,
        removed ones perhaps among them; what left may stay open; and reloads count as failed until a restart.
        """
        source, before = self.source, self.config
        read = (source.written, source.running) if source else None
        self._exhausted = False
        try:
            self._read_and_swap(loaded)
        except Exception as error:  # noqa: BLE001 -- contained here for reloads
            self._torn = self._torn or self.config is not before
            if self._torn:
                self.tokens.keep_all()
            elif source and read:
                source.written, source.running = read
                self._exhausted = is_exhausted(error)
            self._observe_reload(False)
            self.unexpected(Component.RELOAD, "configuration", error)

    def _read_and_swap(self, loaded: Future[Loaded] | None) -> None:
        asked, self.bell.asked = self.bell.asked, False
        if asked:
            for name, session in self.parts.vaults.items():
                session.retry()
                self.scheduler.hasten(_renewer(name), self.clock.monotonic())
        config = self.source.read(asked=asked, loaded=loaded) if self.source else None
        if config is not None and not self.bell.stop:
            self._swap(config)

    def _swap(self, config: Config) -> None:
        """Adds, changes and removes tokens. Attempts under way go on; the next one of a token begins after them."""
        config = share(config, self.shard)
        changes = compare(self.config, config)
        others = _others(self.config, config)
        places, former = _places(config), _places(self.config)
        moved = [places.get(path) or former[path] for path in places.keys() ^ former.keys()]
        renewers = [_renewer(name) for name in self.config.vault.keys() - config.vault.keys()]
        before = self.parts.pools().keys()
        self.config = config
        closing = self.parts.follow(config)
        pools = self.parts.pools()
        self.scheduler.set_pools(pools)
        self.metrics.follow(config.acaengine, self.parts.methods())
        log.set_level(config.log.level)
        gone = self.tokens.follow(changes)
        self.watched.follow(changes.endpoints, changes.vaults, changes.removed)
        for name in renewers:
            self.scheduler.drop(name)
        for name in [*others, *(change.config.name for change in changes.changed)]:
            self.events.forget(name)
        left = frozenset(before - pools.keys())
        self._leaving.append(left)
        ending: list[Callable[[], None]] = [
            *closing,
            *(partial(self.tokens.pass_turns, token) for token in gone),
            *(partial(self.events.forget, owner) for owner in others),
            partial(self._tidy, left, [hook.name for hook in self.parts.hooks.values() if not hook.tokens]),
            partial(self._clean_up_later, moved),
        ]
        self.draining.add(self.scheduler.under_way(), [partial(self.contain, "clean-up", end) for end in ending])
        self.logger.info(
            "config_reloaded",
            added=len(changes.added),
            changed=len(changes.changed),
            removed=len(gone),
            unchanged=changes.unchanged,
        )

    def _tidy(self, left: frozenset[str], hooks: list[str]) -> None:
        """Removes what attempts that began before a reload could still have used: pools, hooks, what was logged.

        A hook that still owes a run is left to the next reload.
        """
        self._leaving.remove(left)
        self.parts.forget_hooks([name for name in hooks if not self.scheduler.has(name)])
        self.scheduler.remove_pools(but={*self.parts.pools(), *chain(*self._leaving)})
        self.metrics.follow(self.config.acaengine, self.parts.methods())
        self.events.keep(self.tokens.by_name.keys() | self.parts.hooks.keys() | _servers(self.config))

    def stop(self, besides: Iterable[Callable[[], None]] = ()) -> tuple[str, ...]:
        """Lets rotations under way finish; returns the tokens whose rotation did not within the time.

        Then it closes all there is, and what is `besides`.
        """
        for hook in self.parts.hooks.values():
            hook.last = True
        left = self.scheduler.stop(0.0 if self.bug else STOP_SECONDS)
        self.parts.close(besides)
        # what was granted and has reached no place is lost, though its attempt may have ended
        lost = [token.name for token in self.tokens.by_name.values() if token.facts.undelivered]
        names = dict.fromkeys([*(name for name in left if not name.startswith(KEEPER)), *lost])
        return tuple(name if name in self.tokens.by_name else self._who(name) for name in names)

    # ── what is on the schedule ───────────────────────────────────────────────────────────────────────────────────────

    def _hook_work(self, hook: HookState) -> Work:
        async def attempt() -> float:
            next_at = await self.hooker.attempt(hook)
            return math.inf if self.tokens.once and hook.failures else next_at

        return Duty(hook.name, BEGIN, attempt, lambda: 0.0, finish=True)

    def _clean_up_later(self, places: Iterable[AnyFiles]) -> None:
        """After a reload: removes what is left of writes to places that came or went."""
        self._uncleaned += places
        if self._uncleaned:
            self.scheduler.keep(self._cleanup_work(), self.clock.monotonic())

    def _cleanup_work(self) -> Work:
        """Removes what killed runs left beside files, before these are written. What hangs delays nobody."""

        def run() -> None:
            sinks.clean_up([self._uncleaned.pop() for _ in range(len(self._uncleaned))])

        async def clean_up() -> float:
            await Call(FILE_POOL, partial(self.contain, "temp-file cleanup", run))
            return math.inf  # what could not be removed, the next start removes

        return Duty(CLEANUP, FILE_POOL, clean_up, lambda: -math.inf)

    def _keep_work(self, vault: str) -> Work:
        """Keeps our own token in a Vault alive. It goes before all that needs that token."""
        pool = f"vault.{vault}"

        async def keep() -> float:
            session = self.parts.vaults.get(vault)
            try:
                return await Call(pool, session.keep, -math.inf) if session else math.inf
            except Exception as error:  # noqa: BLE001 -- contained here for all Vaults
                self.unexpected(Component.VAULT, vault, error)
                return self.clock.monotonic() + KEEP_AGAIN_SECONDS

        return Duty(_renewer(vault), pool, keep, lambda: -math.inf)

    def _who(self, name: str) -> str:
        """A name on the schedule, as people are told it."""
        if name.startswith(KEEPER):
            return f"our own token in vault {name.removeprefix(KEEPER)}"
        if name == CLEANUP:
            return name
        hook = self.parts.hooks.get(name)
        return f"hook {hook.hook.label}" if hook else f"token {name}"

    # ── what the parts tell ───────────────────────────────────────────────────────────────────────────────────────────

    def unexpected(self, component: Component, owner: str, error: BaseException) -> None:
        """Tells of an unexpected exception. What met it ends; the process and all else go on."""
        self._observe(contained(component, owner, error)[1])

    def contain(self, what: str, run: Callable[[], None]) -> None:
        """Runs what is no rotation, so that a bug in it ends that alone."""
        try:
            run()
        except Exception as error:  # noqa: BLE001 -- contained here for all that is no rotation
            self.unexpected(Component.RELOAD, what, error)

    def _observe_reload(self, succeeded: bool) -> None:
        succeeded = succeeded and not self._torn
        self.metrics.observe_reload(succeeded)
        self.watched.observe_reload(succeeded)

    def _observe(self, event: Event) -> None:
        """Tells of an event, the log last: who has read of it there finds it everywhere else."""
        self.metrics.observe(event)
        if isinstance(event, Granted):
            self.demand.granted(event.endpoint, event.duration_seconds)
        if isinstance(event, TokenEvent) and (token := self.tokens.by_name.get(event.token)) is not None:
            self.watched.observe(token, event)
        self.events.observe(event)

    def _wake(self, wake: Wake) -> None:
        """Brings the attempt of a token forward that waited for another's, or puts a hook on schedule."""
        hook = self.parts.hooks.get(wake.token)
        if hook is None:
            self.tokens.wake(wake)
        else:
            self.scheduler.keep(self._hook_work(hook), wake.at)

    def _on_login(self, event: LoginEvent) -> None:
        self.metrics.observe_login(event)
        self.watched.observe_login(event)
        self.events.observe_login(event)
        if isinstance(event, LoggedIn | LoginFailed) and event.vault in self.config.vault and not self.tokens.once:
            work = self._keep_work(event.vault)
            if event.keep_at == math.inf:  # a token that never expires
                self.scheduler.drop(work.name)
            else:
                self.scheduler.keep(work, event.keep_at)
        if isinstance(event, LoggedIn) and event.recovered:
            self.tokens.vault_back(event.vault)

    def _on_bug(self, bug: BaseException) -> None:
        """What broke the schedule itself ends the process: it would go on without a token."""
        self.bug = self.bug or InternalError.of(bug)
        self.bell.ring_to_stop()

    # ── what is watched ───────────────────────────────────────────────────────────────────────────────────────────────

    def _clock_stepped(self, seconds: float) -> None:
        self.logger.warning("clock_stepped", seconds=round(seconds, 3))
        self.scheduler.redraw()
        self.tokens.clock_stepped()

    def _weigh(self) -> None:
        """Tells of endpoints that cannot give what their tokens need, and of those that can again."""
        if not self.demand.complete(self.clock.monotonic()):
            return
        due = due_per_second(list(self.tokens.by_name.values()))
        at_once = {name: endpoint.max_concurrency for name, endpoint in self.config.acaengine.items()}
        for name, load in self.demand.take(self.clock.monotonic(), due, at_once).items():
            self.metrics.observe_demand(name, load.ratio)
            self.watched.loads[name] = load
            if load.too_slow is not (name in self._behind):
                self.events.observe_demand(name, load)
                self._behind ^= {name}

    def _tell_expired(self, now: float) -> None:
        for expired in self._expiries.news(list(self.tokens.by_name.values()), self.clock.monotonic(), now):
            self._observe(expired)

    def _count_dropped_lines(self) -> None:
        before, self._dropped = self._dropped, self.lines.dropped
        self.metrics.observe_dropped_lines(self._dropped - before)

    def _views(self) -> Iterator[TokenView]:
        offset = self.clock.wall() - self.clock.monotonic()
        for token in list(self.tokens.by_name.values()):
            yield token_view(token, offset)

    def checks(self) -> list[Check]:
        """What a restart would fix, and whether it is needed."""
        return health.checks(self.scheduler, self._who, bug=self.bug is not None)

    def unhealthy(self) -> list[str]:
        """What is wrong that a restart would fix."""
        return problems(self.checks())

    def readiness(self) -> list[Check]:
        """Whether each token was looked at, and rotated or honestly failed."""
        return health.readiness(self.tokens.by_name.values())

    def subject(self) -> Subject:
        """What the status is told of, now."""
        everywhere = self.source.running if self.source else self._written
        return Subject(
            config=self.config,
            parts=self.parts,
            tokens=self.tokens.by_name,
            watched=self.watched,
            wall=self.clock.wall(),
            monotonic=self.clock.monotonic(),
            shard=self.shard,
            everywhere=(token.name for token in everywhere.tokens),
            unhealthy=tuple(self.unhealthy()),
            rejected=self.source.problems if self.source else (),
        )


def _places(config: Config) -> dict[str, AnyFiles]:
    """The places in files, by path."""
    return {it.path: it for token in config.tokens for it in token.publish if it.to != "vault"}


def _servers(config: Config) -> set[str]:
    """What fails besides tokens and hooks, as the log calls it."""
    return {*map(of_endpoint, config.acaengine), *map(of_vault, config.vault)}


def _others(before: Config, config: Config) -> set[str]:
    """The endpoints and Vaults that became others."""
    endpoints = {of_endpoint(name) for name, it in before.acaengine.items() if config.acaengine.get(name) != it}
    return endpoints | {of_vault(name) for name, it in before.vault.items() if config.vault.get(name) != it}


def _renewer(vault: str) -> str:
    return KEEPER + vault
