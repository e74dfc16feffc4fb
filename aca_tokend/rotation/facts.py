"""What is known of one token, as frozen values that its own attempt replaces as a whole.

No moment to come back is stored: `decide` computes it from what happened. A value that belongs to an account carries
the account, so that with another account it is not there. Times are monotonic seconds unless they say wall. They are
named tuples, since a changed copy of one costs a sixth of what it costs of a dataclass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from aca_tokend.core.outcome import Failure, Reason
from aca_tokend.core.policy import URGENT_INTERVAL_SECONDS, Life, plan, retry_delay

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from aca_tokend.core.config import TokenConfig
    from aca_tokend.core.guard import Claim
    from aca_tokend.core.token import Document, Seen

# A token that was granted in the very second of a log-out is revoked with it: the next is asked for in another second.
NEXT_SECOND = 1.1


class Moment(NamedTuple):
    """The clocks when something is decided; `began` is when the attempt began that decides it."""

    now: float
    wall: float
    began: float

    def monotonic(self, wall: float) -> float:
        """The monotonic time of a wall time, both in seconds."""
        return self.now + (wall - self.wall)


@dataclass(frozen=True, slots=True)
class Trouble:
    """What failed last, and what the wait until the next try is computed from, as it was at the failure.

    Attributes:
        count: failures since the last success.
        jitter: this wait's jitter fraction.
        remaining: seconds for which readers still had a valid token.
        hastened_to: when a message asked for the next try; infinity where none did.
    """

    failure: Failure
    count: int
    at: float
    jitter: float
    remaining: float
    hastened_to: float = math.inf

    def again_at(self, config: TokenConfig) -> float:
        """When it is tried again."""
        rotation = config.rotation
        wait = retry_delay(self.count, self.remaining, rotation.backoff, self.jitter, self.failure.retry_after_seconds)
        wait = max(wait, URGENT_INTERVAL_SECONDS)  # not in the same attempt
        if self.failure.reason is Reason.TOKEN_REFUSED:  # each try is a grant, and no message says that one will work
            return self.at + max(wait, NEXT_SECOND if self.count == 1 else rotation.min_interval)
        return min(self.at + wait, self.hastened_to)


class Identity(NamedTuple):
    """Whose token is configured: the fingerprint of the account, and its parts as they were last resolved."""

    account: str
    username: str
    authority: str
    resolved_at: float


class Held(NamedTuple):
    """A token that was granted to us or adopted.

    Attributes:
        issued_at: counted from before its request was sent; of an adopted one, as well as wall times tell.
        lifetime: in seconds.
        asked_at: when we asked for it; None where it was adopted.
        scope: the configured scope it was asked with.
        checked_at: when it was last tried, whatever the outcome; None where it never was.
        works: it was tried and accepted.
        revoked_at: when it was found refused before its time; None where it was not.
        reused_at: when the server last handed it out again; None where it did not.
        unreported_since: when the rotation began whose token has reached no place yet; None where one has it.
        request_id: the server's, of the answer that granted it.
        adopted_at: when it was adopted.
    """

    document: Document
    issued_at: float
    lifetime: float
    asked_at: float | None
    scope: str
    checked_at: float | None = None
    works: bool = False
    revoked_at: float | None = None
    reused_at: float | None = None
    unreported_since: float | None = None
    request_id: str | None = None
    adopted_at: float = -math.inf

    @property
    def expires_at(self) -> float:
        """When it expires, in monotonic seconds."""
        return self.issued_at + self.lifetime

    def life(self, config: TokenConfig, jitter: float) -> Life:
        """Its issue, rotation point and expiry."""
        return plan(self.issued_at, self.lifetime, config.rotation, jitter)


class Asked(NamedTuple):
    """The last request that gave us a token: when, and for whose account. It outlives the token."""

    at: float
    account: str


class Waiting(NamedTuple):
    """Why no request was sent though a grant is due, and until when at the latest.

    Places that were last read before `look_before` are read meanwhile: a replica may have published a token.
    """

    why: str
    until: float
    look_before: float = -math.inf


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a token's own records told when they were last read or written.

    Attributes:
        refused_at: when the refusals were noted there, by the clock of whoever did; None where they were not.
        cleared: whether a record is there without an entry, as an operator leaves it.
    """

    refused_at: datetime | None = None
    cleared: bool = False


class Suspension(NamedTuple):
    """The server refused a credential as often as it may be: no request is sent with it.

    Attributes:
        account: whose it is.
        credential: its fingerprint; with the scope, if that was refused.
        refused_at: the refusal from which the wait for a cautious attempt counts.
        polled_at: when the credential was last resolved to see whether it changed.
        read_at: when the attempt records were last read to see whether they allow another attempt.
        recorded: what the token's own records told of the refusals.
    """

    failure: Failure
    account: str
    credential: str
    refused_at: float
    polled_at: float
    read_at: float
    recorded: Recorded

    def cautious_at(self, config: TokenConfig) -> float:
        """When one cautious attempt is due; infinity for never."""
        wait = config.rotation.retry_rejected
        return self.refused_at + wait if wait else math.inf


