"""Our own Vault token: when it is renewed, when we log in again, and when no log-in is made because one failed.

Pure: times are monotonic seconds and draws are numbers between 0 and 1, both given by the caller. The invariant: a
credential that can be locked out is refused at most twice while it stays the same, and then once an hour.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

from aca_tokend.core.config import BackoffConfig
from aca_tokend.core.policy import retry_delay

if TYPE_CHECKING:
    from aca_tokend.core.outcome import Reason

# Our token is renewed at this share of its life, up to this share of that earlier.
FRACTION = 2 / 3
JITTER = 0.1
# A renewal after which a token ends when it would have ended before has met the longest life that Vault allows. Ends
# are the same that differ by less than this share of the time between the two, or by what whole seconds make of it.
SAME_END_SHARE = 0.1
SAME_END_SECONDS = 1.5
# Nothing is done for a token more often than this, however short it lives.
SHORTEST_SECONDS = 0.5

# A credential that can be locked out is refused so often, and then once in this time.
MAX_REJECTIONS = 2
RETRY_REJECTED_SECONDS = 3600.0
# How often a refused credential is looked at, to see whether it changed.
POLL_SECONDS = 3.0
# A Vault that is back is to be used at once; one that refuses for another reason will go on to.
UNAVAILABLE_BACKOFF = BackoffConfig(initial=0.5, cap=2.0)
REFUSED_BACKOFF = BackoffConfig(initial=1.0, cap=60.0)
RENEWAL_BACKOFF = BackoffConfig(initial=1.0, cap=30.0)


@dataclass(frozen=True, slots=True)
class TokenLife:
    """How long our token lives, as Vault said when it was asked at `asked_at`. `ttl_seconds` None: for ever.

    `capped`: a renewal did not move its end, because that is the end of its longest life; the next one cannot help.
    """

    asked_at: float
    ttl_seconds: float | None
    renewable: bool
    capped: bool = False

    @property
    def expires_at(self) -> float:
        """When it expires, counted from before the request and so never too late; infinity for never."""
        return math.inf if self.ttl_seconds is None else self.asked_at + self.ttl_seconds

    def due_at(self, draw: float) -> float:
        """When it is to be renewed or replaced."""
        if self.ttl_seconds is None:
            return math.inf
        return self.asked_at + max(self.ttl_seconds * FRACTION * (1.0 - JITTER * draw), SHORTEST_SECONDS)

    def renewed(self, now: TokenLife) -> TokenLife:
        """The life after a renewal that gave `now`."""
        if self.ttl_seconds is None or now.ttl_seconds is None:
            return now
        same = max((now.asked_at - self.asked_at) * SAME_END_SHARE, SAME_END_SECONDS)
        return replace(now, capped=abs(now.expires_at - self.expires_at) < same)

    def retry_at(self, failures: int, now: float, draw: float) -> float:
        """When to try again after the `failures`-th renewal running got no answer; sooner as its end comes near."""
        return now + retry_delay(failures, self.expires_at - now, RENEWAL_BACKOFF, draw)

    def poll_at(self, now: float) -> float:
        """When to look again for another token, where this one can only be replaced by somebody else."""
        return now + max(POLL_SECONDS, (self.expires_at - now) * 0.1)


@dataclass(frozen=True, slots=True)
class OwnToken:
    """What Vault says of our token. `ttl_seconds` and `expires_at` (wall) are None for one that never expires."""

    ttl_seconds: float | None
    renewable: bool
    kind: Literal["service", "batch"]
    policies: tuple[str, ...]
    expires_at: float | None


class Verdict(StrEnum):
    """What a failed log-in says of its credential."""

    UNAVAILABLE = "unavailable"  # nothing: the same log-in may succeed at any moment
    REFUSED = "refused"  # it does not log us in, and asking again locks nobody out
    REJECTED = "rejected"  # it was refused itself, and asking again may lock it out


@dataclass(frozen=True, slots=True)
class HoldOff:
    """Log-ins failed, and until when none is made.

    Attributes:
        verdict: of the last one.
        credential: the fingerprint of what was sent last; empty where it could never be resolved.
        failures: how many failed running.
        rejections: how often this credential was rejected running.
        until: when the next one may be made though nothing changed.
    """

    verdict: Verdict
    credential: str
    failures: int
    rejections: int
    until: float

    @property
    def suspended(self) -> bool:
        """Whether it waits because this credential was rejected as often as it may be."""
        return self.verdict is Verdict.REJECTED and self.rejections >= MAX_REJECTIONS

    def look_at(self, now: float) -> float:
        """When to look whether a log-in may be made: also before `until`, where another credential would allow it."""
        return self.until if self.verdict is Verdict.UNAVAILABLE else min(self.until, now + POLL_SECONDS)


@dataclass(frozen=True, slots=True)
class Fault:
    """A log-in that failed. `credential` is empty where it could not be resolved.

    `retry_after_seconds` is what Vault asked for, None where it did not.
    """

    verdict: Verdict
    credential: str
    retry_after_seconds: float | None = None


def hold_off(before: HoldOff | None, fault: Fault, now: float, draw: float) -> HoldOff:
    """How long no log-in is made after one failed. `before` is what held before, None where the last one succeeded."""
    held = before or HoldOff(fault.verdict, fault.credential, 0, 0, now)
    failures = held.failures + 1
    if fault.credential not in {"", held.credential}:
        held = HoldOff(fault.verdict, fault.credential, failures, 0, now)
    rejections = held.rejections + (fault.verdict is Verdict.REJECTED)
    if fault.verdict is Verdict.REJECTED and rejections >= MAX_REJECTIONS:
        return HoldOff(fault.verdict, held.credential, failures, rejections, now + RETRY_REJECTED_SECONDS)
    backoff = UNAVAILABLE_BACKOFF if fault.verdict is Verdict.UNAVAILABLE else REFUSED_BACKOFF
    wish = None if fault.retry_after_seconds is None else min(fault.retry_after_seconds, REFUSED_BACKOFF.cap)
    delay = retry_delay(failures, 0.0, backoff, draw, wish)
    return HoldOff(fault.verdict, held.credential, failures, rejections, now + delay)


# What is told of our token. `expires_at` is in wall seconds, None for never; `keep_at` in monotonic ones: when the
# session wants to be called again to keep it.


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """Vault accepted a log-in. `recovered`: others failed before it."""

    vault: str
    method: str
    expires_at: float | None
    keep_at: float
    recovered: bool = False


@dataclass(frozen=True, slots=True)
class LoginFailed:
    """Vault refused a log-in or did not answer it.

    `suspended`: this credential was refused as often as it may be.
    """

    vault: str
    method: str
    reason: Reason
    message: str
    next_seconds: float
    keep_at: float
    suspended: bool = False


@dataclass(frozen=True, slots=True)
class Renewed:
    """Vault gave our token more life."""

    vault: str
    expires_at: float | None


@dataclass(frozen=True, slots=True)
class RenewalFailed:
    """Our token was not renewed, and lives on until it expires. Told once, until a renewal or a log-in succeeds."""

    vault: str
    reason: Reason
    message: str
    expires_at: float | None


LoginEvent = LoggedIn | LoginFailed | Renewed | RenewalFailed
