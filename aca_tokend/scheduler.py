"""When attempts run and where: the only module that knows APScheduler.

APScheduler decides when: one `date` job per attempt, under an id of its own. Its executors are our bulkheads: one
bounded pool of threads per endpoint, per Vault and for files. An attempt is a coroutine (core/steps.py); each call it
awaits runs in the pool that the call names, most urgent first. A token is on schedule from `keep` on: its job is put
back whatever an attempt's outcome, and anything that would lose one is a bug and ends the process.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import math
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED
from apscheduler.executors.base import BaseExecutor, run_job
from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler

from aca_tokend.core.steps import make

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from aca_tokend.core.ports import Clock
    from aca_tokend.core.steps import Call

# A job this long past its time without having been handed to a pool is lost.
OVERDUE_SECONDS = 15.0
# A job that comes earlier than this before its time was woken by a wall clock that jumped ahead.
EARLY_SECONDS = 0.05


class LostJobError(Exception):
    """APScheduler missed, skipped or failed a job: a token would not have been rotated again."""


@dataclass(frozen=True, slots=True)
class Work:
    """What is kept on schedule: one token's attempts.

    `attempt` starts one; its coroutine returns when the next is due, in monotonic seconds (infinity: never).
    `pool` is where it begins; `urgency` orders what waits there, smallest first.
    """

    name: str
    pool: str
    attempt: Callable[[], Coroutine[Any, Any, float]]
    urgency: Callable[[], float]


@dataclass(slots=True)
class _Ticket:
    """One job: when its attempt is due, and whether APScheduler handed it to its pool."""

    job_id: str
    at: float
    work: Work
    queued: bool = False


@dataclass(slots=True)
class _Task:
    """An attempt under way, and the results of its calls that are still out."""

    work: Work
    coroutine: Coroutine[Any, Any, float]
    results: list[Any] = field(default_factory=list)
    out: int = 0
    abandoned: bool = False
    hasten_to: float = math.inf


class Pool(BaseExecutor):  # type: ignore[misc]  # APScheduler publishes no types
    """A bounded pool of threads that takes what is most urgent first; one of APScheduler's executors."""

    def __init__(self, name: str, size: int, on_bug: Callable[[BaseException], None]) -> None:
        super().__init__()
        self.name = name
        self.size = size
        self._on_bug = on_bug
        self._waiting: list[tuple[bool, float, int, Callable[[], None], Callable[[], None]]] = []
        self._order = itertools.count()
        self._ready = threading.Condition()
        self._threads = 0
        self._idle = 0
        self._stopping = False
        self._busy_since: dict[int, float] = {}

    def submit(
        self, urgency: float, run: Callable[[], None], drop: Callable[[], None], *, finish: bool = False
    ) -> None:
        """Queues `run`. While stopping only what finishes a rotation is taken; `drop` is called for what is not."""
        with self._ready:
            if not self._stopping or finish:
                heapq.heappush(self._waiting, (not finish, urgency, next(self._order), run, drop))
                if self._idle >= len(self._waiting):
                    self._ready.notify()
                elif self._threads < self.size:
                    self._threads += 1
                    threading.Thread(target=self._work, name=f"{self.name}-{self._threads}", daemon=True).start()
                return
        drop()

    def stop(self) -> None:
        """Drops what waits, except what finishes a rotation under way."""
        with self._ready:
            self._stopping = True
            dropped = [entry for entry in self._waiting if entry[0]]
            self._waiting = [entry for entry in self._waiting if not entry[0]]
            heapq.heapify(self._waiting)
        for entry in dropped:
            entry[4]()

    def longest_call(self, now: float) -> float:
        """For how many seconds the oldest call under way has been running."""
        return now - min(list(self._busy_since.values()), default=now)

    def _work(self) -> None:
        me = threading.get_ident()
        while True:
            with self._ready:
                while not self._waiting:
                    self._idle += 1
                    self._ready.wait()
                    self._idle -= 1
                run = heapq.heappop(self._waiting)[3]
            self._busy_since[me] = time.monotonic()
            try:
                run()
            except BaseException as bug:  # noqa: BLE001 -- told to the daemon, which ends the process
                self._on_bug(bug)
            finally:
                del self._busy_since[me]

    def _do_submit_job(self, job: Any, run_times: list[datetime]) -> None:  # noqa: ANN401 -- APScheduler's interface
        ticket: _Ticket = job.args[0]
        ticket.queued = True

        def run() -> None:
            for event in run_job(job, "default", run_times, self._logger.name):
                self._run_job_success(job.id, [event])

        self.submit(ticket.work.urgency(), run, lambda: None)


