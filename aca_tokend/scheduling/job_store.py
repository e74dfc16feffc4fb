"""APScheduler's jobs in a heap, the soonest first: adding, changing and taking what is due cost O(log n).

Deadlines are monotonic seconds. To APScheduler, which compares wall times, a job is due when it is handed out and never
else: no step of the wall clock loses, delays or repeats one. APScheduler's lock, which it holds for a whole round, is
not needed to set a deadline: the store has a lock of its own.
"""

from __future__ import annotations

import heapq
import itertools
import math
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from apscheduler.jobstores.base import BaseJobStore, ConflictingIdError, JobLookupError
from apscheduler.triggers.base import BaseTrigger

if TYPE_CHECKING:
    from collections.abc import Callable

    from aca_tokend.core.steps import Work

# The `next_run_time` of a job that is handed to its executor, and of every other.
DUE = datetime.min.replace(tzinfo=UTC)
NEVER = datetime.max.replace(tzinfo=UTC)
# One look serves all that comes due within this time after the first.
GATHER_SECONDS = 0.05
# APScheduler looks at least so often, for nothing.
LOOK_SECONDS = 3600.0


class Timer(BaseTrigger):  # type: ignore[misc]  # APScheduler publishes no types
    """When a job is due, in monotonic seconds, and what it does then.

    It never ends, so the job stays: whoever ends the job's work gives it back to the store.

    Attributes:
        queued: the job was handed to its executor and is not back.
    """

    __slots__ = ("at", "queued", "work")

    def __init__(self, at: float, work: Work) -> None:
        self.at = at
        self.work = work
        self.queued = False

    def get_next_fire_time(self, _previous: datetime | None, _now: datetime) -> datetime:
        """Never by itself."""
        return NEVER


class JobStore(BaseJobStore):  # type: ignore[misc]  # APScheduler publishes no types
    """A heap of jobs whose trigger is a `Timer`."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        super().__init__()
        self.jobs: dict[str, Any] = {}
        self._monotonic = monotonic
        self._heap: list[tuple[float, int, Any]] = []
        self._order = itertools.count()
        self._lock = threading.Lock()
        self._looks_at = math.inf

    def hasten(self, job: Any, at: float) -> bool:  # noqa: ANN401 -- APScheduler publishes no types
        """Brings a job forward. Whether that is so: not one that is due sooner, or was handed to its executor."""
        with self._lock:
            sooner: bool = at < job.trigger.at and not job.trigger.queued
            if sooner:
                self._push(job, at)
            return sooner

    def take_back(self, job: Any, at: float) -> None:  # noqa: ANN401 -- APScheduler publishes no types
        """Takes a job back whose work is over, until it is due again."""
        with self._lock:
            job.trigger.queued = False
            self._push(job, at)

    def sooner(self) -> bool:
        """Whether something is due before APScheduler would look; says so once."""
        first = self._heap[:1]  # in one go: APScheduler's thread takes from it meanwhile
        if not first or first[0][0] >= self._looks_at:
            return False
        self._looks_at = -math.inf
        return True

    def get_due_jobs(self, _now: datetime) -> list[Any]:
        """Takes the jobs that are due, soonest first. APScheduler hands each to its executor."""
        now, due = self._monotonic(), []
        with self._lock:
            while self._soonest() <= now:
                job = heapq.heappop(self._heap)[2]
                job.trigger.queued, job.next_run_time = True, DUE
                due.append(job)
        return due

    def get_next_run_time(self) -> datetime | None:
        """When APScheduler has to look again, by the clock that it goes by."""
        with self._lock:
            at = self._looks_at = self._soonest()
        if at == math.inf:
            return None
        ahead = min(at - self._monotonic() + GATHER_SECONDS, LOOK_SECONDS)
        return datetime.now(UTC) + timedelta(seconds=ahead)

    def _soonest(self) -> float:
        while self._heap and not self._waits(*self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else math.inf

    def _waits(self, at: float, _order: int, job: Any) -> bool:  # noqa: ANN401 -- APScheduler publishes no types
        """Whether the job still waits for this moment: one that is set anew or removed leaves its entry behind."""
        timer: Timer = job.trigger
        return self.jobs.get(job.id) is job and not timer.queued and timer.at == at

    def lookup_job(self, job_id: str) -> Any:  # noqa: ANN401 -- APScheduler publishes no types
        """The job of this name, or None."""
        return self.jobs.get(job_id)

    def get_all_jobs(self) -> list[Any]:
        """All, the soonest first, and last those that were handed to their executors."""
        return sorted(self.jobs.values(), key=lambda job: (job.trigger.queued, job.trigger.at))

    def add_job(self, job: Any) -> None:  # noqa: ANN401 -- APScheduler publishes no types
        """Adds a job."""
        with self._lock:
            if job.id in self.jobs:
                raise ConflictingIdError(job.id)
            self.jobs[job.id] = job
            self._push(job, job.trigger.at)

    def update_job(self, _job: Any) -> None:  # noqa: ANN401 -- APScheduler publishes no types
        """Does nothing: APScheduler notes so that it has handed the job on, which may be back already."""

    def _push(self, job: Any, at: float) -> None:  # noqa: ANN401 -- APScheduler publishes no types
        job.trigger.at = at
        heapq.heappush(self._heap, (at, next(self._order), job))
        if len(self._heap) > 2 * len(self.jobs):  # most of it was left behind
            self._heap = [entry for entry in self._heap if self._waits(*entry)]
            heapq.heapify(self._heap)

    def remove_job(self, job_id: str) -> None:
        """Removes a job, whether it waits or was handed on."""
        with self._lock:
            if self.jobs.pop(job_id, None) is None:
                raise JobLookupError(job_id)

    def remove_all_jobs(self) -> None:
        """Removes all."""
        with self._lock:
            self.jobs.clear()
