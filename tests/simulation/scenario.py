"""What one simulated run is made of: drawn from its seed, or made smaller by hand to find what breaks an invariant."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

from aca_tokend.core.config import Config, parse
from aca_tokend.core.token import Account
from aca_tokend.simulation.replica import LATENCY_SPREAD, Cluster, Setup
from aca_tokend.simulation.world import World
from tests.simulation.faults import Fault, strike
from tests.simulation.invariants import Checker, Violated

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aca_tokend.core.config import RotationConfig

HOUR = 3600.0
DAY = 24 * HOUR
TIMEOUT = 10.0
VAULT_TIMEOUT = 5.0
# Lines of the trace that are shown of a run that failed.
TRACE_LINES = 60


@dataclass(frozen=True)
class Scenario:
    """One run. Times in seconds."""

    seed: int
    profile: str
    tokens: int = 5
    replicas: int = 1
    seconds: float = DAY
    lifetime: float = 2 * HOUR
    jitter: float = 0.1
    fraction: float = 0.667
    min_interval: float = 10.0
    retry_rejected: float = HOUR
    verify: bool = False
    verify_every: float = 0.0
    file: bool = False
    latency: tuple[float, float, float] = (0.15, 0.02, 0.002)
    skews: tuple[float, ...] = ()
    reuse: bool = False
    faults: tuple[Fault, ...] = ()
    engine: Mapping[str, Any] = field(default_factory=dict)  # parts of the engine that are replaced: see Setup

    @property
    def token_days(self) -> float:
        """Tokens times days; replicas do not count."""
        return self.tokens * self.seconds / DAY

    @cached_property
    def config(self) -> Config:
        """The configuration of its daemons."""
        return _config(self.tokens, self.rotation_table, self.verify_every if self.verify else None, self.file)

    @property
    def rotation_table(self) -> tuple[tuple[str, object], ...]:
        """`[rotation]`."""
        return (
            ("fraction", self.fraction),
            ("jitter", self.jitter),
            ("min_interval", self.min_interval),
            ("retry_rejected", self.retry_rejected),
            ("assumed_lifetime", HOUR),
        )

    @cached_property
    def rotation(self) -> RotationConfig:
        """The same, as the rotator has it."""
        return self.config.tokens[0].rotation

    @cached_property
    def accounts(self) -> Mapping[str, str]:
        """Whose token each is."""
        return _accounts(self.tokens)

    @property
    def quiet(self) -> bool:
        """Whether nothing goes wrong at all."""
        return not self.faults and not self.odd_clocks and not self.odd_lifetimes

    @cached_property
    def odd_clocks(self) -> bool:
        """Whether wall clocks differ or are stepped."""
        return bool(self.skews) or any(fault.kind == "step" for fault in self.faults)

    @cached_property
    def odd_lifetimes(self) -> bool:
        """Whether the lifetime changes, or is shorter than the daemon may ask."""
        return self.reuse or self.hopeless or any(fault.kind == "lifetime" for fault in self.faults)

    @cached_property
    def hopeless(self) -> bool:
        """Whether tokens die before another may be asked for, or handed out again until they do."""
        return self.reuse or self.lifetime < self.min_interval + self.longest_attempt or self.outrun

    @property
    def outrun(self) -> bool:
        """Whether the lifetime becomes shorter than that for a while."""
        return any(
            fault.kind == "lifetime" and fault.value < self.min_interval + self.longest_attempt for fault in self.faults
        )

    @property
    def defaced(self) -> frozenset[str]:
        """The places that somebody else writes."""
        defaced = (fault.target % self.tokens for fault in self.faults if fault.kind == "deface")
        return frozenset(f"vault:secret/aca/t{token}" for token in defaced)

    @cached_property
    def longest_grant(self) -> float:
        """How long a request to the endpoint takes at most while it works."""
        return self.latency[0] * LATENCY_SPREAD

    @cached_property
    def longest_look(self) -> float:
        """How long a look takes at most while the sinks work, and a moment."""
        return self.latency[1] * LATENCY_SPREAD + 0.001

    @cached_property
    def longest_attempt(self) -> float:
        """Look, grant, verify, publish, with as many waiting for the pools as there are tokens."""
        requests = self.longest_grant * (2 if self.verify else 1) + 3 * self.longest_look
        return requests * (1 + self.tokens // 8)

    @property
    def longest_hang(self) -> float:
        """How long an attempt may take while everything hangs, waiting for others in the pools included."""
        return (2 * TIMEOUT + 10 * VAULT_TIMEOUT) * (1 + self.tokens // 8)

    @property
    def calm_after(self) -> float:
        """After a disturbance everything is as ever within this time."""
        return 2 * 60.0 + 10 * (TIMEOUT + VAULT_TIMEOUT) + self.retry_rejected + self.longest_attempt

    @property
    def most_failures_an_hour(self) -> int:
        """A probe every three seconds or more, and the urgent time twice: far below attempts without growing waits."""
        return 3600 // 3 + 2 * 60


@dataclass
class Outcome:
    """What became of a run: nothing was `violated`, or the trace says how."""

    scenario: Scenario
    checker: Checker
    violated: Violated | None = None
    ended_at: float = 0.0
    trace: list[tuple[float, str, str]] = field(default_factory=list)  # the last that happened


def run(scenario: Scenario, *, trace: bool = False, lines: int = TRACE_LINES) -> Outcome:
    """Runs a scenario until its end, or until an invariant is broken."""
    checker = Checker(scenario)
    kept: deque[tuple[float, str, str]] = deque(maxlen=lines)
    world = World(scenario.seed, kept if trace else None)
    setup = Setup(
        scenario.config,
        replicas=scenario.replicas,
        seed=scenario.seed,
        lifetime=scenario.lifetime,
        latency=scenario.latency,
        skews=scenario.skews,
        **scenario.engine,
    )
    cluster = checker.cluster = Cluster(setup, checker, world)
    server = cluster.servers["main"]
    server.reuse = scenario.reuse
    for token in scenario.config.tokens:
        server.passwords[token.name] = str(token.password)
    cluster.start()
    for fault in scenario.faults:
        world.at(fault.at, strike, fault, checker)
    outcome = Outcome(scenario, checker)
    step = min(2 * HOUR, scenario.seconds / 20)
    try:
        while world.now < scenario.seconds:
            world.run(min(world.now + step, scenario.seconds))
            checker.look_around()
            server.forget(world.now - DAY)
        checker.at_the_end()
    except Violated as violated:
        outcome.violated = violated
    outcome.trace = list(kept)
    outcome.ended_at = world.now
    return outcome


def drawn(seed: int, **changed: object) -> Scenario:
    """The scenario of a seed."""
    rng = random.Random(seed)  # noqa: S311 -- to be repeatable is the point
    names = list(PROFILES)
    profile = names[seed % len(names)]
    scenario = PROFILES[profile](rng, Scenario(seed, profile))
    return replace(scenario, **changed)  # type: ignore[arg-type]  # by name


def _quiet(rng: random.Random, base: Scenario) -> Scenario:
    """Three replicas and nothing goes wrong."""
    return replace(base, tokens=30, replicas=3, seconds=14 * DAY, file=rng.random() < 0.3)


def _steady(rng: random.Random, base: Scenario) -> Scenario:
    """Ordinary days with some trouble in them."""
    base = replace(base, tokens=40, replicas=rng.choice((1, 2, 3)), seconds=10 * DAY, file=rng.random() < 0.3)
    kinds = ("outage", "sink", "kill", "kill amid", "freeze", "password", "reload")
    return replace(base, faults=_faults(rng, base, kinds, 10))


def _stormy(rng: random.Random, base: Scenario) -> Scenario:
    """Everything fails now and then."""
    base = replace(
        base,
        tokens=rng.randint(3, 12),
        replicas=rng.randint(1, 3),
        seconds=rng.uniform(4, 12) * DAY,
        verify=rng.random() < 0.3,
        file=rng.random() < 0.5,
        latency=(rng.uniform(0.02, 0.4), rng.uniform(0.005, 0.05), 0.002),
    )
    return replace(
        base, faults=_faults(rng, base, ("outage", "sink", "kill", "kill amid", "freeze", "crash loop", "reload"), 40)
    )


def _late(rng: random.Random, base: Scenario) -> Scenario:
    """Outages that end as late as the promise allows."""
    base = replace(base, tokens=rng.randint(2, 5), replicas=rng.randint(1, 3), seconds=rng.uniform(3, 5) * DAY)
    return replace(base, faults=_faults(rng, base, ("until expiry", "until expiry", "kill amid"), 14))


def _race(rng: random.Random, base: Scenario) -> Scenario:
    """Replicas without jitter: all rotate at the same moment, each time."""
    base = replace(base, tokens=8, replicas=3, seconds=5 * DAY, jitter=0.0, latency=(0.3, 0.1, 0.002))
    return replace(base, faults=_faults(rng, base, ("sink", "kill amid"), rng.randint(0, 6)))


def _locks(rng: random.Random, base: Scenario) -> Scenario:
    """Passwords change on one side before the other, and processes die meanwhile."""
    base = replace(
        base,
        tokens=rng.randint(2, 6),
        replicas=rng.randint(1, 3),
        seconds=6 * DAY,
        retry_rejected=rng.choice((0.0, HOUR, 4 * HOUR)),
    )
    return replace(
        base, faults=_faults(rng, base, ("password", "password", "kill", "kill amid", "outage", "crash loop"), 24)
    )


def _clocks(rng: random.Random, base: Scenario) -> Scenario:
    """Wall clocks that differ, and steps of an hour."""
    replicas = rng.randint(1, 3)
    skews = tuple(rng.choice((0.0, rng.uniform(-120, 120))) for _ in range(replicas))
    base = replace(base, tokens=5, replicas=replicas, seconds=8 * DAY, skews=skews)
    return replace(base, faults=_faults(rng, base, ("step", "freeze", "outage", "kill amid"), 20))


def _lifetimes(rng: random.Random, base: Scenario) -> Scenario:
    """Tokens of a few seconds, of two weeks, of a year, that shrink, that are handed out again."""
    lifetime = rng.choice((15.0, 30.0, 60.0, 300.0, HOUR, 14 * DAY, 365 * DAY))
    base = replace(
        base,
        tokens=4,
        replicas=rng.randint(1, 3),
        lifetime=lifetime,
        seconds=min(max(lifetime * 40, HOUR), 400 * DAY),
        min_interval=rng.choice((1.0, 10.0)),
        reuse=rng.random() < 0.25,
    )
    return replace(base, faults=_faults(rng, base, ("lifetime", "outage", "kill amid"), 6))


def _foreign(rng: random.Random, base: Scenario) -> Scenario:
    """Somebody else writes where this token is published."""
    base = replace(base, tokens=4, replicas=rng.randint(1, 2), seconds=6 * DAY)
    return replace(base, faults=_faults(rng, base, ("deface", "kill"), 10))


def _deaths(rng: random.Random, base: Scenario) -> Scenario:
    """Accounts are logged out, and the API that tells so fails."""
    every = rng.choice((30.0, 60.0, 300.0))
    base = replace(base, tokens=4, replicas=rng.randint(1, 3), seconds=2 * DAY, verify=True, verify_every=every)
    return replace(base, faults=_faults(rng, base, ("log-out", "log-out", "api", "outage", "kill amid"), 20))


PROFILES: dict[str, Callable[[random.Random, Scenario], Scenario]] = {
    "quiet": _quiet,
    "steady": _steady,
    "stormy": _stormy,
    "late": _late,
    "race": _race,
    "locks": _locks,
    "clocks": _clocks,
    "lifetimes": _lifetimes,
    "foreign": _foreign,
    "deaths": _deaths,
}


def _faults(rng: random.Random, base: Scenario, kinds: tuple[str, ...], count: int) -> tuple[Fault, ...]:
    """So many faults, spread over the run."""
    faults = []
    for number in range(count):
        at = base.seconds * (number + rng.random()) / count
        faults.append(_fault(rng, base, rng.choice(kinds), at))
    return tuple(faults)


def _fault(rng: random.Random, base: Scenario, kind: str, at: float) -> Fault:
    """One fault of a kind: what hits a token or a replica hits one of them."""
    token, replica = rng.randrange(base.tokens), rng.randrange(base.replicas)
    drawn_fault = _DRAWN[kind](rng, base)
    if kind == "kill amid":
        return replace(drawn_fault, at=at, target=replica, how=f"t{token}")
    of_token = kind in {"until expiry", "password", "deface", "reload", "log-out"}
    return replace(drawn_fault, at=at, target=token if of_token else replica)


def _outage(rng: random.Random, base: Scenario) -> Fault:
    how = rng.choice(("refuse", "503", "500", "429", "hang"))
    return Fault(
        "outage", 0.0, _while(rng, base), how=how, value=rng.choice((0.0, 5.0, 60.0, 600.0)) if how == "429" else 0.0
    )


def _password(rng: random.Random, base: Scenario) -> Fault:
    # without cautious attempts only an operator helps a credential that was refused and is right by now
    how = rng.choice(("server first", "file first")) if base.retry_rejected else "server first"
    return Fault("password", 0.0, rng.choice((rng.uniform(0, 600.0), rng.uniform(0, 4 * HOUR))), how=how)


def _while(rng: random.Random, base: Scenario) -> float:
    """Seconds, minutes, or a good part of a life."""
    span = rng.choice((rng.uniform(1, 60), rng.uniform(60, 1800), rng.uniform(0.2, 1.0) * base.lifetime))
    return min(span, 4 * HOUR)


_DRAWN: dict[str, Callable[[random.Random, Scenario], Fault]] = {
    "outage": _outage,
    "until expiry": lambda rng, _: Fault("until expiry", 0.0, 0.0, how=rng.choice(("refuse", "503", "500", "hang"))),
    "sink": lambda rng, base: Fault(
        "sink", 0.0, min(_while(rng, base), 1200.0), how=rng.choice(("vault", "vault hangs", "disk"))
    ),
    "kill": lambda rng, base: Fault("kill", 0.0, rng.choice((0.0, rng.uniform(0, 60), _while(rng, base)))),
    "freeze": lambda rng, base: Fault("freeze", 0.0, rng.choice((0.0, rng.uniform(0, 60), _while(rng, base)))),
    "kill amid": lambda rng, _: Fault("kill amid", 0.0, rng.uniform(0, 30), value=rng.uniform(0, 1.5)),
    "crash loop": lambda rng, _: Fault("crash loop", 0.0, rng.uniform(5, 60), value=rng.choice((0.3, 0.7, 1.5, 5.0))),
    "password": _password,
    "log-out": lambda rng, _: Fault("log-out", 0.0, 0.0, how=rng.choice(("", "amid")), value=rng.uniform(0.0, 0.6)),
    "api": lambda rng, base: Fault("api", 0.0, _while(rng, base), how=rng.choice(("refuses", "503", "500", "hang"))),
    "step": lambda rng, _: Fault("step", 0.0, 0.0, value=rng.choice((-3600.0, 3600.0, rng.uniform(-300, 300)))),
    "lifetime": lambda rng, _: Fault("lifetime", 0.0, 2 * HOUR, value=rng.choice((5.0, 20.0, 60.0, 600.0, HOUR))),
    "reload": lambda rng, base: Fault(
        "reload", 0.0, _while(rng, base), how=rng.choice(("token leaves", "endpoint changes"))
    ),
    "deface": lambda rng, _: Fault(
        "deface", 0.0, rng.uniform(60, 3 * HOUR), how=rng.choice(("text", "another account", "gone"))
    ),
}


@cache
def _config(tokens: int, rotation: tuple[tuple[str, object], ...], every: float | None, file: bool) -> Config:
    entries = []
    for number in range(tokens):
        publish: list[dict[str, object]] = [{"to": "vault", "mount": "secret", "path": f"aca/t{number}"}]
        if file:
            publish.append({"to": "file", "path": f"/run/aca/t{number}.json"})
        entry: dict[str, object] = {
            "name": f"t{number}",
            "authority": "authority-1",
            "username": f"svc-{number}",
            "password": {"env": f"PASSWORD_{number}"},
            "client_id": "client-1",
            "client_secret": {"env": "CLIENT_SECRET"},
            "publish": publish,
        }
        if every is not None:
            entry["verify"] = {"path": "/api/me", "every": f"{every:.0f}s"}
        entries.append(entry)
    rotating = {name: f"{round(it * 1000)}ms" if name in _DURATIONS else it for name, it in rotation}  # type: ignore[operator]
    document = {
        "acaengine": {"main": {"url": "https://aca.example.com", "timeout": f"{TIMEOUT:.0f}s"}},
        "vault": {
            "main": {
                "address": "https://vault.example.com:8200",
                "timeout": f"{VAULT_TIMEOUT:.0f}s",
                "auth": {"method": "token", "token": {"env": "VAULT_TOKEN"}},
            }
        },
        "rotation": rotating,
        "tokens": entries,
    }
    return parse([("config.toml", document)])


_DURATIONS = frozenset({"min_interval", "retry_rejected", "assumed_lifetime"})


@cache
def _accounts(tokens: int) -> Mapping[str, str]:
    return {
        f"t{number}": Account("aca.example.com", "authority-1", f"svc-{number}", "client-1").fingerprint
        for number in range(tokens)
    }
