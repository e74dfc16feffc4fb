"""Whether an endpoint keeps up: what its tokens ask of it a second, against what it gives.

Pure; times are monotonic seconds. An endpoint is too slow only where both are true: grants were under way all the time
(a replica may be making those that are due here), and more are due in the long run than it can give (a cold start of
thousands of tokens is busy too, and over in minutes).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# So long a time is looked at as one.
WINDOW_SECONDS = 60.0
# An endpoint is busy from this share of the time that its requests could have been under way.
BUSY = 0.9

# What a person should do about an endpoint that is too slow.
TOO_SLOW = (
    "tokens are rotated later and later; raise max_concurrency if the server can take it, or ask its operator for a"
    " faster one or for tokens that live longer"
)


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked of an endpoint and what it gave, over one window.

    Attributes:
        due_per_second: grants that its tokens need in the long run.
        seconds_each: how long a grant took on average.
        at_once: how many may be under way at one time.
        busy: the share of the window in which they were.
    """

    due_per_second: float
    seconds_each: float
    at_once: int
    busy: float

    @property
    def given_per_second(self) -> float:
        """What the endpoint gives at most, as fast as it answered."""
        return self.at_once / self.seconds_each

    @property
    def ratio(self) -> float:
        """The demand as a share of what it gives: above 1 it falls behind."""
        return self.due_per_second / self.given_per_second

    @property
    def too_slow(self) -> bool:
        """Whether it falls behind."""
        return self.busy >= BUSY and self.ratio > 1.0


@dataclass(slots=True)
class Demand:
    """Measures endpoints. `granted` may be called from any thread, at any time."""

    began: float
    _answers: deque[tuple[str, float]] = field(default_factory=deque)  # which takes an append without a lock

    def granted(self, endpoint: str, seconds: float) -> None:
        """A grant was answered, or given up, after so many seconds."""
        self._answers.append((endpoint, seconds))

    def complete(self, now: float) -> bool:
        """Whether the window is over and `take` is due."""
        return now >= self.began + WINDOW_SECONDS

    def take(self, now: float, due_per_second: Mapping[str, float], at_once: Mapping[str, int]) -> dict[str, Load]:
        """The load of each endpoint that was asked in this window; the next window begins."""
        window, self.began = max(now - self.began, WINDOW_SECONDS), now
        seconds: dict[str, list[float]] = {}
        for _ in range(len(self._answers)):
            endpoint, each = self._answers.popleft()
            seconds.setdefault(endpoint, []).append(each)
        return {
            name: Load(
                due_per_second=due_per_second.get(name, 0.0),
                seconds_each=max(sum(each) / len(each), 1e-6),
                at_once=at_once[name],
                busy=sum(each) / (window * at_once[name]),
            )
            for name, each in seconds.items()
            if name in at_once
        }
