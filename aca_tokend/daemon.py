"""The daemon: puts the parts together, starts them, watches over them and stops them. The file to read first.

    build      configuration ─► endpoints, Vault sessions, sinks, one state per token, the pools they run in
    start      every token is put on schedule for now: its first attempt looks, and adopts or rotates
    watch      once a second: has the wall clock been stepped; /-/healthy asks for lost jobs and hanging calls
    stop       nothing new starts, rotations under way finish through publish

What one attempt does stands in rotator.py. No other module sees all the parts.
"""

from __future__ import annotations

import math
import os
import random
import resource
import select
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog

from aca_tokend import __version__, log, sinks
from aca_tokend.admission import Shared
from aca_tokend.core.config import Config, VaultReference
from aca_tokend.credentials import endpoint_pool, references
from aca_tokend.metrics import Metrics, SinkView, TokenView
from aca_tokend.oauth import HttpTokenEndpoint
from aca_tokend.rotator import Rotator
from aca_tokend.scheduler import RotationScheduler, Work
from aca_tokend.secrets import SecretResolver
from aca_tokend.vault import VaultSession

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from aca_tokend.core.breaker import Wake
    from aca_tokend.core.config import TokenConfig
    from aca_tokend.core.outcome import Event
    from aca_tokend.state import TokenState

# How often a suspended token looks whether its credential changed; what Vault holds costs a request each time.
POLL_SECONDS = 5.0
POLL_VAULT_SECONDS = 60.0
FILE_POOL = "file"
FILE_POOL_SIZE = 4
# Rotations under way get this long to finish after SIGTERM; Kubernetes kills after 30 seconds by default.
STOP_SECONDS = 12.0
# A call is stuck once it has run for this many times the longest timeout, and at least a minute.
STUCK_TIMEOUTS = 5.0
STUCK_AT_LEAST_SECONDS = 60.0
# The wall clock was stepped, or the machine slept, if it moved this much against the clock that threads wait by.
STEP_SECONDS = 1.0
# Then every token reckons anew, within so many seconds rather than all at once.
STEP_SPREAD_SECONDS = 2.0


