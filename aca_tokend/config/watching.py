"""Notices that a file of the configuration may have changed, and rings. It reads none of them and decides nothing else.

It looks about every second. What counts is whether a file is another by now, or has another time or size: so the swap
of `..data` in a mounted ConfigMap counts, and a log in the same folder does not. Listening to the system would take a
thread of a library, which ends the process where there is none, and many file systems say nothing.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING

from aca_tokend.config.files import files, folders, stamp_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

LOOK_SECONDS = 1.0
# It looks less often at thousands of files: this share of a core goes into it.
SHARE = 0.003
# A file is written in several steps: what still changes after so long is looked at again, but not for ever.
SETTLE_SECONDS = 0.2
MOST_SETTLING = 10
# What changed so shortly before we began to watch may have changed after the configuration was read.
RECENT_SECONDS = 15.0

Stamp = tuple[tuple[object, ...], ...]


class ConfigWatch:
    """Watches in a thread of its own, from `start` until `stop`.

    Args:
        path: the main file.
        include: gives the patterns of its `include`, as they are by now.
        ring: told, from the thread, that something may have changed.
    """

    def __init__(self, path: Path, include: Callable[[], Sequence[str]], ring: Callable[[], None]) -> None:
        self._include = include
        self._path = os.fspath(path)
        self._ring = ring
        self._stopped = threading.Event()
        self._stamp: Stamp = ()
        self._thread = threading.Thread(target=self._work, name="config", daemon=True)

    def start(self, recent_seconds: float = RECENT_SECONDS) -> None:
        """Begins to watch; rings at once if something changed so short a time ago."""
        if not self._changed_within(recent_seconds):
            self._stamp = self._look()
        self._thread.start()

    def stop(self) -> None:
        """Ends; the thread ends by itself within a moment."""
        self._stopped.set()

    def _work(self) -> None:
        took = 0.0
        while not self._stopped.is_set():
            with contextlib.suppress(MemoryError):  # there may be some at the next look
                began = time.thread_time()
                stamp = self._look()
                took = time.thread_time() - began
                if stamp != self._stamp:
                    self._stamp = self._settled(stamp)
                    self._ring()
            self._stopped.wait(max(LOOK_SECONDS, took / SHARE))

    def _settled(self, stamp: Stamp) -> Stamp:
        """How they are once they stay as they are."""
        for _ in range(MOST_SETTLING):
            self._stopped.wait(SETTLE_SECONDS)
            before, stamp = stamp, self._look()
            if stamp == before:
                break
        return stamp

    def _look(self) -> Stamp:
        return tuple((file, *stamp_of(file)) for file in files(self._path, self._include()))

    def _changed_within(self, seconds: float) -> bool:
        since = time.time_ns() - int(seconds * 1e9)
        places = (*files(self._path, self._include()), *folders(self._path, self._include()))
        return any(stamp_of(place)[-1:] > (since,) for place in places)
