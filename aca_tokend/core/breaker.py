"""The endpoint breaker: when an endpoint fails for several tokens running, those due wait behind one probe.

Pure: times are monotonic seconds, draws are given, and the caller serialises the calls. The invariant: while the
breaker is open at most one probe is out, and whenever tokens wait, a probe is out or one of them was told when to go.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import nsmallest
from math import inf

from aca_tokend.core.policy import SHARE_FOR_RETRY_AFTER, SHARE_OF_REMAINING

# So many tokens that failed since the endpoint last did its work open the breaker; one alone may have itself to blame.
THRESHOLD = 3
# Probes start this far apart and drift apart up to the second figure: a recovery is noticed within that time.
PROBE_SECONDS = 1.0
PROBE_CAP_SECONDS = 4.0
PROBE_GROWTH = 1.5
# Nearer than this no two probes are, however urgent, nor a token's failure and its next request.
URGENT_PROBE_SECONDS = 0.5
# Besides the token whose turn it is, so many are woken, this far apart, in case its attempt takes long to come.
SUBSTITUTES = 2
SUBSTITUTE_SECONDS = 1.0
# On recovery the waiting are let go this far apart, most urgent first, the last of many within the second figure.
RELEASE_SPACING_SECONDS = 0.02
RELEASE_WITHIN_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Wake:
    """A token that may go on at a moment."""

    token: str
    at: float


@dataclass(frozen=True, slots=True)
class Outage:
    """So many tokens wait while the breaker is open, of which so many have `expired` or were never published.

    The next of the others expires in `expires_seconds`, infinity where there is none.
    """

    waiting: int
    expired: int
    expires_seconds: float


@dataclass(slots=True)
class Breaker:
    """The state of one endpoint.

    `probe_lost_seconds` is how long a probe may be out before another takes its place; probes are at most `probe_cap`
    apart.
    """

    probe_lost_seconds: float
    probe_cap: float = PROBE_CAP_SECONDS
    open: bool = False
    held_until: float = 0.0  # what the endpoint asked for by Retry-After
    probe_at: float = 0.0
    _interval: float = PROBE_SECONDS
    _probe: str | None = None
    _probe_since: float = 0.0
    _told: str | None = None  # whose turn it is to probe next
    _waiting: dict[str, float] = field(default_factory=dict)  # when each token that waits expires
    _failed: dict[str, int] = field(default_factory=dict)  # how often each failed since the endpoint last did its work
    _failed_at: dict[str, float] = field(default_factory=dict)  # and when it last did

    @property
    def probing(self) -> bool:
        """Whether one token asks for all."""
        return self._probe is not None

    @property
    def waiting(self) -> int:
        """How many tokens wait for the endpoint, or failed and are not answered since."""
        return len(self._waiting)

    def admit(self, token: str, expires: float, now: float, *, probe: bool = True) -> bool:
        """Whether a token's request may be sent now. One that may not will be woken.

        With `probe` set to False it only asks, and does not become the probe that others wait for.
        """
        if not self.open and now >= self.held_until:
            if probe:
                self._waiting.pop(token, None)  # its own answer is what it waits for now
            return True
        probe_is_out = self._probe is not None and now < self._probe_since + self.probe_lost_seconds
        if probe_is_out or now < self.probe_at:
            self._waiting[token] = expires
            if expires > now:  # it may be in a greater hurry than those who waited when the probe was set
                self.probe_at = min(self.probe_at, max(now + _hurry(expires - now), self._wish(expires - now, now)))
            return False
        if probe:
            self.open = True
            self._probe, self._probe_since, self._told = token, now, None
            self._waiting.pop(token, None)
        return True

    def turn_at(self, token: str) -> float:
        """When a token may probe though nobody wakes it: it was told before, or nobody was. Infinity where one is out.

        One that was told comes by this, since it may be woken sooner as the substitute of the last, and only then.
        """
        return inf if self._probe is not None or self._told not in {None, token} else self.probe_at

    def failed(self, token: str, expires: float, now: float, retry_after: float | None, draw: float) -> list[Wake]:
        """The endpoint is down. Returns which tokens probe it next, and when; none while the breaker is closed."""
        self._failed[token] = self._failed.get(token, 0) + 1
        self._failed_at[token] = now
        self._waiting[token] = expires
        if retry_after is None and len(self._failed) < THRESHOLD and not self.open:
            return []  # the token tries again by itself, or goes on once another is answered
        probing = self._probe in {None, token}
        self.open = True
        if not probing:
            return []  # a request that was sent before the breaker opened; the probe that is out will tell
        self._probe = None
        remaining = min((expiry - now for expiry in self._waiting.values() if expiry > now), default=0.0)
        wait = min(self._interval, self.probe_cap) * (0.75 + 0.25 * draw)
        self._interval = min(self._interval * PROBE_GROWTH, self.probe_cap, PROBE_CAP_SECONDS)
        if remaining > 0:
            wait = min(wait, _hurry(remaining))
        if retry_after is not None:
            self.held_until = max(self.held_until, now + retry_after)
        self.probe_at = max(now + wait, self._wish(remaining, now))
        return self._tell_next(now)

    def _tell_next(self, now: float) -> list[Wake]:
        order = nsmallest(1 + SUBSTITUTES, self._waiting, key=lambda name: self._turn(name, now))
        self._told = order[0]
        at = max(now, self.probe_at)
        return [Wake(name, at + number * SUBSTITUTE_SECONDS) for number, name in enumerate(order)]

    def _wish(self, remaining: float, now: float) -> float:
        """Until when the endpoint is left alone because it asked for it: its wish must not be a token's death."""
        return min(self.held_until, now + remaining * SHARE_FOR_RETRY_AFTER) if remaining > 0 else self.held_until

    def _turn(self, token: str, now: float) -> tuple[int, bool, float]:
        """By turns, so that a token whose failure is its own keeps no other waiting; then what can still be saved."""
        expires = self._waiting[token]
        return self._failed.get(token, 0), expires <= now, expires

    def answered(self, token: str, now: float) -> list[Wake]:
        """The endpoint is up, be it to refuse. Closes the breaker and lets the waiting go, most urgent first."""
        self._waiting.pop(token, None)
        self.open = False
        self.held_until = self.probe_at = 0.0
        self._interval, self._probe, self._told = PROBE_SECONDS, None, None
        expiries, failed_at = self._waiting, self._failed_at
        order = sorted(expiries, key=expiries.__getitem__)
        self._waiting, self._failed, self._failed_at = {}, {}, {}
        spacing = min(RELEASE_SPACING_SECONDS, RELEASE_WITHIN_SECONDS / max(len(order), 1))
        wakes = []
        for number, name in enumerate(order):
            at = now + _release(number * spacing, expiries[name] - now)
            wakes.append(Wake(name, max(at, failed_at.get(name, -inf) + URGENT_PROBE_SECONDS)))
        return wakes

    def outage(self, now: float) -> Outage | None:
        """Who waits; None while the breaker is closed."""
        if not self.open:
            return None
        ahead = [expires for expires in self._waiting.values() if expires > now]
        return Outage(len(self._waiting), len(self._waiting) - len(ahead), min(ahead, default=inf) - now)

    def passed(self, token: str, now: float, *, failing: bool = False) -> list[Wake]:
        """The token made no request: it adopted one, could not, or left. If it was its turn, another's comes.

        One that is `failing` waits for something else, and is still among those that the endpoint has failed.
        """
        self._waiting.pop(token, None)
        if not failing:
            self._failed.pop(token, None)
            self._failed_at.pop(token, None)
        turn = token in {self._told, self._probe}
        if self._probe == token:
            self._probe = None
        if turn:
            self._told = None
        return self._tell_next(now) if turn and self._waiting else []


def _hurry(remaining: float) -> float:
    """The longest wait before a probe for a token with so much life left."""
    return max(remaining * SHARE_OF_REMAINING, URGENT_PROBE_SECONDS)


def _release(wait: float, remaining: float) -> float:
    """How long one that waits its turn on recovery may wait: who has little life left does not queue."""
    return min(wait, remaining * SHARE_OF_REMAINING) if remaining > 0 else wait