class SystemClock:
    """The machine's clocks. The monotonic one goes on while the machine sleeps, as the life of a token does."""

    def monotonic(self) -> float:
        """Seconds since boot, sleep included."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def wall(self) -> float:
        """Seconds since 1970 in UTC."""
        return time.time()


class Bell:
    """Wakes the main thread, from another thread or from a signal handler.

    A pipe, because an Event that is set in a handler while its own thread waits for it can lock up for ever.
    """

    def __init__(self) -> None:
        self.stop = False
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)

    def ring_to_stop(self) -> None:
        """The daemon is to end."""
        self.stop = True
        with suppress(BlockingIOError):  # full: it has been rung often enough
            os.write(self._write, b"!")

    def wait(self, seconds: float) -> None:
        """Waits until it is rung, at most so long."""
        if select.select([self._read], [], [], seconds)[0]:
            os.read(self._read, 1024)


@dataclass(slots=True)
class Daemon:
    """All the parts, put together from one configuration."""

    config: Config
    clock: SystemClock = field(default_factory=SystemClock)
    bug: BaseException | None = None
    endpoints: dict[str, HttpTokenEndpoint] = field(init=False)
    vaults: dict[str, VaultSession] = field(init=False)
    states: dict[str, TokenState] = field(init=False)
    rotator: Rotator = field(init=False)
    scheduler: RotationScheduler = field(init=False)
    metrics: Metrics = field(init=False)
    events: log.EventLog = field(default_factory=log.EventLog)
    logger: Any = field(default_factory=structlog.get_logger)
    bell: Bell = field(default_factory=Bell)
    rng: random.Random = field(default_factory=random.SystemRandom)
    shared: Shared = field(default_factory=Shared)

    def __post_init__(self) -> None:
        """Builds the parts; opens no connection."""
        config = self.config
        methods = {name: vault.auth.method for name, vault in config.vault.items()}
        self.metrics = Metrics(self._views, self.clock.wall, config.acaengine, methods)
        self.vaults = {}
        secrets = SecretResolver(self.vaults)
        for name, vault in config.vault.items():
            self.vaults[name] = VaultSession(
                name, vault, secrets.resolve, wall=self.clock.wall, on_login=self._on_login
            )
        self.endpoints = {name: HttpTokenEndpoint(name, endpoint) for name, endpoint in config.acaengine.items()}
        self.states = {token.name: self._state(token) for token in config.tokens}
        self.rotator = Rotator(self.clock, secrets, self.rng, self._observe, self._wake)
        self.scheduler = RotationScheduler(self._pools(), self.clock, self._on_bug, self.metrics.observe_lag)

    def _state(self, token: TokenConfig) -> TokenState:
        built = [sinks.build(publish, self.vaults) for publish in token.publish]
        timeout = self.config.acaengine[token.acaengine].timeout
        state = self.shared.state(token, self.endpoints[token.acaengine], built, timeout)
        in_vault = any(isinstance(reference, VaultReference) for reference in references(token))
        state.draw = self.rng.random()
        state.rotate_at = self.clock.monotonic()
        state.poll_seconds = POLL_VAULT_SECONDS if in_vault else POLL_SECONDS
        return state

    def _pools(self) -> dict[str, int]:
        pools = {endpoint_pool(self.endpoints[name]): it.max_concurrency for name, it in self.config.acaengine.items()}
        pools |= {f"vault.{name}": it.max_concurrency for name, it in self.config.vault.items()}
        return pools | {FILE_POOL: FILE_POOL_SIZE}

    # ── what the parts tell ───────────────────────────────────────────────────────────────────────────────────────

    def _observe(self, event: Event) -> None:
        self.metrics.observe(event)
        self.events.observe(event)

    def _wake(self, wake: Wake) -> None:
        """Brings the attempt of a token forward that waited for another's."""
        state = self.states.get(wake.token)
        if state is not None:
            state.wake_at = wake.at
            self.scheduler.hasten(wake.token, wake.at)

    def _on_login(self, vault: str, method: str, ok: bool, expires_at: float | None) -> None:
        self.metrics.observe_login(vault, method, ok, expires_at)
        self.events.observe_login(vault, method, ok, expires_at)

    def _on_bug(self, bug: BaseException) -> None:
        """What nobody expected ends the process: a daemon that goes on after a bug goes on without a token."""
        self.bug = self.bug or bug
        self.bell.ring_to_stop()

    def _views(self) -> Iterator[TokenView]:
        offset = self.clock.wall() - self.clock.monotonic()
        for state in self.states.values():
            yield TokenView(
                token=state.name,
                document=state.document,
                rotate_at=state.life.rotate + offset if state.life else None,
                suspended=state.suspended.reason if state.suspended else None,
                consecutive_failures=max(state.failures, state.publish_failures),
                sinks=tuple(
                    SinkView(
                        sink.sink.name,
                        sink.sink.kind,
                        sink.published.issued_at if sink.published else None,
                        sink.published.expires_at if sink.published else None,
                    )
                    for sink in state.sinks
                ),
            )

    # ── health ────────────────────────────────────────────────────────────────────────────────────────────────────

    def unhealthy(self) -> list[str]:
        """What a restart would mend; an endpoint or a Vault that fails is none of it."""
        timeouts = [it.timeout for it in self.config.acaengine.values()]
        timeouts += [it.timeout for it in self.config.vault.values()]
        limit = max([STUCK_AT_LEAST_SECONDS, *(timeout * STUCK_TIMEOUTS for timeout in timeouts)])
        problems = [f"token {name}: its next attempt is overdue" for name in self.scheduler.overdue()]
        problems += [f"pool {name}: a call hangs past every timeout" for name in self.scheduler.stuck(limit)]
        if self.bug is not None:
            problems.append("a bug ended the work of this process")
        return problems

    def not_ready(self) -> list[str]:
        """The tokens that were not yet looked at, rotated or honestly failed."""
        return [f"token {state.name}: not looked at yet" for state in self.states.values() if not state.settled]

    # ── the life of the process ───────────────────────────────────────────────────────────────────────────────────

    def start(self, *, once: bool = False) -> None:
        """Puts every token on schedule for now; with `once` for a single attempt."""
        sinks.sweep(publish for token in self.config.tokens for publish in token.publish if publish.to == "file")
        for state in self.states.values():
            self.scheduler.keep(self._work(state, once=once), state.rotate_at)
        self.scheduler.start()

    def _work(self, state: TokenState, *, once: bool) -> Work:
        async def attempt() -> float:
            next_at = await self.rotator.attempt(state)
            # A token that only waits for another to prove their client has not had its attempt yet.
            return math.inf if once and state.waits_for != "client_unproven" else next_at

        return Work(state.name, state.sinks[0].sink.pool, attempt, lambda: state.urgency)

    def watch(self) -> None:
        """Once a second until told to stop."""
        offset = self.clock.wall() - time.monotonic()
        while not self.bell.stop:
            self.bell.wait(1.0)
            now = self.clock.wall()
            step = now - time.monotonic() - offset
            if abs(step) > STEP_SECONDS:
                offset += step
                self.logger.warning("clock_stepped", seconds=round(step, 3))
                self.scheduler.redraw()
                for state in list(self.states.values()):
                    state.clock_stepped = True
                    self.scheduler.hasten(state.name, self.clock.monotonic() + self.rng.random() * STEP_SPREAD_SECONDS)
            self.metrics.tick(now)

    def stop(self) -> tuple[str, ...]:
        """Lets rotations under way finish; returns the tokens whose rotation did not within the time."""
        left = self.scheduler.stop(0.0 if self.bug else STOP_SECONDS)
        for endpoint in self.endpoints.values():
            endpoint.close()
        for vault in self.vaults.values():
            vault.close()
        return left


