"""A simulated process: the real rotator with states of its own, started, killed and started again; and all of them.

The one place where the parts of an engine are put together for simulation.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aca_tokend.core.config import VaultPublish, after_of
from aca_tokend.core.steps import BEGIN, Duty
from aca_tokend.rotation.changes import compare
from aca_tokend.rotation.hook_runner import Hooker, HookState
from aca_tokend.rotation.managed import Wiring
from aca_tokend.rotation.rotator import Rotator
from aca_tokend.rotation.shared import Shared
from aca_tokend.rotation.tokens import Tokens
from aca_tokend.simulation.driver import SimDriver
from aca_tokend.simulation.places import SECRETS_POOL, Place, SimHook, SimSecrets, SimSink, Store
from aca_tokend.simulation.server import Server, SimEndpoint
from aca_tokend.simulation.world import SimClock, World
from aca_tokend.sinks.mounts import FILE_POOL, FILE_POOL_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aca_tokend.core.breaker import Wake
    from aca_tokend.core.config import After, AnyPublish, Config, EndpointConfig, TokenConfig
    from aca_tokend.core.outcome import Event, Reason
    from aca_tokend.rotation.managed import ManagedToken
    from aca_tokend.simulation.places import Watch

# A call takes from a third of its median to three times as long.
LATENCY_SPREAD = 3.0
# The median of a run of a hook.
HOOK_SECONDS = 0.1
# The watchdog notices a stepped clock within a second.
STEP_NOTICED_SECONDS = 1.0


def real_rotator(replica: Replica, rng: random.Random) -> Rotator:
    """The engine as the daemon has it; the tests of the invariants put broken ones in its place."""
    return Rotator(replica.clock, replica.cluster.secrets, rng, replica.observe, replica.wake, replica.tokens.late)


@dataclass(frozen=True, slots=True)
class Setup:
    """What is simulated.

    `latency` gives the median seconds of a call by the kind of its pool: acaengine, vault, file.
    """

    config: Config
    replicas: int = 1
    seed: int = 0
    lifetime: float | None = 7200.0
    latency: tuple[float, float, float] = (0.2, 0.02, 0.002)
    skews: tuple[float, ...] = ()
    rotator: Callable[[Replica, random.Random], Rotator] = real_rotator
    hooker: type[Hooker] = Hooker
    driver: type[SimDriver] = SimDriver
    wrap_sink: Callable[[SimSink], Any] = field(default=lambda sink: sink)


class Replica:
    """One process and its machine. Its clock and its files outlive the process."""

    def __init__(self, cluster: Cluster, number: int, clock: SimClock) -> None:
        self.cluster = cluster
        self.number = number
        self.name = f"replica {number}"
        self.clock = clock
        self.places: dict[str, tuple[Place, ...]] = {}
        self.config = cluster.config
        self.hooks: dict[str, HookState] = {}
        self.ill_hooks: dict[After, Reason] = {}
        self.driver = cluster.setup.driver(cluster.world, cluster.pools, cluster.latency)
        self.driver.dead = True
        self.starts = 0

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return not self.driver.dead

    def start(self) -> None:
        """A new process: every token is put on schedule for now."""
        if self.alive:
            return
        cluster = self.cluster
        self.starts += 1
        now = cluster.world.now
        rng = random.Random(cluster.world.rng.random())  # noqa: S311 -- to be repeatable is the point
        self.driver = cluster.setup.driver(cluster.world, cluster.pools, cluster.latency)
        self.shared = Shared(self.clock.monotonic())
        self.hooks = {name: self._hook(after, name) for after, name in cluster.hook_names.items()}
        self.hooker = cluster.setup.hooker(self.clock, rng, self.observe)
        self.tokens = Tokens(self.clock, rng, self.driver, self._wire, self._ended)
        self.tokens.rotator = cluster.setup.rotator(self, rng)
        for token in self.config.tokens:
            self.tokens.add(token, now)

    def kill(self) -> None:
        """The process ends between two instructions."""
        self.driver.kill()

    def step_clock(self, seconds: float) -> None:
        """The wall clock of its machine jumps; 0 where it only slept, which is noticed the same way."""
        self.clock.skew += seconds
        self.cluster.world.at(self.cluster.world.now + STEP_NOTICED_SECONDS, self._notice_step, self.driver)

    def _notice_step(self, driver: SimDriver) -> None:
        if driver is self.driver and self.alive:
            self.tokens.clock_stepped()

    def wake(self, wake: Wake) -> None:
        """Brings the attempt of a token forward that waited for another's, or puts a hook on schedule."""
        hook = self.hooks.get(wake.token)
        if hook is not None and self.alive:
            self.driver.keep(Duty(hook.name, BEGIN, lambda: self.hooker.attempt(hook), lambda: 0.0), wake.at)
        elif self.alive:
            self.tokens.wake(wake)

    def reload(self, config: Config) -> None:
        """Swaps the configuration in, as the daemon does; the places are those of before."""
        changes = compare(self.config, config)
        before, self.config = self.config, config
        if not self.alive:
            return
        for name in before.acaengine:
            if config.acaengine.get(name) != before.acaengine[name]:
                self.shared.forget_endpoint(name)
        self.shared.follow(config.tokens)
        for after, name in self.cluster.hook_names.items():
            self.hooks[name].tokens = self._tokens_with(after)
        for token in self.tokens.follow(changes):
            self.tokens.pass_turns(token)

    def _wire(self, token: TokenConfig) -> Wiring:
        cluster = self.cluster
        sinks = [
            cluster.setup.wrap_sink(_sink(place, publish))
            for place, publish in zip(self.places[token.name], token.publish, strict=True)
        ]
        server = cluster.servers[token.acaengine]
        endpoint = self.config.acaengine[token.acaengine]
        called = _host(endpoint)
        afters = (after_of(publish) for publish in token.publish)
        return Wiring(
            config=token,
            endpoint=SimEndpoint(server, token.name, self.number, self.starts, self.clock, called),
            sinks=tuple(sinks),
            hooks=tuple(None if after is None else self.hooks[cluster.hook_names[after]] for after in afters),
            gate=self.shared.gate(
                token.acaengine, endpoint.timeout, token.rotation.backoff.cap, endpoint.max_concurrency
            ),
            client=self.shared.client_of(token),
            shared=self.shared,
            rules=self.shared.rules(token, endpoint.timeout),
        )

    def _hook(self, after: After, name: str) -> HookState:
        return HookState(
            name, SimHook(after, self, self.starts), self.config.rotation.backoff, self._tokens_with(after)
        )

    def _tokens_with(self, after: After) -> frozenset[str]:
        return frozenset(it.name for it in self.config.tokens if after in map(after_of, it.publish))

    def _ended(self, token: ManagedToken, until: float) -> None:
        self.cluster.watch.ended(self, token, until)

    def observe(self, event: Event) -> None:
        """A rotation tells what happened."""
        self.cluster.watch.told(self, event)
        if self.cluster.world.trace is not None:
            self.cluster.world.note(self.name, str(event))


