"""When attempts run and where: the only module that knows APScheduler.

APScheduler decides when: one `date` job per attempt, under an id of its own. Its executors are our bulkheads (pool.py),
one per endpoint, per Vault and for files. An attempt is a coroutine (core/steps.py); each call it awaits runs in the
pool that the call names. A token is on schedule from `keep` until `drop`: its job is put back whatever an attempt's
outcome, and anything that would lose one is a bug and ends the process.
"""

from __future__ import annotations

import itertools
import logging
import math
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED
from apscheduler.executors.base import BaseExecutor, run_job
from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler

from aca_tokend.core.steps import Work, make
from aca_tokend.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence

    from aca_tokend.core.ports import Clock
    from aca_tokend.core.steps import Call

# A job this long past its time without having been handed to a pool is lost.
OVERDUE_SECONDS = 15.0
# A job that comes earlier than this before its time was woken by a wall clock that jumped ahead.
EARLY_SECONDS = 0.05


class LostJobError(Exception):
    """APScheduler missed, skipped or failed a job: a token would not have been rotated again."""


@dataclass(slots=True)
class _Ticket:
    """One job: when its attempt is due, and whether APScheduler handed it to its pool."""

    job_id: str
    at: float
    work: Work
    queued: bool = False


@dataclass(slots=True)
class _Task:
    """An attempt under way, the results of its calls that are still out, and what comes after it.

    `successor` is what was put on schedule for this token meanwhile; `dropped`: nothing comes after it.
    """

    number: int
    work: Work
    coroutine: Coroutine[Any, Any, float]
    results: list[Any] = field(default_factory=list)
    out: int = 0
    abandoned: bool = False
    hasten_to: float = math.inf
    successor: tuple[Work, float] | None = None
    dropped: bool = False


