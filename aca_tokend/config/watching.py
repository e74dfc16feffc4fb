"""Notices that a file of the configuration may have changed, and rings. It reads none of them and decides nothing else.

The system tells of changes in the files' folders (watchfiles). What counts is whether a file is another by now, or has
another time or size: so the swap of `..data` in a mounted ConfigMap counts, and a log in the same folder does not.
Every few seconds it looks without being told. What cannot be watched is looked at then, and ends nothing.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

import structlog

from aca_tokend.config.files import files, folders, stamp_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

# What nobody tells us of, on file systems that tell nothing or in folders that were not there, is found within this.
LOOK_SECONDS = 5.0
# Changes closer together than this count as one: a file is written in several steps.
SETTLE_SECONDS = 0.2
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
        self._warned = False
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
        while not self._stopped.is_set():
            self._ring_if_changed()
            try:
                self._wait()
            except (OSError, RuntimeError) as error:  # a folder that just vanished, no inotify watch left
                self._warn(error)
                self._stopped.wait(LOOK_SECONDS)

    def _wait(self) -> None:
        """Waits in the folders that there are, until others must be watched."""
        from watchfiles import watch

        watched = self._folders()
        for _ in watch(
            *(folder for folder, _ in watched),
            watch_filter=None,
            step=int(SETTLE_SECONDS * 1000),
            stop_event=self._stopped,
            rust_timeout=int(LOOK_SECONDS * 1000),
            yield_on_timeout=True,
            raise_interrupt=False,
            recursive=False,
            ignore_permission_denied=True,
        ):
            self._ring_if_changed()
            if self._folders() != watched:
                return

    def _ring_if_changed(self) -> None:
        stamp = self._look()
        if stamp != self._stamp:
            self._stamp = stamp
            self._ring()

    def _look(self) -> Stamp:
        return tuple((file, *stamp_of(file)) for file in files(self._path, self._include()))

    def _folders(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """The folders there are; one that was made anew is another."""
        found = folders(self._path, self._include())
        return tuple((folder, stamp_of(folder)[:2]) for folder in sorted(found) if os.path.isdir(folder))  # noqa: PTH112 - strings throughout

    def _changed_within(self, seconds: float) -> bool:
        since = time.time_ns() - int(seconds * 1e9)
        places = (*files(self._path, self._include()), *folders(self._path, self._include()))
        return any(stamp_of(place)[-1:] > (since,) for place in places)

    def _warn(self, error: OSError | RuntimeError) -> None:
        if not self._warned:
            self._warned = True
            structlog.get_logger().warning("config_not_watched", message=str(error), look_every_seconds=LOOK_SECONDS)