class Cluster:
    """Everything that is simulated, put together from one configuration."""

    def __init__(self, setup: Setup, watch: Watch, world: World) -> None:
        self.setup = setup
        self.config = setup.config
        self.watch = watch
        self.world = world
        self.servers = {
            name: Server(name, _host(it), world, watch, it.timeout, setup.lifetime)
            for name, it in self.config.acaengine.items()
        }
        self.vaults = {name: Store(f"vault.{name}", world, it.timeout) for name, it in self.config.vault.items()}
        self.secrets = SimSecrets(self.vaults, world)
        self.disks = [Store(f"disk {number}", world, timeout=30.0) for number in range(setup.replicas)]
        self.pools = {f"vault.{name}": it.max_concurrency for name, it in self.config.vault.items()}
        self.pools |= dict.fromkeys((FILE_POOL, SECRETS_POOL), FILE_POOL_SIZE)
        for name, endpoint in self.config.acaengine.items():
            self.pools[f"acaengine.{name}"] = endpoint.max_concurrency
        self.hook_names = _hook_names(self.config)
        self.pools |= dict.fromkeys(self.hook_names.values(), 1)
        self._latencies = {name: self._median(name) for name in self.pools}
        skews = setup.skews or (0.0,) * setup.replicas
        self.replicas = [Replica(self, number, SimClock(world, skews[number])) for number in range(setup.replicas)]
        self.places: list[Place] = []
        for token in self.config.tokens:
            self._add_places(token)

    def start(self) -> None:
        """Starts every replica."""
        for replica in self.replicas:
            replica.start()

    def latency(self, pool: str) -> float:
        """How long a call in this pool takes."""
        return self._latencies[pool] * math.pow(LATENCY_SPREAD, 2.0 * self.world.rng.random() - 1.0)

    def settle(self) -> None:
        """Accounts for what readers met until now."""
        for place in self.places:
            place.settle(self.world.now)

    def _median(self, pool: str) -> float:
        endpoint, vault, file = self.setup.latency
        if pool in self.hook_names.values():
            return HOOK_SECONDS
        return file if pool in {FILE_POOL, SECRETS_POOL} else vault if pool.startswith("vault.") else endpoint

    def _add_places(self, token: TokenConfig) -> None:
        server = self.servers[token.acaengine]
        shared: dict[str, Place] = {}
        for replica in self.replicas:
            places = []
            for publish in token.publish:
                place = shared.get(_name(publish))
                if place is None:
                    place = self._place(token.name, publish, replica, server)
                    self.places.append(place)
                if isinstance(publish, VaultPublish):
                    shared[place.name] = place
                places.append(place)
            replica.places[token.name] = tuple(places)

    def _place(self, token: str, publish: AnyPublish, replica: Replica, server: Server) -> Place:
        if not isinstance(publish, VaultPublish):
            name = f"{_name(publish)} of {replica.name}" if len(self.replicas) > 1 else _name(publish)
            return Place(token, name, self.disks[replica.number], server, self.watch)
        return Place(token, _name(publish), self.vaults[publish.vault_name or "main"], server, self.watch)

    def processes(self) -> Iterator[Replica]:
        """The replicas whose process runs."""
        return (replica for replica in self.replicas if replica.alive)


def _hook_names(config: Config) -> dict[After, str]:
    """As in the daemon, one hook for all sinks that have the same. A reload brings no new ones."""
    afters = (after_of(publish) for token in config.tokens for publish in token.publish)
    kinds = dict.fromkeys(after for after in afters if after is not None)
    return {after: f"hook {number}" for number, after in enumerate(kinds, 1)}


def _host(endpoint: EndpointConfig) -> str:
    return endpoint.host or endpoint.url.partition("://")[2]


def _name(publish: AnyPublish) -> str:
    if not isinstance(publish, VaultPublish):
        return f"{publish.to}:{publish.path}"
    vault = "vault" if publish.vault_name in {"", "main"} else f"vault.{publish.vault_name}"
    return f"{vault}:{publish.mount}/{publish.path}"


def _sink(place: Place, publish: AnyPublish) -> SimSink:
    if not isinstance(publish, VaultPublish):
        return SimSink(place, _name(publish), "file", FILE_POOL)
    vault = publish.vault_name or "main"
    return SimSink(place, _name(publish), "vault", f"vault.{vault}")