class _Executor(BaseExecutor):  # type: ignore[misc]  # APScheduler publishes no types
    """A pool as one of APScheduler's executors."""

    def __init__(self, pool: Pool) -> None:
        super().__init__()
        self._pool = pool

    def _do_submit_job(self, job: Any, run_times: list[datetime]) -> None:  # noqa: ANN401 -- APScheduler's interface
        ticket: _Ticket = job.args[0]
        ticket.queued = True

        def run() -> None:
            for event in run_job(job, "default", run_times, self._logger.name):
                self._run_job_success(job.id, [event])

        self._pool.submit(ticket.work.urgency(), run, lambda: None)


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
            executors={name: _Executor(pool) for name, pool in self._pools.items()},
            job_defaults={"misfire_grace_time": None, "coalesce": False, "max_instances": 1},
            daemon=True,
        )
        self._scheduler.add_listener(self._lost, EVENT_JOB_ERROR | EVENT_JOB_MISSED | EVENT_JOB_MAX_INSTANCES)
        logging.getLogger("apscheduler").setLevel(logging.WARNING)

    def start(self) -> None:
        """Starts what was put on schedule so far."""
        self._scheduler.start()

    def keep(self, work: Work, at: float) -> None:
        """Puts a token on schedule: its next attempt begins at `at`, in monotonic seconds.

        It takes the place of what was on schedule for this token. While an attempt of it is under way the next one
        waits for its end: there are never two at once.
        """
        with self._lock:
            task = self._under_way.get(work.name)
            if task is not None:
                task.successor, task.dropped = (work, at), False
                return
            old, new = self._due.get(work.name), self._put(work, at)
        self._swap(old, new)

    def drop(self, name: str) -> None:
        """Takes a token off the schedule; an attempt of it under way goes on to its end."""
        with self._lock:
            ticket, task = self._due.pop(name, None), self._under_way.get(name)
            if task is not None:
                task.successor, task.dropped = None, True
            self._lock.notify_all()
        self._swap(ticket, None)

    def hasten(self, name: str, at: float) -> None:
        """Brings the next attempt of a token forward to `at`, also while one of it is under way."""
        with self._lock:
            task, ticket = self._under_way.get(name), self._due.get(name)
            if task is not None:
                task.hasten_to = min(task.hasten_to, at)
                return
            if ticket is None or ticket.queued or ticket.at <= at:
                return
            new = self._put(ticket.work, at)
        self._swap(ticket, new)

    def redraw(self) -> None:
        """Sets every job anew from the monotonic clock, after the wall clock was stepped."""
        with self._lock:
            waiting = [ticket for ticket in self._due.values() if not ticket.queued]
            swaps = [(ticket, self._put(ticket.work, ticket.at)) for ticket in waiting]
        for old, new in swaps:
            self._swap(old, new)

    def _put(self, work: Work, at: float) -> _Ticket | None:
        """Notes when the next attempt is due; the caller holds the lock, and then adds the job without it."""
        if self._stopping:
            if work.finish:
                self._begin_at_last(work)
            return None
        # An id of its own for each attempt: APScheduler loses a job that adds its own id again for "now".
        ticket = self._due[work.name] = _Ticket(f"{work.name}#{next(self._numbers)}", at, work)
        return ticket

    def _swap(self, old: _Ticket | None, new: _Ticket | None) -> None:
        """Adds a job and removes the one in whose place it comes. A job that is not the noted one does nothing."""
        if new is not None:
            moment = datetime.fromtimestamp(self._clock.wall() + max(new.at - self._clock.monotonic(), 0.0), UTC)
            self._scheduler.add_job(
                self._begin, "date", run_date=moment, args=(new,), id=new.job_id, executor=new.work.pool
            )
        if old is not None:
            with suppress(JobLookupError):  # it was handed to its pool
                self._scheduler.remove_job(old.job_id)

    # ── pools ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def set_pools(self, pools: Mapping[str, int]) -> None:
        """Adds the pools that are new and gives the others their size; removes none."""
        for name, size in pools.items():
            if name in self._pools:
                self._pools[name].resize(size)
            else:
                pool = Pool(name, size, self._on_bug)
                self._scheduler.add_executor(_Executor(pool), name)
                self._pools = {**self._pools, name: pool}  # whole or not at all: other threads look into it

    def remove_pools(self, but: Collection[str]) -> None:
        """Removes all other pools. No work on schedule and no attempt under way may need them any longer."""
        for name in self._pools.keys() - set(but):
            pool = self._pools[name]
            self._pools = {key: it for key, it in self._pools.items() if it is not pool}
            self._scheduler.remove_executor(name, shutdown=False)
            pool.close()

    def under_way(self) -> frozenset[int]:
        """A number for each attempt under way."""
        with self._lock:
            return frozenset(task.number for task in self._under_way.values())

    def stop(self, timeout: float) -> tuple[str, ...]:
        """Starts nothing more, lets rotations under way finish, and returns the names of those that did not."""
        with self._lock:
            self._stopping = True
            last = [ticket.work for ticket in self._due.values() if ticket.work.finish]
            self._due.clear()
        if self._scheduler.running:
            # A shutdown amid a round of due jobs breaks APScheduler's thread: pause, wait the round out, shut down.
            self._scheduler.pause()
            self._scheduler.remove_all_jobs()
            self._scheduler.shutdown(wait=False)
        for pool in self._pools.values():
            pool.stop()
        with self._lock:
            for work in last:
                self._begin_at_last(work)
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

    def dead(self) -> bool:
        """Whether APScheduler's thread ended though nobody stopped it: no attempt would begin any more."""
        thread = getattr(self._scheduler, "_thread", None)
        return bool(self._scheduler.running and thread is not None and thread.ident and not thread.is_alive())

    # ── one attempt ───────────────────────────────────────────────────────────────────────────────────────────────

    def _begin(self, ticket: _Ticket) -> None:
        """The job: runs in a thread of the pool in which the attempt begins."""
        work = ticket.work
        early = ticket.at - self._clock.monotonic()
        with self._lock:
            if self._stopping or self._due.get(work.name) is not ticket:
                return
            if early > EARLY_SECONDS:
                new = self._put(work, ticket.at)
            else:
                del self._due[work.name]
                task = self._under_way[work.name] = _Task(next(self._numbers), work, work.attempt())
        if early > EARLY_SECONDS:
            self._swap(None, new)
            return
        self._on_lag(max(-early, 0.0))
        self._drive(task, None, work.pool)

    def _begin_at_last(self, work: Work) -> None:
        """Begins what finishes what was published, though we are stopping; the caller holds the lock."""
        if work.name not in self._under_way:
            task = self._under_way[work.name] = _Task(next(self._numbers), work, work.attempt())
            begin = partial(self._drive, task, None, work.pool)
            self._pools[work.pool].submit(work.urgency(), begin, lambda: None, finish=True)

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
            work, at = task.successor or (task.work, next_at)
            on_schedule = at != math.inf and not task.dropped
            new = self._put(work, min(at, task.hasten_to)) if on_schedule else None
            self._lock.notify_all()
        self._swap(None, new)

    def _lost(self, event: Any) -> None:  # noqa: ANN401 -- APScheduler's interface
        cause = getattr(event, "exception", None)
        error = LostJobError(f"job {event.job_id} was lost (APScheduler event {event.code})")
        error.__cause__ = cause
        self._on_bug(error)
