"""When attempts run and where: the only module that knows APScheduler.

APScheduler decides when: it has one job, whose trigger fires when the agenda (agenda.py) has something due, and which
hands all that is due to its pools (pool.py): one per endpoint, per Vault and per file system. An attempt is a
coroutine (core/steps.py); each call it awaits runs in the pool that the call names. A token is on schedule from `keep`
until `drop`: it is put back whatever an attempt's outcome, and what would lose one is a bug and ends the process.
"""

from __future__ import annotations

import itertools
import logging
import math
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from apscheduler.executors.base import BaseExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

from aca_tokend.agenda import Agenda, Ticket
from aca_tokend.core.steps import Work, make
from aca_tokend.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence

    from aca_tokend.core.ports import Clock
    from aca_tokend.core.steps import Call

# A token this long past its time without having been handed to a pool is lost.
OVERDUE_SECONDS = 15.0
# One waking serves all that comes due within this time after the first.
GATHER_SECONDS = 0.05
# It wakes at least so often, for nothing.
LOOK_SECONDS = 3600.0
_WAKING = "waking"


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

    def take_results(self) -> list[Any]:
        """The results, which it then has no more."""
        results, self.results = self.results, []
        return results


class _AtOnce(BaseExecutor):  # type: ignore[misc]  # APScheduler publishes no types
    """Runs a job at once, in APScheduler's own thread: ours takes no longer than to hand attempts on.

    APScheduler's executor for debugging does so too, and keeps a count for each job that it ever ran.
    """

    def submit_job(self, job: Any, run_times: list[datetime]) -> None:  # noqa: ANN401 -- APScheduler's interface
        """Runs it, uncounted: there is one at a time."""
        self._do_submit_job(job, run_times)

    def _do_submit_job(self, job: Any, _run_times: list[datetime]) -> None:  # noqa: ANN401 -- APScheduler's interface
        job.func(*job.args)


