"""Virtual time: one clock, one heap of what is to happen, one source of chance. The same seed gives the same run.

While a call is made, `instant` is what the clocks of its replica read: the moment it began until it reaches the other
side, then the moment of its answer. So a call has a length although it is made in one go, at the moment of its effect.
"""

from __future__ import annotations

import heapq
import itertools
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable

# Virtual time 0 is midnight, 1 January 2030, UTC.
START = 1_893_456_000.0


class Unforeseen(RuntimeError):  # noqa: N818 -- it stands for what nobody had a name for
    """An exception that no adapter raises on purpose."""


class World:
    """Runs what was put on its heap in the order of time.

    Attributes:
        now: virtual time in seconds.
        instant: what clocks read.
        answer_at: when the call that is being made is answered; who answers it may put it off.
        surprises: how likely an `Unforeseen` is, by a token or reference and the step.
        trace: what happened, if it is wanted: (time, who, what).
    """

    __slots__ = ("_heap", "_numbers", "answer_at", "instant", "now", "rng", "surprises", "trace")

    def __init__(self, seed: int, trace: deque[tuple[float, str, str]] | None = None) -> None:
        self.now = self.instant = self.answer_at = 0.0
        self.rng = random.Random(seed)  # noqa: S311 -- to be repeatable is the point
        self.trace = trace
        self.surprises: dict[tuple[str, str], float] = {}
        self._heap: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._numbers = itertools.count()

    def at(self, when: float, action: Callable[..., None], *arguments: object) -> None:
        """Puts an action on the heap; what lies in the past comes next."""
        heapq.heappush(self._heap, (max(when, self.now), next(self._numbers), action, arguments))

    def run(self, until: float) -> None:
        """Lets time pass."""
        heap, pop = self._heap, heapq.heappop
        while heap and heap[0][0] <= until:
            moment, _, action, arguments = pop(heap)
            self.now = self.instant = moment
            action(*arguments)
        self.now = self.instant = until

    def note(self, who: str, what: str) -> None:
        """Adds a line to the trace."""
        if self.trace is not None:
            self.trace.append((self.now, who, what))

    def surprise(self, who: str, step: str) -> None:
        """Raises Unforeseen, if it is time for a surprise."""
        if self.surprises and self.surprised(who, step):
            message = f"{who}: {step}"
            raise Unforeseen(message)

    def surprised(self, who: str, step: str) -> bool:
        """Whether it is, now and then, while there are to be surprises for this token or reference in this step."""
        return (who, step) in self.surprises and self.rng.random() < self.surprises[who, step]

    def reached(self) -> float:
        """A call reaches the other side. Returns when it was sent."""
        sent, self.instant = self.instant, self.now
        return sent

    def answered(self, at: float | None = None) -> None:
        """Its answer comes: at `at`, or when it was to come anyway."""
        if at is not None:
            self.answer_at = at
        self.answer_at = self.instant = max(self.answer_at, self.now)


class SimClock:
    """The clocks of one machine: `skew` is how far its wall clock is ahead."""

    __slots__ = ("_world", "skew")

    def __init__(self, world: World, skew: float = 0.0) -> None:
        self._world = world
        self.skew = skew

    def monotonic(self) -> float:
        """Virtual time."""
        return self._world.instant

    def wall(self) -> float:
        """Virtual time as this machine's wall clock has it."""
        return START + self._world.instant + self.skew
