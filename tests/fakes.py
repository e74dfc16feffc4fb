"""What stands in for the world in unit tests: behind the Protocols of rotator.py, and held to the contract suite."""

from __future__ import annotations

import math
import random
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from aca_tokend.core.config import Config, EnvReference
from aca_tokend.core.errors import GrantError, HookError, LookError, PublishError, SecretError, contained
from aca_tokend.core.grant import Credentials, Grant
from aca_tokend.core.guard import SeenRecord
from aca_tokend.core.outcome import Component, Event, Reason
from aca_tokend.core.secret import Secret
from aca_tokend.core.steps import BUSY, make
from aca_tokend.core.token import Document, Seen
from aca_tokend.event_log import EventLog
from aca_tokend.rotation.managed import ClockStepped, Late, ManagedToken, VaultBack, Wiring, Woken
from aca_tokend.rotation.reconfigure import begin
from aca_tokend.rotation.rotator import Rotator
from aca_tokend.rotation.shared import Shared

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence

    from aca_tokend.core.breaker import Wake
    from aca_tokend.core.config import AnyPublish, Reference, TokenConfig
    from aca_tokend.core.ports import Sink
    from aca_tokend.core.steps import Call
    from aca_tokend.rotation.facts import Facts
    from aca_tokend.rotation.hook_runner import HookState

T = TypeVar("T")
START = 1_800_000_000.0


