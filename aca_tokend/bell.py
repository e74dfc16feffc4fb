"""What wakes the main thread: signals and other threads ring, and it does what they want between two waits."""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType


class Bell:
    """Wakes the main thread, from another thread or from a signal handler.

    A pipe, because an Event that is set in a handler while its own thread waits for it can lock up for ever.
    """

    def __init__(self) -> None:
        self.stop = False
        self.reload = False
        self.asked = False
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)

    def ring_to_stop(self) -> None:
        """The daemon is to end."""
        self.stop = True
        self.ring()

    def ring_to_reload(self, *, asked: bool = False) -> None:
        """The configuration is to be read again; `asked`: by somebody who waits for an answer."""
        self.asked = self.asked or asked
        self.reload = True
        self.ring()

    def ring(self) -> None:
        """Something is to be looked at."""
        with suppress(BlockingIOError):  # full: it has been rung often enough
            os.write(self._write, b"!")

    def wait(self, seconds: float) -> None:
        """Waits until it is rung, at most so long."""
        if select.select([self._read], [], [], seconds)[0]:
            os.read(self._read, 1024)


def handle_signals(bell: Bell, *, reload: bool = False) -> None:
    """The first SIGTERM or SIGINT stops in order, a second one leaves at once. With `reload` SIGHUP reloads.

    How a program ended is kept until it is asked for, also where we were started by one that does not ask.
    """

    def handle(_number: int, _frame: FrameType | None) -> None:
        if bell.stop:
            os._exit(1)
        bell.ring_to_stop()

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
    if reload:
        signal.signal(signal.SIGHUP, lambda _number, _frame: bell.ring_to_reload(asked=True))
