"""Who may ask an endpoint now: its breaker, and one request at a time with a credential that is not proven.

Shared by the tokens of one process and called from several threads; core/breaker.py decides for the endpoint.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aca_tokend.core.breaker import Breaker, Outage, Wake

if TYPE_CHECKING:
    from aca_tokend.core.guard import Attempts, Rules
    from aca_tokend.core.outcome import Reason

# So many are woken for the next request with a credential: some of them may need none by now.
NEXT_TO_TRY = 4
# After a start the first token of a client in the configuration may try it before the others for so long.
FIRST_SECONDS = 5.0


class Gate:
    """The breaker of one endpoint. `timeout` is the endpoint's, in seconds: a probe out for much longer is lost."""

    def __init__(self, timeout: float, probe_cap: float) -> None:
        self._lock = threading.Lock()
        self._breaker = Breaker(probe_lost_seconds=2.0 * timeout + 5.0, probe_cap=probe_cap)
        self.retired = False  # a reload changed the endpoint: attempts that began before it are the last to come here

    @property
    def breaker(self) -> Breaker:
        """For those who only look, single fields at a time, and so without the lock that requests need."""
        return self._breaker

    def admit(self, token: str, expires: float, now: float, *, probe: bool = True) -> bool:
        """Whether a request of this token may be sent now; one that may not is woken later. `probe`: it will be."""
        with self._lock:
            return self._breaker.admit(token, expires, now, probe=probe)

    def failed(self, token: str, expires: float, now: float, retry_after: float | None, draw: float) -> list[Wake]:
        """The endpoint is down. Returns which tokens probe it next, and when."""
        with self._lock:
            return self._breaker.failed(token, expires, now, retry_after, draw)

    def answered(self, token: str, now: float) -> list[Wake]:
        """The endpoint answered, even with a refusal. Returns the tokens that waited, most urgent first."""
        with self._lock:
            return self._breaker.answered(token, now)

    def outage(self, now: float) -> Outage | None:
        """Who waits for the endpoint; None while requests may be sent."""
        with self._lock:
            return self._breaker.outage(now)

    def passed(self, token: str, now: float) -> list[Wake]:
        """The token made no request, or left. Returns whose turn it is then, if it was its own."""
        with self._lock:
            return self._breaker.passed(token, now)


@dataclass(slots=True, eq=False)
class Credential:
    """What this process knows of one credential, a user's or a client's, by its own requests.

    While it is not proven one request is under way at a time. A refusal counts for all that use it.
    """

    accepted_at: float = -math.inf
    refusals: int = 0
    refused_at: float = -math.inf
    reason: Reason | None = None
    _sighted: tuple[Attempts, float] | None = None
    _holder: str | None = None
    _waiting: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def proven(self, since: float = -math.inf) -> bool:
        """Whether it was accepted when last tried, and not before `since`."""
        return self.accepted_at > self.refused_at and self.accepted_at >= since

    def wait(self, rules: Rules, now: float) -> float:
        """In how many seconds another request may be sent with it; infinity for never."""
        if self.refusals < rules.max_rejections:
            return 0.0
        if not rules.retry_rejected_seconds:
            return math.inf
        return max(self.refused_at + rules.retry_rejected_seconds - now, 0.0)

    def free_for(self, token: str, expires: float) -> bool:
        """Whether no other token's request is under way; a token that must wait is woken after it."""
        with self._lock:
            if self._holder in {None, token}:
                return True
            self._waiting[token] = expires
            return False

    def take(self, token: str, expires: float) -> bool:
        """Takes the turn for a request, if no other token has it; a token that must wait is woken after it."""
        with self._lock:
            if self._holder in {None, token}:
                self._holder = token
                self._waiting.pop(token, None)
                return True
            self._waiting[token] = expires
            return False

    def accepted(self, token: str, now: float) -> list[Wake]:
        """The server knows it. Returns the tokens that go on."""
        with self._lock:
            self.accepted_at, self.refusals, self.reason = now, 0, None
            return self._released(token, now, len(self._waiting))

    def refused(self, token: str, reason: Reason, now: float, rules: Rules) -> list[Wake]:
        """The server refused it. Returns the tokens that go on: all of them if no request is left, to find that out."""
        with self._lock:
            self.refusals, self.refused_at, self.reason = self.refusals + 1, now, reason
            spent = self.refusals >= rules.max_rejections
            return self._released(token, now, len(self._waiting) if spent else NEXT_TO_TRY)

    def given_back(self, token: str, now: float) -> list[Wake]:
        """No request was sent, or nothing was said of the credential. Returns the tokens that go on."""
        with self._lock:
            return self._released(token, now, NEXT_TO_TRY)

    def cleared(self) -> None:
        """An operator says that what was refused may be tried again."""
        with self._lock:
            self.refusals, self.reason = 0, None

    def exhausted(self, reason: Reason, refusals: int, now: float) -> None:
        """A record says that it was refused this often."""
        with self._lock:
            if self.refusals < refusals:
                self.refusals, self.reason, self.refused_at = refusals, reason, now

    def sighted(self, attempts: Attempts, now: float) -> float:
        """When this entry of a record was first seen by this process."""
        if self._sighted is None or self._sighted[0] != attempts:
            self._sighted = (attempts, now)
        return self._sighted[1]

    def _released(self, token: str, now: float, count: int) -> list[Wake]:
        if self._holder == token:
            self._holder = None
        elif self._holder is not None:
            return []
        order = sorted(self._waiting, key=self._waiting.__getitem__)[:count]
        for name in order:
            del self._waiting[name]
        return [Wake(name, now) for name in order]


@dataclass(slots=True, eq=False)
class Client:
    """One application as it is configured. After a start its first token tries it before the others.

    So that a process that dies again and again spends the attempts of one user, not of one user after the other.
    """

    first: str
    until: float
    waiting: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def is_before(self, token: str, now: float) -> bool:
        """Whether this token waits for the first; it is woken once that has passed."""
        with self._lock:
            if token == self.first or now >= self.until:
                return False
            self.waiting.add(token)
            return True

    def passed(self, token: str, now: float) -> list[Wake]:
        """The first token has tried, or does not need to. Returns the tokens that go on."""
        if now >= self.until and not self.waiting:
            return []
        with self._lock:
            if token != self.first and now < self.until:
                return []
            self.until = -math.inf
            woken, self.waiting = sorted(self.waiting), set()
            return [Wake(name, now) for name in woken]