def run(config: Config, make: type[Daemon] = Daemon) -> int:
    """Runs until SIGTERM or SIGINT. Returns the exit code: 0 after a clean stop, 1 after a bug."""
    harden()
    daemon = make(config)
    logger = daemon.logger
    handle_signals(daemon.bell)
    admin, address = None, "off"
    if config.admin.listen:
        from aca_tokend.admin import AdminServer

        admin = AdminServer(config.admin, daemon.metrics.exposition, daemon.unhealthy, daemon.not_ready)
        admin.start()
        address = f"{config.admin.listen.rpartition(':')[0]}:{admin.port}"
    daemon.start()
    logger.info("daemon_started", version=__version__, tokens=len(daemon.states), admin=address)
    daemon.watch()
    logger.info("daemon_stopping")
    left = daemon.stop()
    if admin is not None:
        admin.stop()
    if daemon.bug is not None:
        logger.critical("daemon_stopped", why="a bug; please report it", exc_info=daemon.bug)
        return 1
    logger.info("daemon_stopped", unfinished=list(left))
    return 0


def run_once(config: Config) -> int:
    """Makes one attempt for each token. Returns 0 if none failed and every sink holds its token, else 1."""
    harden()
    daemon = Daemon(config)
    handle_signals(daemon.bell)
    daemon.start(once=True)
    while not daemon.bell.stop and not daemon.scheduler.wait_until_done(0.2):
        pass
    daemon.stop()
    if daemon.bug is not None:
        daemon.logger.critical("daemon_stopped", why="a bug; please report it", exc_info=daemon.bug)
        return 1
    return 0 if all(state.published and not state.failures for state in daemon.states.values()) else 1


def harden() -> None:
    """Keeps secrets out of core dumps."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def handle_signals(bell: Bell) -> None:
    """The first SIGTERM or SIGINT stops in order, a second one leaves at once."""

    def handle(_number: int, _frame: FrameType | None) -> None:
        if bell.stop:
            os._exit(1)
        bell.ring_to_stop()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