class FakeClock:
    """Both clocks, moved by hand; `step` moves wall time alone."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.offset = START - self.now

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now + self.offset

    def advance(self, seconds: float) -> None:
        self.now += seconds

    def step(self, seconds: float) -> None:
        self.offset += seconds


def drive(coroutine: Coroutine[Any, Any, T], hangs: Callable[[Call[Any]], bool] = lambda _call: False) -> T:
    """Runs an attempt in this thread, each call in its turn, without those that hang."""
    results: Sequence[Any] | None = None
    while True:
        try:
            calls = coroutine.send(results)
        except StopIteration as done:
            value: T = done.value
            return value
        results = [BUSY if calls.patience < math.inf and hangs(call) else make(call) for call in calls.calls]


def log_bug(page: str, error: BaseException) -> None:
    """Logs a bug in a page, as the daemon does."""
    EventLog().observe(contained(Component.PAGE, page, error)[1])


@dataclass
class MemorySink:
    """A sink in memory: one place that several daemons may share through `place`."""

    name: str = "vault:secret/aca/bookings"
    kind: str = "vault"
    pool: str = "vault.main"
    replace_foreign: bool = False
    place: list[Any] = field(default_factory=lambda: [0, None])  # version, content
    look_errors: deque[Reason] = field(default_factory=deque)
    publish_errors: deque[Reason] = field(default_factory=deque)
    before_publish: Callable[[], None] | None = None
    retry_after_seconds: float | None = None
    outdated: bool = False  # what it holds is in another form than it would be written in now
    looks: int = 0
    writes: int = 0

    records: dict[str, tuple[int, Any]] = field(default_factory=dict)
    record_errors: deque[Reason] = field(default_factory=deque)
    record_requests: int = 0

    def read_record(self, name: str) -> SeenRecord:
        self.record_requests += 1
        if self.record_errors:
            raise LookError(self.record_errors.popleft(), f"{self.name}.{name}")
        version, fields = self.records.get(name, (0, None))
        return SeenRecord(fields, version)

    def write_record(self, name: str, fields: Mapping[str, object], stamp: object) -> object:
        self.record_requests += 1
        if self.record_errors:
            raise PublishError(self.record_errors.popleft(), f"{self.name}.{name}")
        if not isinstance(stamp, int):  # as the real ones refuse a stamp of another kind of sink
            raise TypeError(stamp)
        version = self.records.get(name, (0, None))[0]
        if stamp != version:
            raise PublishError(Reason.CONFLICT, f"{self.name}.{name}: changed meanwhile")
        self.records[name] = (version + 1, dict(fields))
        return version + 1

    @property
    def content(self) -> Any:  # noqa: ANN401 -- a document or anything foreign
        return self.place[1]

    def put(self, content: object) -> None:
        """Somebody else writes."""
        self.place[:] = [self.place[0] + 1, content]

    def look(self) -> Seen:
        self.looks += 1
        if self.look_errors:
            reason = self.look_errors.popleft()
            raise LookError(reason, f"{self.name}: {reason}")
        version, content = self.place
        if content is None or isinstance(content, Document):
            return Seen(content, version, outdated=self.outdated and content is not None)
        return Seen(None, version, foreign="access_token is missing")

    def publish(self, document: Document, seen: Seen) -> Seen:
        if self.before_publish:
            self.before_publish()
        if self.publish_errors:
            reason = self.publish_errors.popleft()
            raise PublishError(reason, f"{self.name}: {reason}", retry_after_seconds=self.retry_after_seconds)
        if seen.stamp != self.place[0]:
            raise PublishError(Reason.CONFLICT, f"{self.name}: changed meanwhile")
        self.writes += 1
        self.outdated = False
        self.put(document)
        return Seen(document, self.place[0])


@dataclass
class FakeHook:
    """What is run after a write; it fails as it is told to."""

    label: str = "reload"
    patience: float = 30.0
    errors: deque[Reason] = field(default_factory=deque)
    before_answer: Callable[[], None] | None = None
    runs: int = 0
    secrets: list[Secret] = field(default_factory=list)
    closed: bool = False

    def run(self, secrets: Iterable[Secret]) -> str:
        self.runs += 1
        self.secrets = list(secrets)
        if self.before_answer:
            self.before_answer()
        if self.errors:
            reason = self.errors.popleft()
            error = HookError(reason, f"command {self.label}: {reason}")
            error.output = "what it said"
            raise error
        return "done"

    def close(self) -> None:
        self.closed = True


@dataclass
class ScriptedEndpoint:
    """An endpoint that answers what it is told to; a fresh token of `lifetime` seconds by default."""

    clock: FakeClock
    name: str = "main"
    host: str = "aca.example.com"
    suffix: str = ""  # tells the tokens of one replica from another's
    lifetime: float | None = 7200.0
    latency: float = 0.0
    answers: deque[GrantError] = field(default_factory=deque)
    broken: GrantError | None = None
    verify_error: Any = None
    verify_errors_of: set[Secret] | None = None  # None: all tokens
    accepts_first_use: bool = False
    used: set[Secret] = field(default_factory=set)
    reuse: bool = False
    reusable: tuple[Secret, float] | None = None
    before_answer: Callable[[], None] | None = None
    asked: list[Credentials] = field(default_factory=list)
    verified: int = 0

    def grant(self, credentials: Credentials) -> Grant:
        self.asked.append(credentials)
        self.clock.advance(self.latency)
        if self.before_answer:
            self.before_answer()
        if self.broken:
            raise self.broken
        if self.answers:
            raise self.answers.popleft()
        token, lifetime = Secret(f"token-{len(self.asked)}{self.suffix}"), self.lifetime
        if self.reuse and lifetime is not None:
            if self.reusable is None or self.reusable[1] <= self.clock.now:
                self.reusable = token, self.clock.now + lifetime
            token, lifetime = self.reusable[0], float(round(self.reusable[1] - self.clock.now))
            if lifetime <= 0:
                raise GrantError(Reason.INVALID_EXPIRES_IN, "expires_in is 0")
        return Grant(
            access_token=token,
            expires_in=None if lifetime is None else int(lifetime),
            lifetime_seconds=lifetime,
            scope=credentials.scope,
            status=200,
            request_id="request-1",
            skew_seconds=0.0,
        )

    def verify(self, path: str, access_token: Secret) -> None:
        del path
        self.verified += 1
        first_use = access_token not in self.used
        self.used.add(access_token)
        if self.verify_errors_of is not None and access_token not in self.verify_errors_of:
            return
        if self.verify_error and not (first_use and self.accepts_first_use):
            raise self.verify_error


@dataclass
class FakeSecrets:
    """Secrets by the name in `{ env = … }`."""

    values: dict[str, str]

    def pool(self, reference: Reference) -> str | None:
        del reference
        return None

    def resolve_all(self, references: Iterable[Reference]) -> dict[Reference, Secret]:
        """The secrets as they are now. Raises SecretError."""
        return {reference: self.resolve(reference) for reference in references}

    def resolve(self, reference: Reference) -> Secret:
        assert isinstance(reference, EnvReference)
        if reference.env not in self.values:
            raise SecretError(Reason.SECRET_MISSING, f"{reference} is not set")
        return Secret(self.values[reference.env])


def token_config(**rotation: object) -> TokenConfig:
    """One token with everything by reference, as the configuration would have it."""
    return example(**rotation).tokens[0]


def example(**rotation: object) -> Config:
    """The configuration of that token."""
    from aca_tokend.core.config import parse

    document: dict[str, object] = {
        "acaengine": {"main": {"url": "https://aca.example.com"}},
        "vault": {
            "main": {
                "address": "https://vault.example.com:8200",
                "auth": {"method": "token", "token": {"env": "VAULT_TOKEN"}},
            }
        },
        "tokens": [
            {
                "name": "bookings",
                "authority": "authority-1",
                "username": "svc-bookings",
                "password": {"env": "PASSWORD"},
                "client_id": "client-1",
                "client_secret": {"env": "CLIENT_SECRET"},
                "scope": "public",
                "rotation": rotation,
                "publish": [{"to": "vault", "mount": "secret", "path": "aca/bookings"}],
            }
        ],
    }
    return parse([("config.toml", document)])


def never_late(token: ManagedToken, number: int, result: object) -> None:
    """In these tests no call hangs."""
    raise AssertionError(token.name, number, result)


def wired(
    config: TokenConfig,
    endpoint: ScriptedEndpoint,
    sinks: Sequence[Sink],
    shared: Shared,
    hooks: Sequence[HookState | None] = (),
) -> Wiring:
    """What a token is made of, as the daemon puts it together."""
    return Wiring(
        config=config,
        endpoint=endpoint,
        sinks=tuple(sinks),
        hooks=tuple(hooks) or (None,) * len(sinks),
        gate=shared.gate(endpoint.name, 10.0, config.rotation.backoff.cap, 8),
        client=shared.client_of(config),
        shared=shared,
        rules=shared.rules(config, 10.0),
    )


@dataclass
class Bench:
    """One token with a rotator of its own on a clock moved by hand."""

    clock: FakeClock = field(default_factory=FakeClock)
    sinks: list[MemorySink] = field(default_factory=lambda: [MemorySink()])
    config: TokenConfig = field(default_factory=token_config)
    draw: float = 0.0
    suffix: str = ""
    events: list[Event] = field(default_factory=list)
    secrets: FakeSecrets = field(default_factory=lambda: FakeSecrets({"PASSWORD": "p", "CLIENT_SECRET": "s"}))
    endpoint: ScriptedEndpoint = field(init=False)
    token: ManagedToken = field(init=False)
    rotator: Rotator = field(init=False)
    shared: Shared = field(init=False)
    next_at: float = 0.0
    woken: list[Wake] = field(default_factory=list)  # hooks that were put on schedule
    hooks: list[HookState | None] = field(default_factory=list)
    hanging: str = ""  # the pool in which calls hang that an attempt need not wait for
    hung: list[Call[Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.endpoint = ScriptedEndpoint(self.clock, suffix=self.suffix)
        self.restart()

    def restart(self) -> None:
        """A new process: nothing is remembered but what the sinks hold."""
        self.shared = Shared(self.clock.now)
        rng = random.Random(7)  # noqa: S311 -- a test
        self.rotator = Rotator(self.clock, self.secrets, rng, self.events.append, self._wake, self._late)
        config = self.config.model_copy(update={"publish": tuple(self._places())})
        wiring = wired(config, self.endpoint, self.sinks, self.shared, self.hooks)
        self.token = ManagedToken(wiring, begin(wiring, self.draw))

    def _places(self) -> Iterable[AnyPublish]:
        """One for each sink, after the example of the one that is configured."""
        for number, sink in enumerate(self.sinks):
            example = self.config.publish[min(number, len(self.config.publish) - 1)]
            path = example.path if number < len(self.config.publish) else f"more/{number}"
            yield example.model_copy(update={"path": path, "replace_foreign": sink.replace_foreign})

    @property
    def facts(self) -> Facts:
        """What is known of the token."""
        return self.token.facts

    @property
    def document(self) -> Document | None:
        """The token in use."""
        return self.facts.current.document if self.facts.current else None

    @property
    def failures(self) -> int:
        """How often running no token could be had."""
        return self.facts.trouble.count if self.facts.trouble else 0

    def step_clock(self, seconds: float) -> None:
        """The wall clock is set, and the token is told."""
        self.clock.step(seconds)
        self.token.inbox.append(ClockStepped())

    def vault_is_back(self) -> None:
        """A Vault that could not be logged in to can be."""
        self.token.inbox.append(VaultBack())

    def _late(self, token: ManagedToken, number: int, result: object) -> None:
        token.inbox.append(Late(number, result))

    def _wake(self, wake: Wake) -> None:
        if wake.token == self.token.name:
            self.token.inbox.append(Woken(wake.at))
        else:
            self.woken.append(wake)

    def attempt(self) -> float:
        """One attempt now; returns in how many seconds the next is due."""
        self.next_at = drive(self.rotator.attempt(self.token), self._hangs)
        return self.next_at - self.clock.now

    def _hangs(self, call: Call[Any]) -> bool:
        if call.pool == self.hanging:
            self.hung.append(call)
        return call.pool == self.hanging

    def answer_late(self) -> None:
        """What hung so far comes to its end, and its answers to the token."""
        self.hanging, hung, self.hung = "", self.hung, []
        for call in hung:
            assert call.late is not None
            call.late(make(call))

    def run_for(self, seconds: float) -> None:
        """Makes every attempt that falls due within `seconds`."""
        end = self.clock.now + seconds
        while self.next_at <= end:
            self.clock.now = max(self.next_at, self.clock.now)
            self.attempt()
        self.clock.now = end

    def told(self, kind: type[T]) -> list[T]:
        """The events of one kind so far."""
        return [event for event in self.events if isinstance(event, kind)]


@dataclass
class Crowd:
    """Many tokens of one client at one endpoint, in one process, each with a sink of its own."""

    count: int
    clock: FakeClock = field(default_factory=FakeClock)
    events: list[Event] = field(default_factory=list)
    secrets: FakeSecrets = field(default_factory=lambda: FakeSecrets({"PASSWORD": "p", "CLIENT_SECRET": "s"}))
    endpoint: ScriptedEndpoint = field(init=False)
    sinks: list[MemorySink] = field(default_factory=list)
    seed: int = 7
    users: int = 0  # so many share the tokens; 0: each token has one of its own
    tokens: dict[str, ManagedToken] = field(init=False)
    due: dict[str, float] = field(init=False)
    rotator: Rotator = field(init=False)

    def __post_init__(self) -> None:
        self.endpoint = ScriptedEndpoint(self.clock)
        self.sinks = self.sinks or [MemorySink(name=f"vault:secret/{number}") for number in range(self.count)]
        self.restart()

    def restart(self) -> None:
        """A new process."""
        rng, shared = random.Random(self.seed), Shared(self.clock.now)  # noqa: S311 -- a test
        self.rotator = Rotator(self.clock, self.secrets, rng, self.events.append, self.wake, never_late)
        config = token_config(retry_rejected="0s")
        self.tokens = {}
        for number, sink in enumerate(self.sinks):
            user = f"svc-{number % self.users if self.users else number}"
            named = config.model_copy(update={"name": f"t{number}", "username": user})
            wiring = wired(named, self.endpoint, [sink], shared)
            self.tokens[named.name] = ManagedToken(wiring, begin(wiring, rng.random()))
        self.due = dict.fromkeys(self.tokens, self.clock.now)

    def wake(self, wake: Wake) -> None:
        """Lets a token go on."""
        self.tokens[wake.token].inbox.append(Woken(wake.at))
        self.due[wake.token] = min(self.due[wake.token], wake.at)

    def run_for(self, seconds: float) -> None:
        """Makes every attempt that falls due within `seconds`, one after the other."""
        self.run_together([self], seconds)

    @staticmethod
    def run_together(crowds: Sequence[Crowd], seconds: float) -> None:
        """The same for several processes on one clock."""
        clock = crowds[0].clock
        end = clock.now + seconds
        while True:
            crowd = min(crowds, key=lambda it: it.next_due)
            if crowd.next_due > end:
                break
            clock.now = max(clock.now, crowd.next_due)
            crowd.attempt()
        clock.now = end

    @property
    def next_due(self) -> float:
        """When its next attempt falls due."""
        return min(self.due.values())

    def attempt(self) -> None:
        """Makes the attempt that is due next."""
        name = min(self.due, key=self.due.__getitem__)
        self.due[name] = float("inf")
        next_at = drive(self.rotator.attempt(self.tokens[name]))
        self.due[name] = min(self.due[name], next_at)


def at(wall: float) -> datetime:
    """A wall time as readers see it."""
    return datetime.fromtimestamp(wall, UTC)
