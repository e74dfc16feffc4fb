"""Keeps every token on schedule, through APScheduler's own seams, and drives its attempts.

Each piece of work is a job under its name, which stays until the work is dropped. Jobs wait in our job store
(job_store.py), and our executors (executor.py) begin them: one per endpoint, per Vault and per file system. An attempt
is a coroutine (core/steps.py); each call it awaits runs in the pool that the call names. What would lose a token is a
bug and ends the process.
"""

from __future__ import annotations

import inspect
import itertools
import logging
import math
import sys
import threading
import time
from dataclasses import dataclass
from datetime import UTC
from functools import partial
from typing import TYPE_CHECKING, Any

from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.schedulers.base import BaseScheduler

from aca_tokend.core.errors import NO_THREAD, InternalError
from aca_tokend.core.steps import BUSY, HUNG_SECONDS, LOCAL, Duty, make
from aca_tokend.scheduling.executor import SHARE_SECONDS, Executor
from aca_tokend.scheduling.job_store import LOOK_SECONDS, NEVER, JobStore, Timer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence

    from aca_tokend.core.ports import Clock
    from aca_tokend.core.steps import Call, Calls, Work

# A token this long past its time without having been handed to a pool is lost.
OVERDUE_SECONDS = 15.0
# The work that looks attempts over for those whose patience is over; no token has a name with a space in it.
_PATIENCE = "patience of attempts"
# The pool of the room's own, in which attempts go on that lost patience. No call names it, so one thread is enough.
_OWN = "default"


@dataclass(slots=True, eq=False)
class _Round:
    """Calls that an attempt handed out together, when each began (0: it waits in its pool), and the attempt's patience.

    It does not end before `until`.

    `finishing`: how many of those that are out a stop waits for.
    """

    results: list[Any]
    calls: Sequence[Call[Any]]
    began: list[float]
    out: int
    until: float
    patience: float
    finishing: int

    def take_results(self) -> list[Any]:
        """The results, which it then has no more."""
        results, self.results = self.results, []
        return results


@dataclass(slots=True)
class _Task:
    """An attempt under way, the calls it waits for, and what comes after it.

    `successor` is what was put on schedule for this token meanwhile; `dropped`: nothing comes after it.
    """

    number: int
    work: Work
    coroutine: Coroutine[Any, Any, float]
    round: _Round | None = None
    hasten_to: float = math.inf
    successor: tuple[Work, float] | None = None
    dropped: bool = False