class _Waking(BaseTrigger):  # type: ignore[misc]  # APScheduler publishes no types
    """Fires when something is due; `moment` tells when."""

    def __init__(self, moment: Callable[[], datetime]) -> None:
        self._moment = moment

    def get_next_fire_time(self, _previous: datetime | None, now: datetime) -> datetime:
        """The next moment, which is always to come: APScheduler asks until it is."""
        return max(self._moment(), now + timedelta(microseconds=1))


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
        self._due: dict[str, Ticket] = {}
        self._agenda = Agenda()
        self._wakes_at = -math.inf  # APScheduler looks for what is due as soon as it is started
        self._under_way: dict[str, _Task] = {}
        self._numbers = itertools.count()
        self._stopping = False
        self._scheduler = BackgroundScheduler(timezone=UTC, executors={"default": _AtOnce()}, daemon=True)
        self._scheduler.add_job(self._wake, _Waking(self._moment), args=(False,), id=_WAKING)
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
            self._put(work, at)
        self._wake_by(at)

    def drop(self, name: str) -> None:
        """Takes a token off the schedule; an attempt of it under way goes on to its end."""
        with self._lock:
            ticket, task = self._due.pop(name, None), self._under_way.get(name)
            if ticket is not None:
                self._agenda.take_off(ticket)
            if task is not None:
                task.successor, task.dropped = None, True
            self._lock.notify_all()

    def withdraw(self, name: str) -> bool:
        """Takes a token off the schedule where no attempt of it is under way. Whether that is so.

        Then none begins until it is put on schedule again.
        """
        with self._lock:
            if name in self._under_way:
                return False
            if (ticket := self._due.pop(name, None)) is not None:
                self._agenda.take_off(ticket)
            return True

    def hasten(self, name: str, at: float) -> None:
        """Brings the next attempt of a token forward to `at`, also while one of it is under way."""
        with self._lock:
            task, ticket = self._under_way.get(name), self._due.get(name)
            if task is not None:
                task.hasten_to = min(task.hasten_to, at)
                return
            if ticket is None or ticket.queued or ticket.at <= at:
                return
            self._put(ticket.work, at)
        self._wake_by(at)

    def redraw(self) -> None:
        """Sets the waking anew from the monotonic clock, after the wall clock was stepped."""
        with self._lock:
            self._wakes_at = math.inf
        self._wake_by(-math.inf)

    def _put(self, work: Work, at: float) -> None:
        """Notes when the next attempt is due, in the place of what was noted.

        The caller holds the lock, and then, without it, calls `_wake_by`.
        """
        if self._stopping:
            if work.finish:
                self._begin_at_last(work)
            return
        if (old := self._due.get(work.name)) is not None:
            self._agenda.take_off(old)
        ticket = self._due[work.name] = Ticket(at, work)
        self._agenda.put(ticket)

    def _wake_by(self, at: float) -> None:
        """Has APScheduler look at once where it would have looked later than `at`. Called without the lock.

        Its own thread alone moves the waking; the look does so.
        """
        with self._lock:
            if self._stopping or at >= self._wakes_at:
                return
            self._wakes_at = -math.inf
        self._scheduler.add_job(self._wake, args=(True,))

    def _wake(self, look: bool) -> None:
        """The job: hands what is due to its pools. `look` tells the job that is run once from the waking itself."""
        try:
            with self._lock:
                if self._stopping:
                    return
                due = self._agenda.take_due(self._clock.monotonic())
                self._wakes_at = self._agenda.next_at
                # with those that a ticket needs which is taken off, and its pool removed, meanwhile
                pools = self._pools
            for ticket in due:
                pools[ticket.work.pool].submit(ticket.work.urgency(), partial(self._begin, ticket), lambda: None)
            if look:
                self._scheduler.modify_job(_WAKING, next_run_time=self._moment())
        except BaseException as bug:  # noqa: BLE001 -- told to the daemon, which ends the process; APScheduler would go on
            self._on_bug(bug)

    def _moment(self) -> datetime:
        """When the next waking is, by the clock that APScheduler goes by."""
        ahead = min(self._wakes_at - self._clock.monotonic() + GATHER_SECONDS, LOOK_SECONDS)
        return datetime.fromtimestamp(self._clock.wall() + max(ahead, 0.0), UTC)

    # ── pools ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def set_pools(self, pools: Mapping[str, int]) -> None:
        """Adds the pools that are new and gives the others their size; removes none."""
        for name, size in pools.items():
            if name in self._pools:
                self._pools[name].resize(size)
            else:
                # whole or not at all: other threads look into it
                self._pools = {**self._pools, name: Pool(name, size, self._on_bug)}

    def remove_pools(self, but: Collection[str]) -> None:
        """Removes all other pools. No work on schedule and no attempt under way may need them any longer."""
        for name in self._pools.keys() - set(but):
            pool = self._pools[name]
            self._pools = {key: it for key, it in self._pools.items() if it is not pool}
            pool.close()

    def under_way(self) -> frozenset[int]:
        """A number for each attempt under way."""
        with self._lock:
            return frozenset(task.number for task in self._under_way.values())

    def stop(self, timeout: float) -> tuple[str, ...]:
        """Starts nothing more, lets rotations under way finish, and returns the names of those that did not."""
        with self._lock:
            self._stopping, self._wakes_at = True, math.inf
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

    def _begin(self, ticket: Ticket) -> None:
        """Runs in a thread of the pool in which the attempt begins."""
        work = ticket.work
        with self._lock:
            if self._stopping or ticket.gone:
                return
            del self._due[work.name]
            task = self._under_way[work.name] = _Task(next(self._numbers), work, work.attempt())
        self._on_lag(max(self._clock.monotonic() - ticket.at, 0.0))
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
            results = None  # a credential may be among them: nothing here holds it longer than the attempt does
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
            del result
            task.out -= 1
            if task.out or task.abandoned:
                return
        self._drive(task, task.take_results(), call.pool)

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
            next_at = min(at, task.hasten_to)
            if on_schedule:
                self._put(work, next_at)
            self._lock.notify_all()
        if on_schedule:
            self._wake_by(next_at)