class RotationScheduler:
    """Keeps every token on schedule.

    Args:
        pools: the size of each pool by its name.
        clock: the two clocks.
        on_bug: told, from any thread, of what must end the process.
        on_lag: told how many seconds after its time each attempt began.
    """

    def __init__(
        self,
        pools: Mapping[str, int],
        clock: Clock,
        on_bug: Callable[[BaseException], None],
        on_lag: Callable[[float], None],
    ) -> None:
        self._clock = clock
        self._on_bug = on_bug
        self._on_lag = on_lag
        self._pools = {name: Pool(name, size, on_bug) for name, size in pools.items()}
        self._lock = threading.Condition()
        self._due: dict[str, _Ticket] = {}
        self._under_way: dict[str, _Task] = {}
        self._numbers = itertools.count()
        self._stopping = False
        # misfire_grace_time=None: a late job is run, never dropped.
        self._scheduler = BackgroundScheduler(
            timezone=UTC,
            executors=self._pools,
            job_defaults={"misfire_grace_time": None, "coalesce": False, "max_instances": 1},
            daemon=True,
        )
        self._scheduler.add_listener(self._lost, EVENT_JOB_ERROR | EVENT_JOB_MISSED | EVENT_JOB_MAX_INSTANCES)
        logging.getLogger("apscheduler").setLevel(logging.WARNING)

    def start(self) -> None:
        """Starts what was put on schedule so far."""
        self._scheduler.start()

    def keep(self, work: Work, at: float) -> None:
        """Puts a token on schedule: its next attempt begins at `at`, in monotonic seconds."""
        # An id of its own for each attempt: APScheduler loses a job that adds its own id again for "now".
        ticket = _Ticket(f"{work.name}#{next(self._numbers)}", at, work)
        with self._lock:
            if self._stopping:
                return
            self._due[work.name] = ticket
        moment = datetime.fromtimestamp(self._clock.wall() + max(at - self._clock.monotonic(), 0.0), UTC)
        self._scheduler.add_job(
            self._begin, "date", run_date=moment, args=(ticket,), id=ticket.job_id, executor=work.pool
        )

    def hasten(self, name: str, at: float) -> None:
        """Brings the next attempt of a token forward to `at`, also while one of it is under way."""
        with self._lock:
            task, ticket = self._under_way.get(name), self._due.get(name)
            if task is not None:
                task.hasten_to = min(task.hasten_to, at)
                return
            if ticket is None or ticket.queued or ticket.at <= at:
                return
        try:
            self._scheduler.remove_job(ticket.job_id)
        except JobLookupError:
            return  # handed to its pool a moment ago
        self.keep(ticket.work, at)

    def redraw(self) -> None:
        """Sets every job anew from the monotonic clock, after the wall clock was stepped."""
        with self._lock:
            waiting = [ticket for ticket in self._due.values() if not ticket.queued]
        for ticket in waiting:
            try:
                self._scheduler.remove_job(ticket.job_id)
            except JobLookupError:
                continue  # handed to its pool a moment ago
            self.keep(ticket.work, ticket.at)

    def stop(self, timeout: float) -> tuple[str, ...]:
        """Starts nothing more, lets rotations under way finish, and returns the names of those that did not."""
        with self._lock:
            self._stopping = True
            self._due.clear()
        if self._scheduler.running:
            # A shutdown amid a round of due jobs breaks APScheduler's thread: pause, wait the round out, shut down.
            self._scheduler.pause()
            self._scheduler.remove_all_jobs()
            self._scheduler.shutdown(wait=False)
        for pool in self._pools.values():
            pool.stop()
        deadline = time.monotonic() + timeout
        with self._lock:
            # In slices, because a signal handler runs only between two waits of the main thread.
            while self._under_way and time.monotonic() < deadline:
                self._lock.wait(0.2)
            return tuple(self._under_way)

    def wait_until_done(self, timeout: float | None = None) -> bool:
        """Waits until nothing is on schedule or under way: for attempts that return infinity."""
        with self._lock:
            return self._lock.wait_for(lambda: not self._due and not self._under_way, timeout)

    def overdue(self) -> list[str]:
        """The dead-man check: tokens whose job was lost. One that waits in a busy pool is late, not lost."""
        now = self._clock.monotonic()
        with self._lock:
            tickets = list(self._due.values())
        return [ticket.work.name for ticket in tickets if not ticket.queued and ticket.at + OVERDUE_SECONDS < now]

    def stuck(self, limit: float) -> list[str]:
        """The pools in which a call has been running for more than `limit` seconds, past every timeout."""
        now = time.monotonic()
        return [name for name, pool in self._pools.items() if pool.longest_call(now) > limit]

    # ── one attempt ───────────────────────────────────────────────────────────────────────────────────────────────

    def _begin(self, ticket: _Ticket) -> None:
        """The job: runs in a thread of the pool in which the attempt begins."""
        work = ticket.work
        early = ticket.at - self._clock.monotonic()
        with self._lock:
            if self._stopping or self._due.get(work.name) is not ticket:
                return
            if early <= EARLY_SECONDS:
                del self._due[work.name]
                task = self._under_way[work.name] = _Task(work, work.attempt())
        if early > EARLY_SECONDS:
            self.keep(work, ticket.at)
            return
        self._on_lag(max(-early, 0.0))
        self._drive(task, None, work.pool)

    def _drive(self, task: _Task, results: Sequence[Any] | None, here: str) -> None:
        """Goes on with an attempt in a thread of the pool `here`, until its next calls belong in another."""
        while True:
            try:
                calls = task.coroutine.send(results)
            except StopIteration as done:
                self._end(task, done.value)
                return
            if len(calls) == 1 and calls[0].pool == here and (calls[0].finish or not self._stopping):
                results = (make(calls[0]),)
                continue
            self._hand_out(task, calls)
            return

    def _hand_out(self, task: _Task, calls: Sequence[Call[Any]]) -> None:
        task.results = [None] * len(calls)
        task.out = len(calls)
        for index, call in enumerate(calls):
            self._pools[call.pool].submit(
                call.urgency,
                lambda index=index, call=call: self._make(task, index, call),  # type: ignore[misc]  # bound now
                lambda: self._abandon(task),
                finish=call.finish,
            )

    def _make(self, task: _Task, index: int, call: Call[Any]) -> None:
        result = make(call)
        with self._lock:
            task.results[index] = result
            task.out -= 1
            if task.out or task.abandoned:
                return
        self._drive(task, task.results, call.pool)

    def _abandon(self, task: _Task) -> None:
        """We are stopping, and the next call of this attempt is not one that must be made."""
        with self._lock:
            task.abandoned = True
            self._under_way.pop(task.work.name, None)
            self._lock.notify_all()

    def _end(self, task: _Task, next_at: float) -> None:
        with self._lock:
            del self._under_way[task.work.name]
            self._lock.notify_all()
        if next_at != math.inf:
            self.keep(task.work, min(next_at, task.hasten_to))

    def _lost(self, event: Any) -> None:  # noqa: ANN401 -- APScheduler's interface
        cause = getattr(event, "exception", None)
        error = LostJobError(f"job {event.job_id} was lost (APScheduler event {event.code})")
        error.__cause__ = cause
        self._on_bug(error)