class _Scheduler(BackgroundScheduler):  # type: ignore[misc]  # APScheduler publishes no types
    """APScheduler, whose jobs can be changed before it runs, and whose thread wakes only for what is due sooner."""

    def __init__(self, store: JobStore, own: Executor, on_bug: Callable[[BaseException], None]) -> None:
        logger = logging.Logger("apscheduler", logging.WARNING)  # noqa: LOG001 -- one for each: it tells this daemon

        def tell(record: logging.LogRecord) -> bool:
            """What it cannot hand on, or would begin twice, it logs, and goes on without the job: a bug of ours."""
            on_bug(sys.exception() or RuntimeError(record.getMessage()))
            return False

        logger.addFilter(tell)
        super().__init__(timezone=UTC, logger=logger, jobstores={"default": store}, executors={_OWN: own})
        self._store = store
        self._event = threading.Event()
        self._thread: Any = None
        BaseScheduler.start(self, paused=True)  # all but its thread: until then jobs would be kept in a plain list

    def start(self) -> None:
        """Starts the thread."""
        self._thread = threading.Thread(target=self._main_loop, name="APScheduler", daemon=True)
        self._thread.start()
        self.resume()

    def wakeup(self) -> None:
        """Called by APScheduler after each change: its thread is woken for what is due before it would look."""
        if self._store.sooner():
            self.look()

    def look(self) -> None:
        """Has the thread look for what is due."""
        super().wakeup()

    def shutdown(self) -> None:
        """Ends the thread, if there is one. Amid a round of due jobs that would break it: waits the round out."""
        self.pause()
        self.remove_all_jobs()
        if self._thread is None:
            BaseScheduler.shutdown(self)
        else:
            super().shutdown()


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
        self._lock = threading.Condition()  # taken before the locks of APScheduler, never while holding one
        self._store = JobStore(clock.monotonic)
        self._pools = {_OWN: Executor("scheduling", 1, on_bug, clock.monotonic)}
        self._scheduler = _Scheduler(self._store, self._pools[_OWN], on_bug)
        self._under_way: dict[str, _Task] = {}
        self._late: dict[_Round, str] = {}
        self._patience_ends = math.inf  # no attempt loses patience, and no pool needs relief, before
        self._numbers = itertools.count()
        self._stopping = False
        self._job = partial(self._begin)
        self._job.__signature__ = inspect.signature(self._job)  # type: ignore[attr-defined]  # or each job's is made anew
        self.set_pools(pools)

    def start(self) -> None:
        """Starts what was put on schedule so far."""
        work = Duty(_PATIENCE, _OWN, self._lose_patience, lambda: -math.inf)
        self.keep(work, self._clock.monotonic() + LOOK_SECONDS)  # what begins says when it is needed
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
            else:
                self._put(work, at)

    def drop(self, name: str) -> None:
        """Takes a token off the schedule; an attempt of it under way goes on to its end."""
        with self._lock:
            task = self._under_way.get(name)
            if task is not None:
                task.successor, task.dropped = None, True
            else:
                self._take_off(name)
                self._lock.notify_all()

    def has(self, name: str) -> bool:
        """Whether it is on schedule, or an attempt of it under way."""
        with self._lock:
            return name in self._under_way or self._store.lookup_job(name) is not None

    def hasten(self, name: str, at: float) -> None:
        """Brings the next attempt of a token forward to `at`, also while one of it is under way."""
        with self._lock:
            task, job = self._under_way.get(name), self._store.lookup_job(name)
            if task is not None:
                task.hasten_to = min(task.hasten_to, at)
            elif job is not None and self._store.hasten(job, at):
                self._scheduler.wakeup()

    def redraw(self) -> None:
        """Has APScheduler look at once: its thread slept by a clock that was stepped, or with the machine."""
        self._scheduler.look()

    # ── jobs; the caller holds the lock ───────────────────────────────────────────────────────────────────────────

    def _put(self, work: Work, at: float) -> None:
        if self._stopping:
            if work.finish:
                self._begin_at_last(work)
            return
        self._take_off(work.name)
        name, timer = work.name, Timer(at, work)
        options = {"executor": work.pool, "next_run_time": NEVER, "misfire_grace_time": None}
        self._scheduler.add_job(self._job, timer, (timer,), id=name, name=name, **options)

    def _take_off(self, name: str) -> None:
        job = self._store.lookup_job(name)
        if job is None or self._stopping:
            return
        self._scheduler.remove_job(name)
        if job.trigger.queued:
            self._pools[job.executor].release(name)

    # ── pools ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def set_pools(self, pools: Mapping[str, int]) -> None:
        """Adds the pools that are new and gives the others their size; removes none."""
        for name, size in pools.items():
            if name in self._pools:
                self._pools[name].resize(size)
            else:
                # whole or not at all: other threads look into it
                hung = HUNG_SECONDS if name.startswith(LOCAL) else math.inf
                self._pools = {**self._pools, name: Executor(name, size, self._on_bug, self._clock.monotonic, hung)}
                self._scheduler.add_executor(self._pools[name], name)

    def remove_pools(self, but: Collection[str]) -> None:
        """Removes all other pools. No work on schedule and no attempt under way may need them any longer."""
        for name in self._pools.keys() - {*but, _OWN}:
            pool = self._pools[name]
            self._pools = {key: it for key, it in self._pools.items() if it is not pool}
            self._scheduler.remove_executor(name, shutdown=False)
            pool.close()

    def find_threads(self) -> bool:
        """Has the pools share the threads that there are, where the system had none for one. Whether that is so."""
        pools = list(self._pools.values())
        lacking = [pool for pool in pools if pool.lacks_threads()]
        for pool in pools if lacking else ():
            pool.share(self._clock.monotonic() + SHARE_SECONDS)
        return bool(lacking)

    def under_way(self) -> frozenset[int]:
        """A number for each attempt under way."""
        with self._lock:
            return frozenset(task.number for task in self._under_way.values())

    def stop(self, timeout: float) -> tuple[str, ...]:
        """Starts nothing more, lets rotations under way finish, and returns the names of those that did not.

        One that went on without an answer that finishes it has not finished before that has come.
        """
        with self._lock:
            self._stopping = True
            waiting = [job.trigger.work for name, job in self._store.jobs.items() if name not in self._under_way]
        for pool in self._pools.values():
            pool.shutdown()  # before APScheduler does so, which holds its locks then
        if self._scheduler.running:
            self._scheduler.shutdown()
        with self._lock:
            for work in waiting:
                if work.finish:
                    self._begin_at_last(work)
        deadline = time.monotonic() + timeout
        while True:
            self._go_on_without()
            with self._lock:
                left = dict.fromkeys((*self._under_way, *self._late.values()))
                left.pop(_PATIENCE, None)
                if not left or time.monotonic() >= deadline:
                    return tuple(left)
                self._lock.wait(0.2)  # in slices, because a signal handler runs only between two waits

    def wait_until_done(self, timeout: float | None = None) -> bool:
        """Waits until nothing is on schedule or under way: for attempts that return infinity."""
        with self._lock:
            every = (self._store.jobs, self._under_way)
            return self._lock.wait_for(lambda: all(names.keys() <= {_PATIENCE} for names in every), timeout)

    def overdue(self) -> list[str]:
        """The dead-man check: tokens whose job was lost. One that waits in a busy pool is late, not lost."""
        before = self._clock.monotonic() - OVERDUE_SECONDS
        with self._lock:
            timers = [job.trigger for job in self._store.jobs.values()]
        return [timer.work.name for timer in timers if not timer.queued and timer.at < before]

    def dead(self) -> bool:
        """Whether APScheduler's thread ended though nobody stopped it: no attempt would begin any more."""
        thread = getattr(self._scheduler, "_thread", None)
        return bool(self._scheduler.running and thread is not None and thread.ident and not thread.is_alive())

    # ── one attempt ───────────────────────────────────────────────────────────────────────────────────────────────

    def _begin(self, timer: Timer) -> None:
        """The job of a token, in a thread of the pool in which the attempt begins."""
        work = timer.work
        with self._lock:
            job = self._store.lookup_job(work.name)
            if self._stopping or job is None or job.trigger is not timer:
                return  # it was taken off the schedule after it was queued
            task = self._under_way[work.name] = _Task(next(self._numbers), work, work.attempt())
        if work.pool != _OWN:
            now = self._clock.monotonic()
            self._on_lag(max(now - timer.at, 0.0))
            self._look_by(now + HUNG_SECONDS)
        self._drive(task, None, work.pool)

    def _begin_at_last(self, work: Work) -> None:
        """Begins what finishes what was published, though we are stopping; the caller holds the lock."""
        if work.name not in self._under_way:
            task = self._under_way[work.name] = _Task(next(self._numbers), work, work.attempt())
            begin = partial(self._drive, task, None, work.pool)
            self._pools[work.pool].submit(work.urgency(), begin, lambda: None, finish=True, patient=True)

    def _drive(self, task: _Task, results: Sequence[Any] | None, here: str) -> None:
        """Goes on with an attempt in a thread of the pool `here`, until its next calls belong in another."""
        while True:
            try:
                handed: Calls[Any] = task.coroutine.send(results)
            except StopIteration as done:
                self._end(task, done.value)
                return
            results = None  # a credential may be among them: nothing here holds it longer than the attempt does
            calls = handed.calls
            inline = len(calls) == 1 and calls[0].pool == here and (calls[0].finish or not self._stopping)
            if inline and handed.patience == math.inf:
                results = (make(calls[0]),)
                continue
            round_ = self._open(task, handed)
            if not inline:
                self._hand_out(task, round_, calls)
                return
            if not self._make(task, round_, 0, calls[0]):
                return
            results = round_.take_results()

    def _open(self, task: _Task, handed: Calls[Any]) -> _Round:
        calls, patience = handed.calls, handed.patience
        now, finishing, count = self._clock.monotonic(), sum(call.finish for call in calls), len(calls)
        task.round = _Round([BUSY] * count, calls, [0.0] * count, count, now + patience, patience, finishing)
        self._look_by(now + min(patience, HUNG_SECONDS))
        return task.round

    def _hand_out(self, task: _Task, round_: _Round, calls: Sequence[Call[Any]]) -> None:
        for index, call in enumerate(calls):
            run, drop = partial(self._run, task, round_, index, call), partial(self._abandon, task, round_)
            if not self._pools[call.pool].submit(call.urgency, run, drop, finish=call.finish):
                no_thread = InternalError.of(RuntimeError(NO_THREAD))
                if self._take(task, round_, index, call, no_thread):
                    self._drive(task, round_.take_results(), "")

    def _run(self, task: _Task, round_: _Round, index: int, call: Call[Any]) -> None:
        if self._make(task, round_, index, call):
            self._drive(task, round_.take_results(), call.pool)

    def _make(self, task: _Task, round_: _Round, index: int, call: Call[Any]) -> bool:
        """Makes a call. Whether its answer is the last that the attempt waits for, so that this thread drives it on."""
        round_.began[index] = self._clock.monotonic()
        return self._take(task, round_, index, call, make(call))

    def _take(self, task: _Task, round_: _Round, index: int, call: Call[Any], result: Any) -> bool:  # noqa: ANN401 -- whatever the call gives
        """Takes the answer to a call. Whether it is the last that the attempt waits for."""
        with self._lock:
            if task.round is round_:
                round_.results[index] = result
                round_.finishing -= call.finish
                round_.out -= 1
                if not round_.out:
                    task.round = None
                return not round_.out
        if call.late is not None:
            call.late(result)
        with self._lock:
            round_.finishing -= call.finish
            if not round_.finishing:
                self._late.pop(round_, None)
                self._lock.notify_all()
        return False

    def _abandon(self, task: _Task, round_: _Round) -> None:
        """We are stopping, and the next call of this attempt is not one that must be made."""
        with self._lock:
            if task.round is round_:  # else it went on without
                task.round = None
                self._under_way.pop(task.work.name, None)
                self._lock.notify_all()

    # ── patience ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _look_by(self, at: float) -> None:
        """Has attempts looked over at this moment, unless they will be sooner: no call has a timer of its own."""
        if at < self._patience_ends:
            with self._lock:
                self._patience_ends = min(at, self._patience_ends)
                self.hasten(_PATIENCE, at)

    async def _lose_patience(self) -> float:
        """Work of our own, which comes again when the next patience may end."""
        at = self._go_on_without()
        with self._lock:
            self._patience_ends = min(at, self._patience_ends)
            return min(self._patience_ends, self._clock.monotonic() + LOOK_SECONDS)

    def _go_on_without(self) -> float:
        """Drives on, without the answers that are out, the attempts that have waited long enough for them.

        Returns when the next may have.
        """
        self._patience_ends = math.inf  # before anything is looked at: what is handed out from now on says so itself
        at = min(pool.relieve() for pool in self._pools.values())
        now, lost = self._clock.monotonic(), []
        with self._lock:
            for task in self._under_way.values():
                if (round_ := task.round) is None:
                    continue
                ends = self._patience_of(round_)
                if ends > now:
                    at = min(at, ends)
                    continue
                task.round = None
                lost.append((task, round_))
                if round_.finishing:
                    self._late[round_] = task.work.name
        for task, round_ in lost:
            self._drive(task, round_.take_results(), "")
        return at

    def _patience_of(self, round_: _Round) -> float:
        """Until when an answer that is out may come soon. In the queue of a pool that begins calls one will."""
        ends = round_.until
        for call, began, result in zip(round_.calls, round_.began, round_.results, strict=True):
            if result is BUSY:
                ends = max(ends, (began or self._pools[call.pool].last_began) + round_.patience)
        return ends

    def _end(self, task: _Task, next_at: float) -> None:
        with self._lock:
            name = task.work.name
            del self._under_way[name]
            work, at = task.successor or (task.work, next_at)
            job = self._store.lookup_job(name)
            if task.dropped or at == math.inf:
                self._take_off(name)
            elif work is not task.work or self._stopping:
                self._put(work, min(at, task.hasten_to))
            else:
                self._pools[job.executor].release(name)
                self._store.take_back(job, min(at, task.hasten_to))
                self._scheduler.wakeup()
            self._lock.notify_all()
