"""One simulated run: what it is made of, and running it under the eyes of the checker."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

from aca_tokend.core.config import Config, parse
from aca_tokend.core.errors import InternalError
from aca_tokend.core.guard import Rules
from aca_tokend.simulation.replica import LATENCY_SPREAD, Cluster, Setup
from aca_tokend.simulation.world import Unforeseen, World
from tests.simulation.checker import Checker
from tests.simulation.faults import strike
from tests.simulation.invariants import Violated
from tests.simulation.scene import CAP

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
    """One run. Times in seconds.

    Attributes:
        users: how many accounts the tokens share, 0 where each has its own; `clients`: how many applications.
        file: each token is published to a file with a hook too; `files`: and to so many without.
        files_first: files come before what is in Vault.
        by_reference: user names are references.
        engine: parts of the engine that are replaced, see Setup.
    """

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
    users: int = 0
    clients: int = 1
    file: bool = False
    files: int = 0
    files_first: bool = False
    by_reference: bool = False
    replace_foreign: bool = False
    latency: tuple[float, float, float] = (0.15, 0.02, 0.002)
    skews: tuple[float, ...] = ()
    reuse: bool = False
    faults: tuple[Fault, ...] = ()
    engine: Mapping[str, Any] = field(default_factory=dict)

    @property
    def token_days(self) -> float:
        """Tokens times days; replicas do not count."""
        return self.tokens * self.seconds / DAY

    @cached_property
    def config(self) -> Config:
        """The configuration of its daemons."""
        every = self.verify_every if self.verify else None
        shape = _Shape(self.file, self.files, self.files_first, self.by_reference, self.replace_foreign)
        return _config((self.tokens, self.users or self.tokens, self.clients), shape, self.rotation_table, every)

    def config_with(self, name: str, **changed: object) -> Config:
        """The same with one token changed."""
        tokens = (it.model_copy(update=changed) if it.name == name else it for it in self.config.tokens)
        return self.config.model_copy(update={"tokens": tuple(tokens)})

    def user(self, token: str) -> str:
        """What its account is called among the conditions."""
        return f"user {int(token[1:]) % (self.users or self.tokens)}"

    def client(self, token: str) -> str:
        """What its application is called among the conditions."""
        return f"client {int(token[1:]) % self.clients}"

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

    @property
    def quiet(self) -> bool:
        """Whether nothing goes wrong at all."""
        return not self.faults and not self.odd_clocks and not self.odd_lifetimes

    @cached_property
    def odd_clocks(self) -> bool:
        """Whether wall clocks differ or are stepped."""
        return bool(self.skews) or any(fault.kind in {"step", "clocks set"} for fault in self.faults)

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

    @cached_property
    def hangs(self) -> bool:
        """Whether anything that an attempt waits for does not answer for a while."""
        return any("hang" in fault.how for fault in self.faults)

    @cached_property
    def shortest_rotation(self) -> float:
        """How soon after a token the next is asked for, at the soonest."""
        values = [fault.value for fault in self.faults if fault.kind in {"lifetime", "lifetime of one"}]
        share = self.rotation.fraction * (1.0 - self.rotation.jitter)
        return max(min([self.lifetime, *values]) * share, self.min_interval)

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

    @cached_property
    def lease(self) -> float:
        """A claim that is older than this has no request under way."""
        return Rules.of(self.rotation, TIMEOUT).lease_seconds

    @property
    def calm_after(self) -> float:
        """After a disturbance everything is as ever within this time."""
        return 2 * 60.0 + 10 * (TIMEOUT + VAULT_TIMEOUT) + self.retry_rejected + self.longest_attempt

    @cached_property
    def settle(self) -> float:
        """After a disturbance what expired meanwhile is replaced within this time: a wait at the cap, and an attempt.

        An attempt under way may end in vain first, and a claim of a process that died run out.
        """
        return CAP + self.min_interval + 2 * self.longest_attempt + 3 * TIMEOUT + VAULT_TIMEOUT

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
        user = f"svc-{scenario.user(token.name).partition(' ')[2]}"
        if not isinstance(token.username, str):
            cluster.secrets.values[str(token.username)] = user
        server.users[token.authority, user] = str(token.password)
        server.clients[str(token.client_id)] = str(token.client_secret)
    checker.begin()
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
    except (Unforeseen, InternalError) as error:
        outcome.violated = Violated("outlives_surprises", f"the process ended: {error}, at {world.now:.3f}")
    outcome.trace = list(kept)
    outcome.ended_at = world.now
    return outcome


@dataclass(frozen=True)
class _Shape:
    """How each token is configured."""

    file: bool
    files: int
    files_first: bool
    by_reference: bool
    replace_foreign: bool


@cache
def _config(
    counts: tuple[int, int, int], shape: _Shape, rotation: tuple[tuple[str, object], ...], every: float | None
) -> Config:
    tokens, users, clients = counts
    entries = []
    for number in range(tokens):
        user, client = number % users, number % clients
        entry: dict[str, object] = {
            "name": f"t{number}",
            "authority": "authority-1",
            "username": {"file": f"/run/secrets/user-{user}"} if shape.by_reference else f"svc-{user}",
            "password": {"file": f"/run/secrets/password-{user}"},
            "client_id": f"client-{client}",
            "client_secret": {"file": f"/run/secrets/client-{client}"},
            "publish": _publish(number, shape),
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


def _publish(number: int, shape: _Shape) -> list[dict[str, object]]:
    vault = {"to": "vault", "mount": "secret", "path": f"aca/t{number}", "replace_foreign": shape.replace_foreign}
    files: list[dict[str, object]] = [
        {"to": "file", "path": f"/run/aca-{copy}/t{number}.json", "replace_foreign": shape.replace_foreign}
        for copy in range(shape.files)
    ]
    if shape.file:
        after = {"command": ["reload", f"{number % 2}"]}  # half of them share one, half the other
        files.insert(0, {"to": "file", "path": f"/run/aca/t{number}.json", "after": after})
    return [*files, vault] if shape.files_first else [vault, *files]


_DURATIONS = frozenset({"min_interval", "retry_rejected", "assumed_lifetime"})
