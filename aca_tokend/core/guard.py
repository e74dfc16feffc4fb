"""The lockout guard: how many attempts a credential has left, over all restarts and replicas.

Pure. The attempt record is what all replicas know of the attempts with the credentials of one token; it is changed by
check-and-set alone. The invariant: `spent` is never less than the refused attempts, because an attempt with an unproven
credential is counted before its request is sent, and so is one that the process which proved it may make unclaimed.
That process may do so until its proof lapses, so an attempt counted for it is free again only after that moment.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import MAXYEAR, MINYEAR, UTC, datetime, timedelta
from typing import TYPE_CHECKING

from aca_tokend.core.outcome import REJECTED, Reason
from aca_tokend.core.token import NotADocumentError, rfc3339

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aca_tokend.core.config import RotationConfig
    from aca_tokend.core.token import Document

# A record remembers so many credentials, the latest: replicas may have different ones while a change is rolled out.
REMEMBERED = 8
# What a record is called beside the place of its token.
RECORD = "attempts"
# Of more attempts no record of ours tells: a number of any length could not be written again with one more.
MOST_SPENT = 2**31
# A proof is good for so many seconds at least, however short the token lives: a claim for each would cost more requests
# than the rotation itself, and just where those that are due are too many.
PROVEN_SECONDS = 60.0
# An attempt that was claimed is sent within so many seconds, or claimed anew; its lease is that longer than a request.
# At a slow endpoint it waits behind what is more urgent.
SEND_WITHIN_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Attempts:
    """What all replicas know of the attempts with one credential.

    Attributes:
        credential: its fingerprint, which tells it from another and gives nothing away.
        proven: whether the last attempt with it succeeded.
        spent: attempts that were refused, or were claimed and may have been, since it was last proven.
        reserved: whether one of them stands for an attempt that the process which proved the credential may make.
        reason: why the last was refused, None where none is known to have been.
        changed_at: when this was last written, in wall time; always later than what it replaced, whatever the clocks.
    """

    credential: str
    proven: bool
    spent: int
    reserved: bool
    reason: Reason | None
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """The attempts with each credential of one token, latest first, as they are written beside the token."""

    entries: tuple[Attempts, ...] = ()

    def of(self, credential: str) -> Attempts | None:
        """What is known of one credential."""
        return next((entry for entry in self.entries if entry.credential == credential), None)

    def put(self, attempts: Attempts) -> AttemptRecord:
        """With one entry replaced; the oldest is forgotten where there are too many."""
        others = [entry for entry in self.entries if entry.credential != attempts.credential]
        return AttemptRecord((attempts, *others)[:REMEMBERED])

    def fields(self) -> dict[str, object]:
        """The record as it is written."""
        return {
            entry.credential: {
                "proven": entry.proven,
                "spent": entry.spent,
                "reserved": entry.reserved,
                "reason": entry.reason or "",
                "changed_at": rfc3339(entry.changed_at),
            }
            for entry in self.entries
        }


@dataclass(frozen=True, slots=True)
class SeenRecord:
    """What a sink holds where a record belongs: None where there is nothing; `stamp` as in `Seen`."""

    fields: Mapping[str, object] | None
    stamp: object


@dataclass(frozen=True, slots=True)
class Rules:
    """How attempts are limited.

    Attributes:
        max_rejections: how many attempts an unproven credential has.
        retry_rejected_seconds: after how long one more is allowed; 0 for never.
        lease_seconds: how long a request may be under way: a claim older than that has no request any more.
    """

    max_rejections: int
    retry_rejected_seconds: float
    lease_seconds: float

    @classmethod
    def of(cls, rotation: RotationConfig, timeout: float) -> Rules:
        """The rules of a token whose endpoint has this timeout."""
        return cls(rotation.max_rejections, rotation.retry_rejected, timeout + SEND_WITHIN_SECONDS + 1.0)


@dataclass(frozen=True, slots=True)
class Claim:
    """An attempt that may be made once `attempts` is written in place of `previous`."""

    attempts: Attempts
    previous: Attempts | None


@dataclass(frozen=True, slots=True)
class Denied:
    """No attempt may be made now; `wait_seconds` until one may, None where only another credential helps.

    `claimed`: no refusal is known; a claim stands in the way that runs out.
    """

    reason: Reason | None
    wait_seconds: float | None
    claimed: bool = False


def proof_ends(held: Document | None) -> datetime:
    """Until when the process that was granted this token may ask for the next without a claim.

    Far past its rotation point, so that it claims only when it is late, and not at an endpoint that is merely slow; and
    some time before its expiry, so that the others, who hold the same document, can use what was counted for that
    process while readers still have a token. One that lives for less than `PROVEN_SECONDS` expires before that.
    """
    if held is None:
        return datetime.min.replace(tzinfo=UTC)
    late = held.refresh_after + (held.expires_at - held.refresh_after) * 0.75
    return max(late, held.issued_at + timedelta(seconds=PROVEN_SECONDS))


@dataclass(frozen=True, slots=True)
class Times:
    """When it is decided about an attempt.

    Attributes:
        now: in wall time.
        age_seconds: how old what is known is at least, whatever the clock of whoever wrote it.
        proven_until: when the proof of another process lapses.
    """

    now: datetime
    age_seconds: float
    proven_until: datetime


def claim(known: Attempts | None, credential: str, times: Times, rules: Rules) -> Claim | Denied:
    """Decides whether one more attempt may be made."""
    at = _after(known, times.now)
    if known is None:
        return Claim(Attempts(credential, False, 1, False, None, at), None)
    if known.proven:
        # One attempt of the process that proved it may be under way, was refused unseen, or is still to come.
        reserve = 1 if rules.max_rejections > 1 else 0
        return Claim(Attempts(credential, False, 1 + reserve, reserve > 0, None, at), known)
    if known.spent < rules.max_rejections:
        return Claim(replace(known, spent=known.spent + 1, changed_at=at), known)
    denied = _denied(known, times, rules)
    # What was reserved is used up with this: processes that go on dying in their attempts come to an end.
    return denied or Claim(replace(known, changed_at=at, reserved=False), known)


def _denied(known: Attempts, times: Times, rules: Rules) -> Denied | None:
    """Until when no attempt may be made where all are spent; None where one more may."""
    age = times.age_seconds
    if known.reason is None and (age < rules.lease_seconds or known.reserved):
        # The attempts are under way, or their processes died before they could say how it went.
        if known.reserved:
            age = min(age, (times.now - times.proven_until).total_seconds())
        wait = rules.lease_seconds - age
        return Denied(None, wait, claimed=True) if wait > 0.0 else None
    if not rules.retry_rejected_seconds:
        return Denied(known.reason, None)
    wait = rules.retry_rejected_seconds - age
    return Denied(known.reason, wait) if wait > 0.0 else None


def succeeded(known: Attempts | None, credential: str, now: datetime) -> Attempts | None:
    """What is known after the server accepted the credential; None where that was known already."""
    at = _after(known, now)
    return None if known is not None and known.proven else Attempts(credential, True, 0, False, None, at)


def refused(known: Attempts | None, credential: str, reason: Reason, now: datetime, *, claimed: bool) -> Attempts:
    """What is known after the server refused the credential. An attempt that was claimed is counted already."""
    at = _after(known, now)
    if known is None or known.proven:
        return Attempts(credential, False, 1, False, reason, at)
    return replace(known, spent=known.spent if claimed else known.spent + 1, reason=reason, changed_at=at)


def refused_elsewhere(
    known: Attempts | None, credential: str, refusals: int, reason: Reason | None, refused_at: datetime
) -> Attempts:
    """What is known where another token of the process was refused with the credential so often, at last then."""
    spent = max(refusals, known.spent) if known else refusals
    return Attempts(credential, False, spent, False, reason, _after(known, refused_at))


def given_back(known: Attempts | None, mine: Claim, now: datetime) -> Attempts | None:
    """What is known after a claimed attempt ended without a verdict: such an attempt never counts. None: no change."""
    if known == mine.attempts:
        return mine.previous or replace(known, spent=0, changed_at=_after(known, now))
    if known is None or known.spent <= mine.attempts.spent:
        return None  # it was cleared or proven meanwhile: mine is not counted in it, another's may be
    return replace(known, spent=known.spent - 1, changed_at=_after(known, now))


def _after(known: Attempts | None, now: datetime) -> datetime:
    """A time for what replaces an entry: places are compared by it, so a clock that is behind must not undo that."""
    return now if known is None else max(now, known.changed_at + timedelta(microseconds=1))


def exhausted(known: Attempts, rules: Rules) -> bool:
    """Whether no further attempt is left."""
    return not known.proven and known.spent >= rules.max_rejections


def parse_record(fields: Mapping[str, object]) -> AttemptRecord:
    """Reads back what `AttemptRecord.fields` wrote.

    Raises:
        NotADocumentError: it is something else; no attempt with an unproven credential can be allowed.
    """
    return AttemptRecord(tuple(_attempts(credential, entry) for credential, entry in fields.items()))


def _attempts(credential: str, entry: object) -> Attempts:
    match entry:
        case {
            "proven": bool() as proven,
            "spent": int() as spent,
            "reserved": bool() as reserved,
            "reason": str() as reason,
            "changed_at": str() as changed_at,
        } if 0 <= spent <= MOST_SPENT and (not reason or reason in REJECTED):
            try:
                moment = datetime.fromisoformat(changed_at).astimezone(UTC)
            except (ValueError, OverflowError):
                pass
            else:
                if MINYEAR < moment.year < MAXYEAR:  # there is room for a time before it, and for one after it
                    return Attempts(credential, proven, spent, reserved, Reason(reason) if reason else None, moment)
    message = "it is not an attempt record"
    raise NotADocumentError(message)
