"""What the look-alike remembers: the tokens it issued while they live, and what was asked of it.

All of it is bounded, and none of it holds a value that a client sent but the user name: no password, no secret, and of
each token only a digest.
"""

from __future__ import annotations

import hashlib
import heapq
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from aca_tokend.demo.levers import Area

# An expired token is remembered for a while, only to tell "expired" from "never issued" in the counts.
REMEMBER_EXPIRED_SECONDS = 60.0
RECENT_REQUESTS = 2_000
SECONDS_SERIES = 600
DISTINCT_NAMES = 50_000
OTHERS = "(others)"


class Verdict(StrEnum):
    """What the API makes of a request's token."""

    ACCEPTED = "accepted"
    MISSING = "missing"
    UNKNOWN = "unknown"
    EXPIRED = "expired"
    LOGGED_OUT = "logged_out"
    OTHER_HOST = "other_host"


@dataclass(frozen=True, slots=True)
class Issued:
    """One issued token. Times are seconds since the epoch on the server's clock.

    `lifetime` is what the answer says of it; a JWT expires up to a second earlier, because it counts in whole seconds.
    """

    username: str
    host: str
    issued_at: float
    lifetime: float
    expires_at: float


class Tokens:
    """The tokens that were issued and still live."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._issued: dict[bytes, Issued] = {}
        self._expiries: list[tuple[float, bytes]] = []
        self._logged_out: dict[str, int] = {}
        self._reusable: dict[tuple[str, ...], tuple[str, Issued]] = {}

    def remember(self, token: str, issued: Issued, now: float) -> None:
        """Notes an issued token and forgets those that expired a while ago."""
        digest = _digest(token)
        with self._lock:
            self._issued[digest] = issued
            heapq.heappush(self._expiries, (issued.expires_at, digest))
            while self._expiries[0][0] < now - REMEMBER_EXPIRED_SECONDS:
                self._issued.pop(heapq.heappop(self._expiries)[1], None)

    def find(self, token: str) -> Issued | None:
        """What is known of a token."""
        return self._issued.get(_digest(token))

    def verdict(self, token: str, host: str | None, now: float) -> Verdict:
        """Whether the token works now on this Host, None where the Host is of no matter."""
        issued = self.find(token)
        if issued is None:
            return Verdict.UNKNOWN
        if now >= issued.expires_at:
            return Verdict.EXPIRED
        # PlaceOS compares whole seconds: what was issued in the very second of the log-out is dead too.
        if int(issued.issued_at) <= self._logged_out.get(issued.username, -1):
            return Verdict.LOGGED_OUT
        if host is not None and issued.host != host:
            return Verdict.OTHER_HOST
        return Verdict.ACCEPTED

    def log_out(self, username: str, now: float) -> None:
        """Logs the account out, which kills all its tokens issued until the end of this second."""
        with self._lock:
            self._logged_out[username] = int(now)

    def keep_for_reuse(self, owner: tuple[str, ...], token: str, issued: Issued) -> None:
        """Keeps a token to be handed out again to the same owner."""
        with self._lock:
            self._reusable[owner] = (token, issued)

    def reusable(self, owner: tuple[str, ...], now: float) -> tuple[str, Issued] | None:
        """The owner's token, if it still lives."""
        kept = self._reusable.get(owner)
        return kept if kept is not None and now < kept[1].expires_at else None

    def __len__(self) -> int:
        return len(self._issued)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


class SeenRequest(BaseModel):
    """One request as it came, without the values of its form, query and headers. `port` tells connections apart."""

    model_config = ConfigDict(frozen=True)

    time: float
    method: str
    path: str
    host: str
    port: int
    headers: tuple[str, ...]
    form_keys: tuple[str, ...]
    query_keys: tuple[str, ...]
    status: int | None = None


