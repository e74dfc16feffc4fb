"""The daemon: puts the parts together, starts them, watches over them and stops them. The file to read first.

    build      configuration ─► endpoints, Vault sessions, pools (parts.py), one state per token
    start      every token is put on schedule for now: its first attempt looks, and adopts or rotates
    watch      once a second: has the wall clock been stepped; /-/healthy asks for lost jobs and hanging calls
    reload     on SIGHUP or a changed file: read, validate whole, then swap; what did not change goes on undisturbed
    tell       logs, metrics, pages and, where there is one, the service manager
    stop       nothing new starts, rotations under way finish through publish
    contain    a bug ends what met it, and is told; the process ends where the schedule itself broke

What one attempt does stands in rotator.py. No other module sees all the parts.
"""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import structlog

from aca_tokend import health, log, sinks
from aca_tokend.bell import Bell
from aca_tokend.clock import SystemClock
from aca_tokend.core.demand import Demand
from aca_tokend.core.errors import InternalError, contained
from aca_tokend.core.health import Check, problems
from aca_tokend.core.login import LoggedIn, LoginFailed
from aca_tokend.core.outcome import Component, Granted, TokenEvent
from aca_tokend.core.shards import share
from aca_tokend.core.steps import Call, Duty
from aca_tokend.event_log import EventLog, of_endpoint, of_vault
from aca_tokend.expiry import Expiries
from aca_tokend.hooking import Hooker
from aca_tokend.metrics import Metrics
from aca_tokend.notify import Notifier
from aca_tokend.parts import Parts
from aca_tokend.reload import Change, Retired, Source, compare, take_over, vaults_of
from aca_tokend.rotator import Rotator
from aca_tokend.scheduler import RotationScheduler
from aca_tokend.sinks.mounts import FILE_POOL
from aca_tokend.survey import Subject
from aca_tokend.views import due_per_second, token_view
from aca_tokend.watched import Watched
from aca_tokend.watching import ConfigWatch

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator
    from pathlib import Path

    from aca_tokend.core.breaker import Wake
    from aca_tokend.core.config import Config, TokenConfig
    from aca_tokend.core.login import LoginEvent
    from aca_tokend.core.outcome import Event
    from aca_tokend.core.steps import Work
    from aca_tokend.metrics import TokenView
    from aca_tokend.reload import Origins
    from aca_tokend.state import HookState, TokenState

# Rotations under way get this long to finish after SIGTERM; Kubernetes kills after 30 seconds by default.
STOP_SECONDS = 12.0
# The wall clock was stepped, or the machine slept, if it moved this much against the clock that threads wait by.
STEP_SECONDS = 1.0
# On the schedule, the keeping of our own token in a Vault; no token has a name with a colon in it.
KEEPER = "vault:"
# On the schedule, once; no token has a name with a space in it.
SWEEP = "the sweep of files"
# After a bug in the renewer of our own token; whoever needs the token meanwhile logs in by itself.
KEEP_AGAIN_SECONDS = 60.0
# When a Vault can be logged in to again, its tokens are tried within so many seconds rather than all at once.
BACK_SPREAD_SECONDS = 1.0
# Then every token reckons anew, within so many seconds rather than all at once.
STEP_SPREAD_SECONDS = 2.0


