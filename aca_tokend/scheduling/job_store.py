"""What is due when, soonest first: putting on, taking off and taking what is due cost O(log n).

It knows no clock and no thread; the scheduler holds its lock for each call.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aca_tokend.core.steps import Work


@dataclass(slots=True, eq=False)
class Ticket:
    """One attempt that is due at `at`, in monotonic seconds.

    `queued`: it was handed to its pool. `gone`: it was taken off, and must not begin.
    """

    at: float
    work: Work
    queued: bool = False
    gone: bool = False

    def __lt__(self, other: Ticket) -> bool:
        """Whether it is due sooner; those of one moment are in no order."""
        return self.at < other.at


class Agenda:
    """The tickets that wait for their time."""

    def __init__(self) -> None:
        self._heap: list[Ticket] = []
        self._gone = 0

    @property
    def next_at(self) -> float:
        """When the next ticket is due; infinity where there is none."""
        while self._heap and self._heap[0].gone:
            heapq.heappop(self._heap)
            self._gone -= 1
        return self._heap[0].at if self._heap else math.inf

    def put(self, ticket: Ticket) -> None:
        """Puts a ticket on."""
        heapq.heappush(self._heap, ticket)

    def take_off(self, ticket: Ticket) -> None:
        """Takes a ticket off that must not begin, whether or not it was handed to its pool."""
        ticket.gone = True
        if not ticket.queued:
            self._gone += 1
            # what is gone stays in the heap until its time, unless it is most of what is there
            if self._gone > len(self._heap) // 2:
                self._heap = [waiting for waiting in self._heap if not waiting.gone]
                heapq.heapify(self._heap)
                self._gone = 0

    def take_due(self, now: float) -> list[Ticket]:
        """Takes the tickets that are due and marks them as handed on, soonest first."""
        due = []
        while self.next_at <= now:
            ticket = heapq.heappop(self._heap)
            ticket.queued = True
            due.append(ticket)
        return due
