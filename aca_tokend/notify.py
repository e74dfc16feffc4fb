"""Tells systemd how we are, in the protocol of sd_notify: datagrams to the socket that NOTIFY_SOCKET names.

Without that variable nothing is told. Nothing here fails a rotation: what cannot be told is dropped, and said once. The
watchdog is fed from a thread of its own, so that neither a main thread that waits for a file of the configuration nor
the status line, which looks at everything, starves it.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping, Sequence

VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
# The status line is looked at this often, and told where it is another.
STATUS_SECONDS = 5.0
# A datagram that the service manager does not take within this is dropped.
SEND_SECONDS = 1.0
# A number of microseconds has no more: systemd counts by 64 bits.
_DIGITS = 20


class Notifier:
    """Tells one service manager, from `start` until `stop`.

    Args:
        address: its socket: a path, or `@` and an abstract name; nobody is told where it is empty.
        watchdog_seconds: within this it wants to be fed, 0 where it does not.
    """

    def __init__(self, address: str = "", watchdog_seconds: float = 0.0) -> None:
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self.watchdog_seconds = watchdog_seconds
        self._stopped = threading.Event()
        self._warned = False
        self.threads: list[threading.Thread] = []

    @classmethod
    def of(cls, environment: MutableMapping[str, str]) -> Notifier:
        """The one that the environment names, which no longer names it afterwards: it is not for our children."""
        address, microseconds, pid = (environment.pop(name, "") for name in VARIABLES)
        ours = microseconds.isdecimal() and len(microseconds) <= _DIGITS and pid in {"", str(os.getpid())}
        return cls(address, int(microseconds) / 1e6 if ours else 0.0)

    def start(self, unhealthy: Callable[[], Sequence[str]], status: Callable[[], str]) -> None:
        """From now on it is told the status line, and fed as long as nothing is `unhealthy`."""
        if not self._address:
            return
        self.threads = [threading.Thread(target=self._say, args=(status,), name="status-line", daemon=True)]
        if self.watchdog_seconds:
            self.threads.append(threading.Thread(target=self._feed, args=(unhealthy,), name="watchdog", daemon=True))
        for thread in self.threads:
            thread.start()

    def stop(self) -> None:
        """We end: it is told that, and fed no more."""
        self._stopped.set()
        self._tell("STOPPING=1", "STATUS=Stopping: rotations under way finish")

    def ready(self) -> None:
        """We have started, or read the configuration again."""
        self._tell("READY=1")

    def reloading(self) -> None:
        """We read the configuration again; `ready` follows, whatever comes of it."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def _feed(self, unhealthy: Callable[[], Sequence[str]]) -> None:
        # at half of the time that we have, as its manual asks for, or before
        every = min(STATUS_SECONDS, self.watchdog_seconds / 2)
        while not self._stopped.is_set():
            with suppress(MemoryError):  # there may be some at the next look
                if not unhealthy():
                    self._tell("WATCHDOG=1")
            self._stopped.wait(every)

    def _say(self, status: Callable[[], str]) -> None:
        told = ""
        try:
            while not self._stopped.is_set():
                with suppress(MemoryError):  # as above
                    if (line := status()) != told and self._tell(f"STATUS={line}"):
                        told = line
                self._stopped.wait(STATUS_SECONDS)
        finally:
            if not self._stopped.is_set():  # else the last line would be believed for ever
                self._tell("STATUS=No longer told: a bug, see the log")

    def _tell(self, *lines: str) -> bool:
        if not self._address:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(SEND_SECONDS)
                sender.sendto("\n".join(lines).encode(), self._address)
                return True
        except (OSError, ValueError) as error:  # ValueError: an address that can be none
            if not self._warned:
                self._warned = True
                message = getattr(error, "strerror", None) or str(error)
                structlog.get_logger().warning("service_manager_not_told", message=message)
            return False