@dataclass(slots=True)
class Daemon:
    """All the parts, put together from one configuration."""

    config: Config
    clock: SystemClock = field(default_factory=SystemClock)
    bug: InternalError | None = None
    shard: int = field(init=False)
    parts: Parts = field(init=False)
    states: dict[str, TokenState] = field(init=False)
    rotator: Rotator = field(init=False)
    hooker: Hooker = field(init=False)
    scheduler: RotationScheduler = field(init=False)
    metrics: Metrics = field(init=False)
    events: EventLog = field(init=False)
    logger: Any = field(default_factory=structlog.get_logger)
    bell: Bell = field(default_factory=Bell)
    rng: random.Random = field(default_factory=random.SystemRandom)
    notify: Notifier = field(default_factory=Notifier)
    source: Source | None = None
    retired: Retired = field(default_factory=Retired)
    demand: Demand = field(init=False)
    watched: Watched = field(init=False)
    _written: Config = field(init=False)  # at the start, with the tokens of all shards
    _behind: set[str] = field(default_factory=set)
    _expiries: Expiries = field(default_factory=Expiries)
    _changes: dict[str, list[Change]] = field(default_factory=dict)
    _once: bool = False
    _torn: bool = False  # a reload failed half-way

    def __post_init__(self) -> None:
        """Builds the parts; opens no connection."""
        self.demand = Demand(self.clock.monotonic())
        self.watched = Watched(self.clock)
        self.events = EventLog(self.clock.wall, self.clock.monotonic)
        self.parts = Parts(self.config, self.clock, self._on_login)
        self.shard = self.parts.shard()
        self._written = self.config
        self.config = share(self.config, self.shard)
        self.states = {token.name: self._begin(self.parts.state(token)) for token in self.config.tokens}
        self.metrics = Metrics(self._views, self.clock.wall, self.config.acaengine, self.parts.methods())
        self.rotator = Rotator(self.clock, self.parts.secrets, self.rng, self._observe, self._wake)
        self.hooker = Hooker(self.clock, self.rng, self._observe)
        self.scheduler = RotationScheduler(self.parts.pools(), self.clock, self._on_bug, self.metrics.observe_lag)

    def _begin(self, state: TokenState) -> TokenState:
        """Draws a token's jitter; its first attempt is due now."""
        state.draw, state.rotate_at = self.rng.random(), self.clock.monotonic()
        return state

    # ── the life of the process ───────────────────────────────────────────────────────────────────────────────────────

    def start(self, *, once: bool = False) -> None:
        """Puts every token on schedule for now; with `once` for a single attempt."""
        self._once = once
        self.scheduler.keep(self._sweep_work(), self.clock.monotonic())
        for state in self.states.values():
            self.scheduler.keep(self._work(state), state.rotate_at)
        self.scheduler.start()

    def watch(self) -> None:
        """Once a second until told to stop."""
        offset = self.clock.wall() - time.monotonic()
        while not self.bell.stop:
            self.bell.wait(1.0)
            if self.bell.reload:
                self.bell.reload = False
                self.notify.reloading()
                self.reload()
                self.notify.ready()
            now = self.clock.wall()
            step = now - time.monotonic() - offset
            if abs(step) > STEP_SECONDS:
                offset += step
                self.contain("clock step", partial(self._clock_stepped, step))
            self.contain("demand", self._weigh)
            self.contain("clean-up", partial(self.retired.settle, self.scheduler.under_way))
            self.contain("unavailable time", partial(self.metrics.tick, now))
            self.contain("expired tokens", partial(self._tell_expired, now))

    def watch_files(self, path: Path) -> ConfigWatch:
        """From now on changes of these files reload the configuration; `watch` does it."""
        source = Source(path, self._written, self._written, self.logger, self._observe_reload)
        watch = ConfigWatch(path, lambda: source.include, self.bell.ring_to_reload)
        self.source = source
        watch.start()
        return watch

    def reload(self) -> None:
        """Reads the configuration again and, if all of it is well, swaps it in.

        A bug is contained. Before the swap it changed nothing, and the next change of a file, or SIGHUP, tries again.
        Half-way through the swap cannot be undone: every token stays on schedule, some of them as they were before,
        removed ones perhaps among them; what left may stay open; and reloads count as failed until a restart.
        """
        source, before = self.source, self.config
        read = (source.written, source.running) if source else None
        try:
            self._read_and_swap()
        except Exception as error:  # noqa: BLE001 -- contained here for reloads
            self._torn = self._torn or self.config is not before
            if self._torn:
                for state in self.states.values():
                    self.scheduler.keep(self._work(state), self.clock.monotonic())
            elif source and read:
                source.written, source.running = read
            self._observe_reload(False)
            self.unexpected(Component.RELOAD, "configuration", error)

    def _read_and_swap(self) -> None:
        asked, self.bell.asked = self.bell.asked, False
        if asked:
            for name, session in self.parts.vaults.items():
                session.retry()
                self.scheduler.hasten(_keeper(name), self.clock.monotonic())
        config = self.source.read(asked=asked) if self.source else None
        if config is not None and not self.bell.stop:
            self._swap(config)

    def _swap(self, config: Config) -> None:
        """Adds, changes and removes tokens. Attempts under way go on; the next one of a token begins after them."""
        config = share(config, self.shard)
        changes, now = compare(self.config, config), self.clock.monotonic()
        vaults_before, others = self.config.vault.keys(), _others(self.config, config)
        self.config = config
        closing = self.parts.follow(config)
        self.scheduler.set_pools(self.parts.pools())
        self.metrics.follow(config.acaengine, self.parts.methods())
        self.watched.follow(changes.endpoints, changes.vaults)
        log.set_level(config.log.level)
        added = [self._begin(self.parts.state(token)) for token in changes.added]
        changed, later = self._change(changes.changed)
        self.parts.shared.follow(token.name for token in config.tokens)
        gone = [self.states.pop(name) for name in changes.removed]
        for hook in self.parts.hooks.values():
            if not hook.tokens:
                self.scheduler.drop(hook.name)
        for state in gone:
            self.scheduler.drop(state.name)
            self._changes.pop(state.name, None)
        for state in added:
            self.states[state.name] = state
            self.scheduler.keep(self._work(state), now)
        for state in changed:
            self.scheduler.keep(self._work(state), now)
        for change in later:
            name = change.fresh.name
            self._changes.setdefault(name, []).append(change)
            self.scheduler.keep(self._work(self.states[name], change.fresh.sinks[0].sink.pool), now)
        ending: list[Callable[[], None]] = [
            *closing,
            *(partial(self._pass_turn, state) for state in gone),
            *(partial(self.scheduler.drop, _keeper(name)) for name in vaults_before - config.vault.keys()),
            *(partial(self.events.forget, owner) for owner in others),
            self._tidy,
        ]
        for owner in others:
            self.events.forget(owner)
        self.retired.add(self.scheduler.under_way(), [partial(self.contain, "clean-up", end) for end in ending])
        self.logger.info(
            "config_reloaded",
            added=len(added),
            changed=len(changes.changed),
            removed=len(gone),
            unchanged=changes.unchanged,
        )

    def _change(self, changed: Iterable[tuple[TokenConfig, Origins]]) -> tuple[list[TokenState], list[Change]]:
        """Has tokens take over what changed, and returns them, off the schedule until all is swapped.

        Of tokens with an attempt under way it returns what they are to take over at the beginning of the next, so that
        nobody else writes their state. Fresh states of all at once would make holes in memory that stay.
        """
        taken, later = [], []
        for token, origins in changed:
            change = Change(self.parts.state(token), origins)
            if self.scheduler.withdraw(token.name):
                state = self.states[token.name]
                self._take_over(state, [*self._changes.pop(token.name, []), change])
                taken.append(state)
            else:
                later.append(change)
        return taken, later

    def _take_over(self, state: TokenState, changes: list[Change]) -> None:
        """Gives a token what reloads changed, in their order."""
        while changes:
            take_over(state, changes.pop(0), self.clock.monotonic())
            self.events.forget(state.name)

    def _pass_turn(self, state: TokenState) -> None:
        """A token that left probes its endpoint no more: another that waits does."""
        for wake in state.gate.passed(state.name, self.clock.monotonic()):
            self._wake(wake)

    def _tidy(self) -> None:
        """Removes what attempts that began before a reload could still have used."""
        self.scheduler.remove_pools(but=self.parts.pools())
        self.metrics.follow(self.config.acaengine, self.parts.methods())
        self.events.keep(self.states.keys() | self.parts.hooks.keys() | _servers(self.config))

    def stop(self) -> tuple[str, ...]:
        """Lets rotations under way finish; returns the tokens whose rotation did not within the time."""
        for hook in self.parts.hooks.values():
            hook.last = True
        left = self.scheduler.stop(0.0 if self.bug else STOP_SECONDS)
        self.parts.close()
        return tuple(name if name in self.states else self._who(name) for name in left if not name.startswith(KEEPER))

    # ── what is on the schedule ───────────────────────────────────────────────────────────────────────────────────────

    def _work(self, state: TokenState, pool: str = "") -> Work:
        return _TokenWork(self, state, pool or state.sinks[0].sink.pool)

    async def attempt(self, state: TokenState) -> float:
        """One attempt of a token, after what a reload changed meanwhile is taken over; returns when the next is due."""
        self._take_over(state, self._changes.get(state.name, []))
        next_at = await self.rotator.attempt(state)
        # A token that only waits for another to prove their client has not had its attempt yet.
        return math.inf if self._once and state.waits_for != "client_unproven" else next_at

    def _hook_work(self, hook: HookState) -> Work:
        async def attempt() -> float:
            next_at = await self.hooker.attempt(hook)
            return math.inf if self._once and hook.failures else next_at

        return Duty(hook.name, hook.name, attempt, lambda: 0.0, finish=True)

    def _sweep_work(self) -> Work:
        """Removes what a killed run left in files, before they are written; a file system that hangs delays nobody."""
        publishes = [publish for token in self.config.tokens for publish in token.publish]

        async def sweep() -> float:
            await Call(FILE_POOL, partial(self.contain, "temp-file cleanup", partial(sinks.sweep, publishes)))
            return math.inf  # what is left the next start removes

        return Duty(SWEEP, FILE_POOL, sweep, lambda: -math.inf)

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

        return Duty(_keeper(vault), pool, keep, lambda: -math.inf)

    def _who(self, name: str) -> str:
        """A name on the schedule, as people are told it."""
        if name.startswith(KEEPER):
            return f"our own token in vault {name.removeprefix(KEEPER)}"
        if name == SWEEP:
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
        if isinstance(event, TokenEvent) and (state := self.states.get(event.token)) is not None:
            self.watched.observe(state, event)
        self.events.observe(event)

    def _wake(self, wake: Wake) -> None:
        """Brings the attempt of a token forward that waited for another's, or puts a hook on schedule."""
        state, hook = self.states.get(wake.token), self.parts.hooks.get(wake.token)
        if hook is not None and hook.tokens:
            self.scheduler.keep(self._hook_work(hook), wake.at)
        elif state is not None:
            state.wake_at = wake.at
            self.scheduler.hasten(wake.token, wake.at)

    def _on_login(self, event: LoginEvent) -> None:
        self.metrics.observe_login(event)
        self.watched.observe_login(event)
        self.events.observe_login(event)
        if isinstance(event, LoggedIn | LoginFailed) and event.vault in self.config.vault and not self._once:
            work = self._keep_work(event.vault)
            if event.keep_at == math.inf:  # a token that never expires
                self.scheduler.drop(work.name)
            else:
                self.scheduler.keep(work, event.keep_at)
        if isinstance(event, LoggedIn) and event.recovered:
            self._vault_is_back(event.vault)

    def _vault_is_back(self, name: str) -> None:
        """The tokens that failed while nobody could log in to this Vault are tried again, spread over a moment."""
        for state in list(self.states.values()):
            if name in vaults_of(state.config) and state.failing:
                state.vault_is_back = True
                self.scheduler.hasten(state.name, self.clock.monotonic() + self.rng.random() * BACK_SPREAD_SECONDS)

    def _on_bug(self, bug: BaseException) -> None:
        """What broke the schedule itself ends the process: it would go on without a token."""
        self.bug = self.bug or InternalError.of(bug)
        self.bell.ring_to_stop()

    # ── what is watched ───────────────────────────────────────────────────────────────────────────────────────────────

    def _clock_stepped(self, seconds: float) -> None:
        self.logger.warning("clock_stepped", seconds=round(seconds, 3))
        self.scheduler.redraw()
        for state in list(self.states.values()):
            state.clock_stepped = True
            self.scheduler.hasten(state.name, self.clock.monotonic() + self.rng.random() * STEP_SPREAD_SECONDS)

    def _weigh(self) -> None:
        """Tells of endpoints that cannot give what their tokens need, and of those that can again."""
        if not self.demand.complete(self.clock.monotonic()):
            return
        due = due_per_second(list(self.states.values()))
        at_once = {name: endpoint.max_concurrency for name, endpoint in self.config.acaengine.items()}
        for name, load in self.demand.take(self.clock.monotonic(), due, at_once).items():
            self.metrics.observe_demand(name, load.ratio)
            self.watched.loads[name] = load
            if load.too_slow is not (name in self._behind):
                self.events.observe_demand(name, load)
                self._behind ^= {name}

    def _tell_expired(self, now: float) -> None:
        for expired in self._expiries.news(list(self.states.values()), self.clock.monotonic(), now):
            self._observe(expired)

    def _views(self) -> Iterator[TokenView]:
        offset = self.clock.wall() - self.clock.monotonic()
        for state in list(self.states.values()):
            yield token_view(state, offset)

    def checks(self) -> list[Check]:
        """What a restart would mend, and whether it is needed."""
        return health.checks(self.scheduler, self.parts, self._who, bug=self.bug is not None)

    def unhealthy(self) -> list[str]:
        """What is wrong that a restart would mend."""
        return problems(self.checks())

    def readiness(self) -> list[Check]:
        """Whether each token was looked at, and rotated or honestly failed."""
        return health.readiness(self.states.values())

    def subject(self) -> Subject:
        """What the status is told of, now."""
        everywhere = self.source.running if self.source else self._written
        return Subject(
            config=self.config,
            parts=self.parts,
            states=self.states,
            watched=self.watched,
            wall=self.clock.wall(),
            monotonic=self.clock.monotonic(),
            shard=self.shard,
            everywhere=(token.name for token in everywhere.tokens),
            unhealthy=tuple(self.unhealthy()),
            rejected=self.source.problems if self.source else (),
        )


@dataclass(frozen=True, slots=True, eq=False)
class _TokenWork:
    """The attempts of one token. It has no functions of its own: there are thousands."""

    daemon: Daemon
    state: TokenState
    pool: str
    finish: ClassVar[bool] = False

    @property
    def name(self) -> str:
        return self.state.name

    def attempt(self) -> Coroutine[Any, Any, float]:
        return self.daemon.attempt(self.state)

    def urgency(self) -> float:
        return self.state.urgency


def _servers(config: Config) -> set[str]:
    """What fails besides tokens and hooks, as the log calls it."""
    return {*map(of_endpoint, config.acaengine), *map(of_vault, config.vault)}


def _others(before: Config, config: Config) -> set[str]:
    """The endpoints and Vaults that became others."""
    endpoints = {of_endpoint(name) for name, it in before.acaengine.items() if config.acaengine.get(name) != it}
    return endpoints | {of_vault(name) for name, it in before.vault.items() if config.vault.get(name) != it}


def _keeper(vault: str) -> str:
    return KEEPER + vault
