"""When to rotate and when to try again: the only place that decides about either.

Pure: times are monotonic seconds given by the caller, and every random draw is a number between 0 and 1 given by the
caller. The invariants: a rotation point lies at least `min_interval` after the grant, and no delay reaches past the end
of the life that is left while there is time for another attempt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from aca_tokend.core.config import BackoffConfig, RotationConfig

# A wait takes at most this share of the life that is left, so that attempts come closer together as expiry nears.
SHARE_OF_REMAINING = 0.25
# Attempts of one token are never closer than this, however near its expiry is.
URGENT_INTERVAL_SECONDS = 0.5
# A server that hands out its token again counts in whole seconds: a difference in expiry below the first figure is
# none, and a token that is used up is asked for again this little later than it expires.
SAME_EXPIRY_SECONDS = 1.5
AFTER_EXPIRY_SECONDS = 0.25
# A server may ask for a pause, but not for an expired token: one more attempt comes at this share of what is left.
SHARE_FOR_RETRY_AFTER = 0.75

# Two runs of one hook begin no closer than this: whatever is written meanwhile shares the later one.
HOOK_SPACING_SECONDS = 1.0


class Life(NamedTuple):
    """The life of one token in monotonic seconds: issued (before the request was sent), rotation point, expiry."""

    issued: float
    rotate: float
    expires: float

    @property
    def outage_tolerance(self) -> float:
        """How many seconds from the rotation point on the endpoint may be out before readers meet an expired token."""
        return self.expires - self.rotate


def plan(issued: float, lifetime: float, rotation: RotationConfig, draw: float) -> Life:
    """Sets the rotation point of a token.

    It is `fraction` of the lifetime after issue, up to the share `jitter` of that earlier (`draw` is this token's own
    number between 0 and 1, drawn once and kept), and never sooner than `min_interval` after issue.
    """
    delay = lifetime * rotation.fraction * (1.0 - rotation.jitter * draw)
    return Life(issued, issued + max(delay, rotation.min_interval), issued + lifetime)


def plan_reused(now: float, remaining: float, rotation: RotationConfig) -> float:
    """When to ask again after the server handed out the token that we hold, with `remaining` seconds of life.

    At the same fraction of what is left, not sooner than `min_interval`, and in any case as soon as it has expired: the
    server has a new one then.
    """
    delay = max(remaining * rotation.fraction, rotation.min_interval)
    return now + min(delay, remaining + AFTER_EXPIRY_SECONDS)


def revocation_delay(revocations: int, rotation: RotationConfig) -> float:
    """How long to wait before replacing a token that was revoked early, for the `revocations`-th time in a row.

    The first is replaced at once. If the new one is refused too, it may be the API that is broken: each further wait
    is twice as long, up to an hour.
    """
    return 0.0 if revocations <= 1 else min(rotation.min_interval * 2.0 ** min(revocations - 1, 30), 3600.0)


def retry_delay(
    failures: int, remaining: float, backoff: BackoffConfig, draw: float, retry_after: float | None = None
) -> float:
    """How many seconds to wait after the `failures`-th failure running (from 1).

    Exponential with full jitter (`draw` picks the share) up to `cap`. While life is left, a wait takes at most a
    quarter of it, so that attempts come closer together as expiry nears; after expiry they go on at the cap.
    `retry_after` lengthens the wait, but never beyond three quarters of the life that is left: a server's wish must not
    be the reason for a dead token.
    """
    ceiling = min(backoff.cap, backoff.initial * 2.0 ** min(failures - 1, 60))
    if remaining <= 0.0:
        delay = ceiling * (0.5 + 0.5 * draw)
        return max(delay, retry_after or 0.0)
    ceiling = min(ceiling, max(remaining * SHARE_OF_REMAINING, URGENT_INTERVAL_SECONDS))
    delay = max(ceiling * draw, min(URGENT_INTERVAL_SECONDS, ceiling))
    if retry_after is not None:
        delay = max(delay, min(retry_after, remaining * SHARE_FOR_RETRY_AFTER))
    return delay
