"""A daemon whose scheduler's thread ends on SIGUSR1, run as a program: `python mortal.py CONFIGURATION`."""

from __future__ import annotations

import ctypes
import signal
import sys
from pathlib import Path

from aca_tokend import daemon, log, service
from aca_tokend.config.files import load


class Mortal(daemon.Daemon):
    """Runs like any other, until it is told to lose the thread that begins attempts."""

    def start(self, *, once: bool = False) -> None:
        """Starts, and is ready to be told before anybody can know that it runs."""
        signal.signal(signal.SIGUSR1, lambda *_: self._end_thread())
        super().start(once=once)

    def _end_thread(self) -> None:
        scheduler = self.scheduler._scheduler
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(scheduler._thread.ident), ctypes.py_object(SystemExit)
        )
        scheduler.look()


if __name__ == "__main__":
    path = Path(sys.argv[1])
    log.configure("debug", "json")
    sys.exit(service.run(load(path), path, Mortal))
