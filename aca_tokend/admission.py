"""Who may ask an endpoint now: its breaker, and one probe at a time for a client that is not proven.

Shared by all tokens of an endpoint and called from several threads; core/breaker.py decides.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aca_tokend.core.breaker import Breaker, Outage, Wake

if TYPE_CHECKING:
    from aca_tokend.records import Ledger

# So many are woken for the next attempt with a client: it may turn out that some of them need none by now.
NEXT_TO_PROBE = 4


class Gate:
    """The breaker of one endpoint. `timeout` is the endpoint's, in seconds: a probe out for much longer is lost."""

    def __init__(self, timeout: float, probe_cap: float) -> None:
        self._lock = threading.Lock()
        self._breaker = Breaker(probe_lost_seconds=2.0 * timeout + 5.0, probe_cap=probe_cap)
        self.retired = False  # a reload changed the endpoint: attempts that began before it are the last to come here

    @property
    def breaker(self) -> Breaker:
        """For who only looks, single fields at a time, and so without the lock that requests need."""
        return self._breaker

    def admit(self, token: str, expires: float, now: float, *, probe: bool = True) -> bool:
        """Whether a request of this token may be sent now; one that may not is woken later. `probe`: it will be."""
        with self._lock:
            return self._breaker.admit(token, expires, now, probe=probe)

    def failed(self, token: str, expires: float, now: float, retry_after: float | None, draw: float) -> list[Wake]:
        """The endpoint did not do its work. Returns who is to probe it next, and when."""
        with self._lock:
            wake = self._breaker.failed(token, expires, now, retry_after, draw)
        return [wake] if wake else []

    def answered(self, token: str, now: float) -> list[Wake]:
        """The endpoint did its work, be it to refuse. Returns the tokens that waited, most urgent first."""
        with self._lock:
            return self._breaker.answered(token, now)

    def outage(self, now: float) -> Outage | None:
        """Who waits for the endpoint; None while requests may be sent."""
        with self._lock:
            return self._breaker.outage(now)

    def passed(self, token: str, now: float) -> list[Wake]:
        """The token made no request, or left. Returns whose turn it is then, if it was its own."""
        with self._lock:
            wake = self._breaker.passed(token, now)
        return [wake] if wake else []


@dataclass(slots=True, eq=False)
class Client:
    """One application at one endpoint: while its secret is not proven, its tokens wait behind a single attempt.

    Otherwise one wrong client secret would spend an attempt for each of its users.
    """

    ledger: Ledger
    _probing: str | None = None
    _waiting: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def try_probe(self, token: str, expires: float) -> bool:
        """Whether this token's attempt is the one; if not it is woken once that is over."""
        with self._lock:
            if self._probing not in {None, token}:
                self._waiting[token] = expires
                return False
            self._probing = token
            return True

    def probed(self, token: str, now: float, *, decided: bool) -> list[Wake]:
        """The attempt is over. Returns the tokens that go on, most urgent first.

        All that waited go on once it is `decided` whether the client works. Else a few do: one of them makes the next
        attempt, and thousands that all came only to wait again would come after each.
        """
        with self._lock:
            if self._probing != token:
                return []
            self._probing = None
            order = sorted(self._waiting, key=self._waiting.__getitem__)
            woken = order if decided else order[:NEXT_TO_PROBE]
            for name in woken:
                del self._waiting[name]
            return [Wake(name, now) for name in woken]
