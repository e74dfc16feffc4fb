"""What is known of each token: written by its own attempts alone, one at a time, so without a lock.

A reload writes it too, while the token is off the schedule and none of its attempts is under way.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aca_tokend.admission import Client, Gate
    from aca_tokend.core.config import BackoffConfig, TokenConfig
    from aca_tokend.core.guard import Rules
    from aca_tokend.core.outcome import Event, Failure
    from aca_tokend.core.policy import Life
    from aca_tokend.core.ports import Hook, Sink, TokenEndpoint
    from aca_tokend.core.secret import Secret
    from aca_tokend.core.token import Document, Seen
    from aca_tokend.records import Ledger


@dataclass(frozen=True, slots=True)
class Written:
    """A sink that holds a token which its hook was not run for yet."""

    token: str
    sink: str


@dataclass(slots=True, eq=False)
class HookState:
    """What is known of one hook, shared by all sinks that have the same: one run is for everything written before it.

    Its own attempts write it, one at a time; the attempts of tokens only add to `asked` and `known`, as `ask` does.

    Attributes:
        name: of its pool, and on the schedule.
        tokens: the tokens that have this hook by the configuration.
        asked: what was written and not taken up yet.
        waiting: what was taken up and had no run that succeeded.
        known: the tokens that its output may show: those that its sinks hold, and held before.
        not_before: no run begins sooner, in monotonic seconds.
        last: the daemon stops, so a run begins at once, and none follows one that failed.
        failures: how many runs failed since the last success, and `failing` for which tokens the last of them.
        failure: of the last of them; None where it succeeded.
    """

    name: str
    hook: Hook
    backoff: BackoffConfig
    tokens: frozenset[str] = frozenset()
    asked: deque[Written] = field(default_factory=deque)
    waiting: dict[Written, None] = field(default_factory=dict)
    known: dict[Written, tuple[Secret, ...]] = field(default_factory=dict)
    not_before: float = 0.0
    last: bool = False
    failures: int = 0
    failing: frozenset[str] = frozenset()
    failure: Failure | None = None

    def ask(self, written: Written, secrets: tuple[Secret, ...]) -> None:
        """Asks for a run that begins after now. Called by attempts of tokens, from any thread."""
        self.known[written] = secrets
        self.asked.append(written)

    def owes(self, written: Written) -> bool:
        """Whether no run for it may have succeeded yet."""
        return bool(self.asked) or written in self.waiting


# The stamp of a sink that we have not written to: equal to no other.
NOTHING = object()


@dataclass(slots=True)
class SinkState:
    """What is known of one sink of one token."""

    sink: Sink
    seen: Seen | None = None  # None: not read yet, or the last look failed
    seen_at: float = 0.0
    published: Document | None = None  # the token of ours it holds
    failure: Failure | None = None
    told: Failure | None = None  # the last failure that was told of, until a success
    appeared: tuple[int, float] | None = None  # the hash of the document last read, and when that was first seen
    written: object = NOTHING  # the stamp of what we wrote there ourselves
    hook: HookState | None = None
    hooked: Document | None = None  # what the hook was last asked to run for


@dataclass(slots=True)
class TokenState:
    """What is known of one token. Written by its own attempts; others may read single fields at any time.

    All times are monotonic seconds. `draw` is this token's jitter, drawn once.

    Attributes:
        gate: the breaker of its endpoint, shared by all tokens of it.
        client: the application it is granted to, shared by all tokens of it.
        ledger: its attempt record.
        rotate_at: when the next grant is due.
        publish_at: when the failed sinks are tried again; None where none failed.
        canary_at: when the token in use is tried again; None where that is not configured.
        wake_at: a moment set by another token's attempt, at which this one may go on after it had to wait.
        account: the fingerprint of whose token it is.
        granted: the last token that was granted to us, and when we asked for it.
        candidate: a granted token that could not be tried yet, with its life.
        rotating_since: when the rotation began whose token has reached no sink yet.
        polled_at: when the attempt record was last read while suspended.
        deaths: how many tokens running were found dead before their time; `dead`: the one in use is.
        requested: whether its attempt under way has asked the endpoint.
        vault_is_back: a Vault of its that could not be logged in to can be: what failed is due now.
        waits_for: why its last attempt made no request; empty where it made one.
        settled: looked at, rotated or honestly failed at least once.
        told: what was last told of an attempt that ended, and when, in wall seconds.
    """

    config: TokenConfig
    endpoint: TokenEndpoint
    sinks: tuple[SinkState, ...]
    gate: Gate
    client: Client
    ledger: Ledger
    rules: Rules
    draw: float = 0.0
    rotate_at: float = 0.0
    poll_seconds: float = 3.0
    publish_at: float | None = None
    canary_at: float | None = None
    wake_at: float | None = None
    account: str = ""
    document: Document | None = None
    life: Life | None = None
    granted: Document | None = None
    granted_at: float = 0.0
    candidate: Minted | None = None
    rotating_since: float | None = None
    failure: Failure | None = None
    failures: int = 0
    publish_failures: int = 0
    suspended: Failure | None = None
    suspended_credential: str = ""
    cautious_at: float | None = None
    polled_at: float = 0.0
    deaths: int = 0
    dead: bool = False
    request_id: str | None = None
    noticed: frozenset[str] = frozenset()
    clock_stepped: bool = False
    vault_is_back: bool = False
    waits_for: str = ""
    requested: bool = False
    settled: bool = False
    told: tuple[float, Event] | None = None

    @property
    def name(self) -> str:
        """The configured name."""
        return self.config.name

    def due(self, now: float) -> bool:
        """Whether it is time for a grant, `now` in monotonic seconds. A wake counts only for who waits for a token."""
        woken = self.wake_at is not None and now >= self.wake_at
        return now >= self.rotate_at or (woken and self.needs_a_token(now))

    def needs_a_token(self, now: float) -> bool:
        """Whether it waits for a new token; one that adopted a replica's meanwhile does not."""
        return self.life is None or now >= self.life.rotate or self.dead

    @property
    def failing(self) -> bool:
        """Whether it waits to try again what failed, other than for a refusal of its own credential."""
        rejected = self.suspended is not None or (self.failure is not None and self.failure.rejected)
        return self.publish_at is not None or (self.failures > 0 and not rejected)

    @property
    def urgency(self) -> float:
        """When readers meet an expired token; now, where nothing is published yet."""
        life = self.life  # another thread may ask while its attempt clears it
        return life.expires if life else 0.0

    @property
    def published(self) -> bool:
        """Whether every sink holds the token that we hold."""
        return self.document is not None and all(sink.published == self.document for sink in self.sinks)


@dataclass(frozen=True, slots=True)
class Minted:
    """A token that was granted, and its life."""

    document: Document
    life: Life
    granted_at: float
    request_id: str | None
