"""One simulated run: what it is made of, and running it under the eyes of the checker."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

from aca_tokend.core.config import Config, parse
from aca_tokend.core.token import Account
from aca_tokend.simulation.replica import LATENCY_SPREAD, Cluster, Setup
from aca_tokend.simulation.world import World
from tests.simulation.checker import Checker
from tests.simulation.faults import strike
from tests.simulation.invariants import Violated

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aca_tokend.core.config import RotationConfig
    from tests.simulation.faults import Fault

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


@cache
def _config(tokens: int, rotation: tuple[tuple[str, object], ...], every: float | None, file: bool) -> Config:
    entries = []
    for number in range(tokens):
        publish: list[dict[str, object]] = [{"to": "vault", "mount": "secret", "path": f"aca/t{number}"}]
        if file:
            after = {"command": ["reload", f"{number % 2}"]}  # half of them share one, half the other
            publish.append({"to": "file", "path": f"/run/aca/t{number}.json", "after": after})
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
