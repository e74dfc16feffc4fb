"""Threads that a machine with nothing left may not give. Nothing waits for ever for one that never begins."""

from __future__ import annotations

import threading
from functools import partial

from aca_tokend.core.errors import NO_THREAD

# A thread that has not begun after so long is given up. A machine with much to do may take a while.
BEGIN_SECONDS = 3.0


class Thread(threading.Thread):
    """Whose `start` raises RuntimeError where it does not begin: without memory Python's own would wait for ever."""

    def start(self) -> None:
        """Starts it. One that begins only after it was given up does nothing."""
        self._begins = threading.Lock()
        self._started.wait = partial(self._started.wait, BEGIN_SECONDS)  # type: ignore[attr-defined]  # no other way
        try:
            super().start()
        except MemoryError as error:
            raise RuntimeError(NO_THREAD) from error
        if not self._started.is_set() and self._begins.acquire(blocking=False):  # type: ignore[attr-defined]  # as above
            raise RuntimeError(NO_THREAD)

    def run(self) -> None:
        """What it is for."""
        if self._begins.acquire(blocking=False):
            super().run()