class Counts(BaseModel):
    """What happened since the start or the last reset.

    Attributes:
        grants: token answers with a token, those spoilt on their way included; by user name in `grants_by_username`.
        refused: token requests answered 400 or 401, by user name.
        requests: by path. Here and in the other figures the look-alike's own `/_…` paths do not count.
        faults: how often each kind of fault happened.
        per_second: `(second since the epoch, requests, grants)` of the token endpoint, for the last ten minutes.
        in_flight: requests without a whole answer yet, hanging ones included; `max_in_flight` is the most there were.
        reads_accepted: of the API; of the refused ones `reads_refused_because` tells the reasons.
        tokens_held: how many issued tokens are in memory.
    """

    model_config = ConfigDict(frozen=True)

    grants: int
    grants_by_username: dict[str, int]
    refused: dict[str, int]
    requests: dict[str, int]
    faults: dict[str, int]
    per_second: tuple[tuple[int, int, int], ...]
    in_flight: int
    max_in_flight: int
    reads_accepted: int
    reads_refused: int
    reads_refused_because: dict[str, int]
    tokens_held: int


class Entry:
    """One request under way: what it asks for, and, once it is over, how it was answered."""

    def __init__(self, request: SeenRequest, area: Area, username: str) -> None:
        self.request = request
        self.area = area
        self.username = username
        self.over = False


class Traffic:
    """Counts requests and remembers the recent ones."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._recent: deque[Entry] = deque(maxlen=RECENT_REQUESTS)
        self._granted: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._requests: Counter[str] = Counter()
        self._faults: Counter[str] = Counter()
        self._reads: Counter[Verdict] = Counter()
        self._seconds: dict[int, list[int]] = {}
        self._in_flight = 0
        self._max_in_flight = 0

    def opened(self, request: SeenRequest, area: Area, username: str) -> Entry:
        """A request came in."""
        entry = Entry(request, area, username)
        with self._lock:
            self._recent.append(entry)
            _count(self._requests, request.path)
            self._in_flight += 1
            self._max_in_flight = max(self._max_in_flight, self._in_flight)
            if area == "token":
                self._second()[0] += 1
        return entry

    def closed(self, entry: Entry, status: int | None) -> None:
        """A request is over; `status` is None where it got no status line."""
        with self._lock:
            if entry.over:
                return
            entry.over = True
            entry.request = entry.request.model_copy(update={"status": status})
            self._in_flight -= 1
            if entry.area == "token" and status in {400, 401}:
                _count(self._refused, entry.username)

    def granted(self, username: str) -> None:
        """A token went out."""
        with self._lock:
            _count(self._granted, username)
            self._second()[1] += 1

    def faulted(self, kind: str) -> None:
        """A fault happens to a request."""
        with self._lock:
            self._faults[kind] += 1

    def read(self, verdict: Verdict) -> None:
        """The API was read."""
        with self._lock:
            self._reads[verdict] += 1

    def recent(self, last: int) -> list[SeenRequest]:
        """The last requests, oldest first."""
        with self._lock:
            return [entry.request for entry in self._recent][-last:] if last > 0 else []

    def counts(self, tokens_held: int) -> Counts:
        """Everything counted so far."""
        with self._lock:
            refused = {str(verdict): n for verdict, n in self._reads.items() if verdict is not Verdict.ACCEPTED}
            return Counts(
                grants=self._granted.total(),
                grants_by_username=dict(self._granted),
                refused=dict(self._refused),
                requests=dict(self._requests),
                faults=dict(self._faults),
                per_second=tuple((second, seen[0], seen[1]) for second, seen in self._seconds.items()),
                in_flight=self._in_flight,
                max_in_flight=self._max_in_flight,
                reads_accepted=self._reads[Verdict.ACCEPTED],
                reads_refused=sum(refused.values()),
                reads_refused_because=refused,
                tokens_held=tokens_held,
            )

    def _second(self) -> list[int]:
        """Requests and grants of the present second."""
        seen = self._seconds.setdefault(int(time.time()), [0, 0])
        while len(self._seconds) > SECONDS_SERIES:
            del self._seconds[next(iter(self._seconds))]
        return seen


def _count(counter: Counter[str], name: str) -> None:
    """Counts a name that a client made up, without growing for ever."""
    counter[name if name in counter or len(counter) < DISTINCT_NAMES else OTHERS] += 1