class Wrote(NamedTuple):
    """What we last wrote to a place: the mark of exactly that content, whose it was, and when, in wall seconds."""

    stamp: object
    account: str
    wall: float


class Busy(NamedTuple):
    """A call at a place that has not answered in time. Its answer comes as a message with this number."""

    number: int
    writing: Document | None  # what it writes; None where it looks


class Place(NamedTuple):
    """What is known of one place that a token is published to.

    Attributes:
        seen: what it held when last read or written; None where it was not read, or the last try failed.
        last: what it was last found to hold, or was given, whatever failed since: what its readers find.
        looked_at: when that read began, or its late answer was taken in, or the write was answered, or the try failed.
        first_seen: the document first found there by a look, by its hash, and when.
        wrote: what we last wrote there ourselves.
        hooked: the document that its hook was last asked to run for.
        failures: tries that failed since it last held what it should.
        conflicts: writes in a row that met another writer.
        trouble: why the last try failed.
        reported: the failure that was last reported, until the place holds what it should.
        busy: a call that hangs there.
    """

    seen: Seen | None = None
    looked_at: float = -math.inf
    first_seen: tuple[int, float] | None = None
    wrote: Wrote | None = None
    hooked: Document | None = None
    failures: int = 0
    conflicts: int = 0
    trouble: Trouble | None = None
    reported: Failure | None = None
    busy: Busy | None = None
    last: Seen | None = None

    @property
    def failure(self) -> Failure | None:
        """What is wrong there."""
        return self.trouble.failure if self.trouble else self.reported


class Facts(NamedTuple):
    """All that is known of one token.

    Attributes:
        jitter: this token's jitter fraction, drawn once.
        identity: None until the references of the account could be resolved.
        places: one for each `[[tokens.publish]]`, in their order.
        held: the token in use.
        pending: a token that was granted and could not be tried yet.
        asked: the last request that gave us a token.
        requested_at: when a request for a token was last sent, whatever the answer.
        trouble: what keeps us from a new token.
        waiting: what a due grant waits for.
        turn_at: when another's attempt lets this token go on; infinity where none did.
        revocations: tokens in a row that were found refused before their time.
        claim: an attempt that may stand in a record though no request of it is under way.
        noted: the credential of which the token's own records say that it is proven.
        noticed: what a person was told once.
        tried_once: an attempt has ended.
    """

    config: TokenConfig
    jitter: float
    identity: Identity | None
    places: tuple[Place, ...]
    held: Held | None = None
    pending: Held | None = None
    asked: Asked | None = None
    requested_at: float = -math.inf
    trouble: Trouble | None = None
    suspended: Suspension | None = None
    waiting: Waiting | None = None
    turn_at: float = math.inf
    revocations: int = 0
    claim: Claim | None = None
    noted: str = ""
    noticed: frozenset[str] = frozenset()
    tried_once: bool = False

    @property
    def name(self) -> str:
        """The configured name."""
        return self.config.name

    @property
    def current(self) -> Held | None:
        """The token in use, if it is the configured account's."""
        held, identity = self.held, self.identity
        return held if held and identity and held.document.account == identity.account else None

    @property
    def suspension(self) -> Suspension | None:
        """Why no request is sent, if it is the configured account's credential that was refused."""
        suspended, identity = self.suspended, self.identity
        return suspended if suspended and (identity is None or suspended.account == identity.account) else None

    @property
    def life(self) -> Life | None:
        """Issue, rotation point and expiry of the token in use."""
        held = self.current
        return held.life(self.config, self.jitter) if held else None

    @property
    def revoked(self) -> bool:
        """Whether the token in use was found refused before its time."""
        held = self.current
        return held is not None and held.revoked_at is not None

    @property
    def waits_for(self) -> str:
        """Why no request was sent though a grant is due; empty where nothing is waited for."""
        return self.waiting.why if self.waiting else ""

    @property
    def everywhere(self) -> bool:
        """Whether every place holds the token in use."""
        held = self.current
        if held is None:
            return False
        documents = (place.seen.document if place.seen else None for place in self.places)
        return all(it is not None and it.access_token == held.document.access_token for it in documents)

    @property
    def undelivered(self) -> bool:
        """Whether a token was granted that has reached no place."""
        return self.held is not None and self.held.unreported_since is not None

    @property
    def expires_at(self) -> float:
        """When readers meet an expired token, as far as we hold it; 0 where we hold none."""
        held = self.current
        return held.expires_at if held else 0.0

    def with_place(self, number: int, **changed: Any) -> Facts:  # noqa: ANN401 -- fields of a place, by name
        """The same with one place changed."""
        return self.with_places({number: self.places[number]._replace(**changed)})

    def with_places(self, places: Mapping[int, Place]) -> Facts:
        """The same with some places replaced."""
        return self._replace(places=tuple(places.get(number, it) for number, it in enumerate(self.places)))
