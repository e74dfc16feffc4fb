"""A bulkhead: a bounded pool of threads, most urgent call first. What hangs in it holds its own threads alone.

To APScheduler it is an executor, which begins the jobs that are due. It decides nothing about when or what, and tells
of whatever a call raises.
"""

from __future__ import annotations

import heapq
import itertools
import math
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from apscheduler.executors.base import BaseExecutor, MaxInstancesReachedError

from aca_tokend.threads import Thread

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

# A thread with nothing to do for so long ends: there may be thousands of pools that are seldom used, one for each hook.
IDLE_SECONDS = 60.0
# Where the system has no thread for one pool, each has one alone for so long.
SHARE_SECONDS = 60.0
# So many calls that hang leave their places to others.
MOST_HUNG = 56


class Executor(BaseExecutor):  # type: ignore[misc]  # APScheduler publishes no types
    """A bounded pool of threads that takes what is most urgent first.

    Args:
        name: the beginning of its threads' names.
        size: how many calls may run at once.
        on_bug: told, from any thread, of what a call raised.
        now: the monotonic clock.
        hung_seconds: a call that has been running for longer does not count against `size`.
    """

    def __init__(
        self,
        name: str,
        size: int,
        on_bug: Callable[[BaseException], None],
        now: Callable[[], float] = time.monotonic,
        hung_seconds: float = math.inf,
    ) -> None:
        super().__init__()
        self.name = name
        self.size = size
        self._on_bug = on_bug
        self._now = now
        self._hung_seconds = hung_seconds
        self._idle_seconds = IDLE_SECONDS
        self.last_began = now()
        self._waiting: list[tuple[float, int, bool, Callable[[], None], Callable[[], None]]] = []
        self._order = itertools.count()
        self._ready = threading.Condition()
        self._begun: set[str] = set()
        self._threads = 0
        self._idle = 0
        self._refused = False
        self._shares_until = -math.inf
        self._stopping = False
        self._closed = False
        self._busy_since: dict[int, float] = {}

    def start(self, _scheduler: object, _alias: str) -> None:
        """Threads begin with the first call. APScheduler's own `start` keeps a logger for each pool that ever was."""

    def submit_job(self, job: Any, run_times: list[datetime]) -> None:  # noqa: ANN401 -- APScheduler's interface
        """Queues a job. APScheduler's own counts under a lock, for which the threads that end jobs would wait."""
        if job.id in self._begun:
            raise MaxInstancesReachedError(job)
        self._begun.add(job.id)
        self._do_submit_job(job, run_times)

    def _do_submit_job(self, job: Any, _run_times: list[datetime]) -> None:  # noqa: ANN401 -- APScheduler's interface
        """Where the system gives no thread, it waits until `share` finds one."""
        urgency, run = job.trigger.work.urgency(), partial(job.func, *job.args)
        self.submit(urgency, run, lambda: None, patient=True)

    def release(self, name: str) -> None:
        """The work of a job is over, or will not begin: the job may come again."""
        self._begun.discard(name)

    def submit(
        self,
        urgency: float,
        run: Callable[[], None],
        drop: Callable[[], None],
        *,
        finish: bool = False,
        patient: bool = False,
    ) -> bool:
        """Queues `run`. While stopping only what finishes a rotation is taken; `drop` is called for what is not.

        False where there is no thread for it, now or once another call is over, and it is not queued. What is `patient`
        is queued all the same, and what finishes a rotation while stopping: nobody would try it again.
        """
        with self._ready:
            if not self._stopping or finish:
                entry = (urgency, next(self._order), finish, run, drop)
                heapq.heappush(self._waiting, entry)
                if self._idle >= len(self._waiting):
                    self._ready.notify()
                elif self._threads < self._most() and not self._add_thread() and not self._threads:
                    self._refused = True
                    if not (patient or self._stopping):
                        self._waiting.remove(entry)
                        heapq.heapify(self._waiting)
                        return False
                return True
        drop()
        return True

    def lacks_threads(self) -> bool:
        """Whether the system gave it not even one thread since this was last asked, or something waits for one now."""
        with self._ready:
            lacked, self._refused = self._refused, False
            return lacked or (bool(self._waiting) and not self._threads)

    def share(self, until: float) -> None:
        """Goes on with one thread until then, so that the system has some for other pools."""
        with self._ready:
            self._shares_until = until
            self._ready.notify_all()
        self.resize(self.size)

    def resize(self, size: int) -> None:
        """Changes how many calls may run at once. Those under way beyond it go on to their end."""
        with self._ready:
            self.size = size
            for _ in range(min(len(self._waiting) - self._idle, self._most() - self._threads)):
                if not self._add_thread():
                    return

    def close(self) -> None:
        """Ends each thread once nothing waits any more."""
        with self._ready:
            self._closed = True
            self._ready.notify_all()

    def shutdown(self, wait: bool = True) -> None:  # noqa: ARG002 -- APScheduler's interface
        """Drops what waits, except what finishes a rotation under way; that is waited for elsewhere."""
        with self._ready:
            self._stopping = True
            dropped = [entry for entry in self._waiting if not entry[2]]
            self._waiting = sorted(entry for entry in self._waiting if entry[2])
        for entry in dropped:
            entry[4]()

    def relieve(self) -> float:
        """Adds threads for what waits behind calls that hang. Returns when the next that runs will count as hung."""
        now = self._now()
        self.resize(self.size)
        return min((at for at in self._hung_from() if at > now), default=math.inf)

    def _most(self) -> int:
        """How many threads there may be."""
        now = self._now()
        size = self.size if now >= self._shares_until else 1
        return size + min(sum(at <= now for at in self._hung_from()), MOST_HUNG)

    def _hung_from(self) -> list[float]:
        """From when on each call that runs counts as hung, unless it has ended by then."""
        return [since + self._hung_seconds for since in list(self._busy_since.values())]

    def _add_thread(self) -> bool:
        """Whether the system gives a further thread. Without it the pool goes on with those that it has."""
        try:
            Thread(target=self._work, name=f"{self.name}-{self._threads + 1}", daemon=True).start()
        except (RuntimeError, MemoryError):
            return False
        self._threads += 1  # the thread waits for our lock before it looks
        return True

    def _one_too_many(self) -> bool:
        return self._threads > self._most() or (self._closed and not self._waiting)

    def _work(self) -> None:
        me = threading.get_ident()
        while True:
            with self._ready:
                rested = False
                while not self._waiting and not rested and not self._one_too_many():
                    self._idle += 1
                    rested = not self._ready.wait(self._idle_seconds)
                    self._idle -= 1
                if self._one_too_many() or not self._waiting:
                    self._threads -= 1
                    self._ready.notify()  # it may have been woken for a call that another has to make now
                    return
                run = heapq.heappop(self._waiting)[3]
            self._busy_since[me] = self.last_began = self._now()
            try:
                run()
            except BaseException as bug:  # noqa: BLE001 -- told to the daemon, which ends the process
                self._on_bug(bug)
            finally:
                del self._busy_since[me]
                del run  # and with it the credential that it may have sent, before the wait for the next call
