"""Who may ask an endpoint now: its breaker, few claims at a time, and one request with a credential not yet proven.

Shared by the tokens of one process and called from several threads; core/breaker.py decides for the endpoint.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from aca_tokend.core.breaker import Breaker, Outage, Wake
from aca_tokend.core.outcome import Reason

if TYPE_CHECKING:
    from aca_tokend.core.guard import Attempts, Rules
    from aca_tokend.rotation.facts import Facts

# So many are woken for the next request with a credential: some of them may need none by now.
NEXT_TO_TRY = 4
# For each request that an endpoint takes at one time so many attempts may be claimed: while one is under way, the next
# is recorded. More would wait for their turn until their claims have run out.
CLAIMED_FOR_EACH = 2
# After a start the first token of a client in the configuration may try it before the others for so long.
FIRST_SECONDS = 5.0


class Gate:
    """The breaker of one endpoint, and its claims.

    `timeout` is the endpoint's, in seconds: a probe out for much longer is lost. `at_once`: how many requests it takes.
    """

    def __init__(self, timeout: float, probe_cap: float, at_once: int) -> None:
        self.claims = Claims(CLAIMED_FOR_EACH * at_once)
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

    def passed(self, token: str, now: float, *, failing: bool = False) -> list[Wake]:
        """The token made no request, or left. Returns whose turn it is then, if it was its own."""
        with self._lock:
            return self._breaker.passed(token, now, failing=failing)


@dataclass(slots=True, eq=False)
class Claims:
    """So many attempts at an endpoint at a time are claimed and not answered yet.

    A claim is good for some seconds. Thousands that were recorded at once would run out in the queue for the endpoint,
    and be recorded over and over. Each token that is done wakes one other, and so does one that was woken in vain.
    """

    most: int
    _inside: set[str] = field(default_factory=set)
    _woken: set[str] = field(default_factory=set)
    _waiting: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def enter(self, token: str, expires: float) -> bool:
        """Whether an attempt of this token may be claimed now; one that may not is woken later."""
        with self._lock:
            self._woken.discard(token)
            if token not in self._inside and len(self._inside) >= self.most:
                self._waiting[token] = expires
                return False
            self._waiting.pop(token, None)
            self._inside.add(token)
            return True

    def passed(self, token: str, now: float) -> list[Wake]:
        """Its attempt was answered or made no request, or it left. Returns whose turn it is then."""
        with self._lock:
            self._waiting.pop(token, None)
            came = token in self._inside or token in self._woken
            self._inside.discard(token)
            self._woken.discard(token)
            if not came or len(self._inside) >= self.most or not self._waiting:
                return []
            following = min(self._waiting, key=self._waiting.__getitem__)
            del self._waiting[following]
            self._woken.add(following)
            return [Wake(following, now)]


@dataclass(slots=True, eq=False)
class Credential:
    """What this process knows of one credential, a user's, a scope's or a client's: by its requests and by records.

    While it is not proven one request is under way at a time, else no more than may be refused: a password that stops
    working is sent no more often than that, however many tokens use it.

    Most are one token's alone, so little is kept where nobody waits, and one lock serves all.
    """

    fingerprint: str = ""
    accepted_at: float = -math.inf  # never, where it was refused since
    refusals: int = 0
    refused_at: float = -math.inf
    reason: Reason | None = None
    _cleared_at: float = -math.inf
    _sighted: tuple[tuple[Attempts, float], ...] = ()
    _under_way: tuple[tuple[int, float], ...] = ()  # since when
    _waiting: dict[str, float] = field(default_factory=dict)
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def proven(self, since: float = -math.inf) -> bool:
        """Whether it was accepted when last tried, and not before `since`."""
        return self.accepted_at >= since and self.accepted_at > -math.inf

    def wait(self, rules: Rules, now: float) -> float:
        """In how many seconds another request may be sent with it; infinity for never."""
        if self.refusals < rules.max_rejections:
            return 0.0
        if not rules.retry_rejected_seconds:
            return math.inf
        return max(self.refused_at + rules.retry_rejected_seconds - now, 0.0)

    def enter(self, facts: Facts, rules: Rules, now: float, permit: object = None) -> bool | None:
        """Whether a request may be sent now; a token that must wait for another's is woken after it.

        With `permit` it is sent, and under way until that is `answered`. None: another was refused since the permit.
        """
        with self._lock:
            most = rules.max_rejections if self.proven() else 1
            if len(self._under_way) >= most:
                self._waiting[facts.name] = facts.expires_at
                return False
            if permit is not None:
                if self.wait(rules, now) > 0.0:
                    return None
                self._under_way = (*self._under_way, (id(permit), now))
            self._waiting.pop(facts.name, None)
            return True

    def answered(self, permit: object, rules: Rules, now: float, verdict: Reason | bool | None) -> list[Wake]:
        """A request ended: accepted, refused for a reason, or without a verdict. Returns the tokens that go on."""
        with self._lock:
            since = dict(self._under_way).get(id(permit), now)
            self._under_way = tuple(it for it in self._under_way if it[0] != id(permit))
            everybody = verdict is True
            if verdict is True and since >= self.refused_at:  # else nobody knows which of the two answers came later
                self.accepted_at, self.refusals, self.reason = since, 0, None
            elif isinstance(verdict, Reason):
                self._refused(verdict, self.refusals + 1, now)
                everybody = self.refusals >= rules.max_rejections  # to find that out
            return self._next(now, len(self._waiting) if everybody else NEXT_TO_TRY)

    def passed(self, token: str, now: float) -> list[Wake]:
        """A token that waited or was woken sent no request. Returns whose turn it is then."""
        with self._lock:
            self._waiting.pop(token, None)
            return self._next(now, 1)

    def recorded(self, reason: Reason, refusals: int, at: float) -> None:
        """A record tells that it was refused so often, at last then."""
        with self._lock:
            if self.refusals < refusals:
                self._refused(reason, refusals, at)

    def cleared(self, now: float, since: float = math.inf) -> None:
        """What was refused may be tried again, unless that was said after `since` before: it counts once for all."""
        with self._lock:
            if self._cleared_at <= since:
                self.refusals, self.reason, self._cleared_at = 0, None, now

    def sighted(self, attempts: Attempts, now: float) -> float:
        """When this entry of a record was first seen by this process."""
        with self._lock:
            seen = {attempts: now, **dict(self._sighted)}
            self._sighted = tuple(seen.items())
            return seen[attempts]

    def _refused(self, reason: Reason, refusals: int, at: float) -> None:
        self.refusals, self.refused_at, self.reason, self.accepted_at = refusals, at, reason, -math.inf

    def _next(self, now: float, count: int) -> list[Wake]:
        if self._under_way and not self.proven():
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
    _waiting: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def before(self, token: str, now: float) -> float:
        """How long this token waits for the first at most; it is woken once that has passed."""
        with self._lock:
            if token == self.first or now >= self.until:
                return 0.0
            self._waiting.add(token)
            return self.until - now

    def passed(self, token: str, now: float) -> list[Wake]:
        """An attempt ended: the first token's, or the time for that is over. Returns the tokens that go on."""
        with self._lock:
            if token != self.first and now < self.until:
                return []
            self.until = -math.inf
            woken, self._waiting = sorted(self._waiting), set()
            return [Wake(name, now) for name in woken]
