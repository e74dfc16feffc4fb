"""Herds, simulated: thousands of tokens that were issued in one minute, and an endpoint that becomes too slow."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aca_tokend.core.config import Config, parse
from aca_tokend.core.demand import WINDOW_SECONDS, Demand
from aca_tokend.core.outcome import Granted
from aca_tokend.event_log import EventLog
from aca_tokend.simulation.driver import SimDriver
from aca_tokend.simulation.replica import Cluster, Setup
from aca_tokend.simulation.run import Tally
from aca_tokend.simulation.world import World
from aca_tokend.views import due_per_second

if TYPE_CHECKING:
    from collections.abc import Callable

    from aca_tokend.core.outcome import Event
    from aca_tokend.rotation.managed import ManagedToken
    from aca_tokend.simulation.replica import Replica
    from aca_tokend.simulation.server import Minted, SimEndpoint

HOUR = 3600.0
POOL = "acaengine.main"


def config(tokens: int, fractions: tuple[float, ...]) -> Config:
    """So many tokens at one endpoint, which take turns with these fractions."""
    entries = [
        {
            "name": f"t{number}",
            "authority": "authority-1",
            "username": f"svc-{number}",
            "password": {"env": "PASSWORD"},
            "client_id": "client-1",
            "client_secret": {"env": "CLIENT_SECRET"},
            "rotation": {"fraction": fractions[number % len(fractions)]},
            "publish": [{"to": "vault", "mount": "secret", "path": f"aca/t{number}"}],
        }
        for number in range(tokens)
    ]
    vault = {"address": "https://vault.example.com", "auth": {"method": "token", "token": {"env": "VAULT_TOKEN"}}}
    servers = {"acaengine": {"main": {"url": "https://aca.example.com"}}, "vault": {"main": vault}}
    return parse([("config.toml", {**servers, "tokens": entries})])


class Moments(Tally):
    """When each token was granted."""

    def __init__(self) -> None:
        super().__init__()
        self.of_token: dict[str, list[float]] = {}

    def granted(self, endpoint: SimEndpoint, minted: Minted) -> None:
        """Notes the moment."""
        self.of_token.setdefault(endpoint.token, []).append(minted.issued)


def rounds(
    tokens: int, lifetime: float, count: int, latency: tuple[float, float, float] = (0.015, 0.002, 0.002)
) -> list[list[float]]:
    """When tokens that all start at once are granted, in seconds: for each token's first grant, second, and so on."""
    watch, world = Moments(), World(1)
    Cluster(Setup(config(tokens, (0.667,)), lifetime=lifetime, latency=latency), watch, world).start()
    world.run(count * lifetime * 0.667)
    return [[moments[number] for moments in watch.of_token.values()] for number in range(count)]


@dataclass(frozen=True, slots=True)
class Asked:
    """A grant: when its attempt was due, when it was sent, and when the token in whose place it comes expires."""

    due: float
    sent: float
    expires: float


class Behind(Tally):
    """What is granted in which order, and what the daemon reckons of it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Asked] = []
        self.demand = Demand(0.0)
        self._next: dict[str, tuple[float, float]] = {}

    def ended(self, replica: Replica, state: ManagedToken, next_at: float) -> None:
        """Notes when a token is due again."""
        del replica
        if (life := state.facts.life) is not None:
            self._next[state.name] = (next_at, life.expires)

    def granted(self, endpoint: SimEndpoint, minted: Minted) -> None:
        """Notes a grant that is not the first."""
        if endpoint.token in self._next:
            due, expires = self._next.pop(endpoint.token)
            self.asked.append(Asked(due, minted.sent, expires))

    def told(self, replica: Replica, event: Event) -> None:
        """Measures the endpoint as the daemon does."""
        del replica
        if isinstance(event, Granted):
            self.demand.granted(event.endpoint, event.duration_seconds)


class Unhurried(SimDriver):
    """First come, first served."""

    def _submit(self, name: str, urgency: float, run: Callable[..., None], *arguments: object) -> None:
        del urgency
        super()._submit(name, 0.0, run, *arguments)


class Spell:
    """An endpoint that becomes slower than its tokens need, for a quarter of an hour.

    Half of the tokens are due with a fifth of their life left, the others with most of it.
    """

    LATENCY = (0.1, 0.005, 0.002)
    SLOW = 2.6
    BEGINS, LASTS = HOUR / 2, HOUR / 4

    def __init__(self, driver: type[SimDriver]) -> None:
        self.watch = Behind()
        self.world = World(1)
        setup = Setup(config(1200, (0.3, 0.8)), lifetime=600.0, latency=self.LATENCY, driver=driver)
        self.cluster = Cluster(setup, self.watch, self.world)
        self.cluster.start()

    def slow(self, seconds: float) -> None:
        """From now on the endpoint takes so long for a grant."""
        self.cluster._latencies[POOL] = seconds

    def weigh(self) -> None:
        """What the daemon says of the endpoint after a window."""
        states = [state for replica in self.cluster.replicas for state in replica.tokens.by_name.values()]
        at_once = {"main": self.cluster.pools[POOL]}
        load = self.watch.demand.take(self.world.now, due_per_second(states), at_once)["main"]
        if load.too_slow:
            EventLog().observe_demand("main", load)

    def run(self) -> None:
        """All of it, with the window before the spell and the last window of it weighed."""
        spell = self.BEGINS, self.BEGINS + self.LASTS
        for moment, latency in zip(spell, (self.SLOW, self.LATENCY[0]), strict=True):
            self.world.run(moment - WINDOW_SECONDS)
            self.watch.demand.take(self.world.now, {}, {})
            self.world.run(moment)
            self.weigh()
            self.slow(latency)
        self.world.run(spell[1] + HOUR / 4)
        self.cluster.settle()

    @property
    def refused(self) -> float:
        """For how many seconds readers held an expired token."""
        return sum(end - start for place in self.cluster.places for start, end in place.refused)

    @property
    def expired(self) -> int:
        """How many tokens that was."""
        return sum(bool(place.refused) for place in self.cluster.places)

    @property
    def overtaken(self) -> int:
        """How many grants were sent while a token that expires sooner was waiting, and had been for a second."""
        count, waiting, sent = 0, list[tuple[float, Asked]](), set[Asked]()
        by_due = sorted(self.watch.asked, key=lambda it: it.due, reverse=True)
        for grant in sorted(self.watch.asked, key=lambda it: it.sent):
            while by_due and by_due[-1].due + 1.0 < grant.sent:
                asked = by_due.pop()
                heapq.heappush(waiting, (asked.expires, asked))
            while waiting and waiting[0][1] in sent:
                heapq.heappop(waiting)
            count += bool(waiting) and waiting[0][0] < grant.expires
            sent.add(grant)
        return count
