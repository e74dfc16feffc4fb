"""A bulkhead: a bounded pool of threads, most urgent call first. What hangs in it holds its own threads alone.

It decides nothing about when or what; the scheduler hands it the calls, and is told of whatever one raises.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# A thread with nothing to do for so long ends: there may be thousands of pools that are seldom used, one for each hook.
IDLE_SECONDS = 60.0


class Pool:
    """A bounded pool of threads that takes what is most urgent first.

    Args:
        name: the beginning of its threads' names.
        size: how many calls may run at once.
        on_bug: told, from any thread, of what a call raised.
        idle_seconds: for how long a thread with nothing to do is kept.
    """

    def __init__(
        self, name: str, size: int, on_bug: Callable[[BaseException], None], idle_seconds: float = IDLE_SECONDS
    ) -> None:
        self.name = name
        self.size = size
        self._on_bug = on_bug
        self._idle_seconds = idle_seconds
        self._waiting: list[tuple[bool, float, int, Callable[[], None], Callable[[], None]]] = []
        self._order = itertools.count()
        self._ready = threading.Condition()
        self._threads = 0
        self._idle = 0
        self._stopping = False
        self._closed = False
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
                    self._add_thread()
                return
        drop()

    def resize(self, size: int) -> None:
        """Changes how many calls may run at once. Those under way beyond it go on to their end."""
        with self._ready:
            self.size = size
            for _ in range(min(len(self._waiting) - self._idle, size - self._threads)):
                self._add_thread()
            self._ready.notify_all()

    def close(self) -> None:
        """Ends each thread once nothing waits any more."""
        with self._ready:
            self._closed = True
            self._ready.notify_all()

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

    def _add_thread(self) -> None:
        self._threads += 1
        threading.Thread(target=self._work, name=f"{self.name}-{self._threads}", daemon=True).start()

    def _one_too_many(self) -> bool:
        return self._threads > self.size or (self._closed and not self._waiting)

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
            self._busy_since[me] = time.monotonic()
            try:
                run()
            except BaseException as bug:  # noqa: BLE001 -- told to the daemon, which ends the process
                self._on_bug(bug)
            finally:
                del self._busy_since[me]
                del run  # and with it the credential that it may have sent, before the wait for the next call
