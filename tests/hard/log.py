"""The log of a daemon, which its reader may leave unread for a while."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# The smallest pipe there is: it is full at once.
PIPE_BYTES = 4096


class UnreadLog:
    """A pipe, read into a file by a thread that can be held."""

    def __init__(self, file: Path) -> None:
        self._reading, self.writing = os.pipe()
        fcntl.fcntl(self.writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._file = file.open("wb", buffering=0)
        self._may_read = threading.Event()
        self._may_read.set()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    @contextlib.contextmanager
    def unread(self) -> Iterator[None]:
        """Nobody reads it meanwhile."""
        self._may_read.clear()
        try:
            yield
        finally:
            self._may_read.set()

    def close(self) -> None:
        """Reads what is left. The daemon has ended."""
        self._thread.join()
        self._file.close()

    def _read(self) -> None:
        with os.fdopen(self._reading, "rb", buffering=0) as pipe:
            while (piece := pipe.read(PIPE_BYTES)) and self._may_read.wait():
                self._file.write(piece)
