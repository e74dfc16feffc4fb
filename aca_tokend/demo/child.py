"""Programs that the demo and the tests start: each ends with the process that started it, whatever becomes of that.

A child gets a clean environment (PATH, HOME, LANG) and a session of its own, so Ctrl-C reaches it through us alone.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, TYPE_CHECKING, NoReturn, TypeVar

from aca_tokend.core.errors import TokendError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TIED = Path(__file__).with_name("tied.py")
GRACE_SECONDS = 10.0
START_SECONDS = 60.0
LAST_WORDS = 2_000
# Below the range from which Linux takes ports for outgoing connections (32768 and up): a port from here is still free
# when the same server is started on it again.
PORTS = range(20_000, 32_000)

T = TypeVar("T")

# `tied.py` says why all children are started by one thread that lives as long as this process.
_starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="children")


class HelperError(TokendError):
    """A helper program cannot be found or started, or does not do what it was asked to."""


class Child:
    """A running program. What it writes to its standard error goes to `log`, or to nobody where that is None."""

    def __init__(self, command: Sequence[str], *, log: Path | None = None, tied: bool = False) -> None:
        self._log: IO[bytes] = log.open("ab+") if log is not None else tempfile.TemporaryFile()  # noqa: SIM115 - kept open
        self._begin = self._log.seek(0, os.SEEK_END)
        if tied:
            command = [sys.executable, "-I", "-S", str(TIED), str(os.getpid()), *command]
        self._process = _starter.submit(
            subprocess.Popen[bytes],
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
            start_new_session=True,
        ).result()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    @property
    def last_words(self) -> str:
        """The end of what it wrote to its standard error."""
        self._log.seek(max(self._begin, self._log.seek(0, os.SEEK_END) - LAST_WORDS))
        return self._log.read().decode(errors="replace").strip()

    def give_up(self, what: str) -> NoReturn:
        """Ends it, and raises the error that tells what failed and what the program last said."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE_SECONDS)
        error = HelperError(f"{what}: {self.last_words or 'it said nothing'}")
        self.kill()
        raise error

    def write_line(self, line: str) -> None:
        """Writes a line to its standard input; one that it does not live to read is lost."""
        assert self._process.stdin is not None  # noqa: S101 - it was asked for above
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()

    def read_line(self) -> str:
        """Reads a line of its standard output; "" once it ended."""
        assert self._process.stdout is not None  # noqa: S101 - it was asked for above
        return self._process.stdout.readline().decode()

    def stop(self) -> None:
        """Asks it to end, and makes it end if it does not within a while."""
        if self.running:
            self._process.terminate()
            self._process.send_signal(signal.SIGCONT)  # a program that was halted cannot end
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(GRACE_SECONDS)
        self.kill()

    def kill(self) -> None:
        """Ends it at once."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._log):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def on_a_free_port(start: Callable[[int], T], port: int | None) -> T:
    """Calls `start` with a port, and with another if that one was taken meanwhile; a given port is the only one."""
    attempts = 1 if port is not None else 10
    for attempt in range(1, attempts + 1):
        try:
            return start(port if port is not None else free_port())
        except HelperError as error:
            if attempt == attempts or "in use" not in error.message:
                raise
    raise AssertionError


def free_port() -> int:
    """A port of 127.0.0.1 that is free now, as is the next one."""
    while True:
        port = secrets.choice(PORTS)  # which no seed set for a test makes the same in two processes
        with contextlib.suppress(OSError), socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", port))
            second.bind(("127.0.0.1", port + 1))
            return port


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Waits for a condition. Raises HelperError, which says `what` did not come about."""
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            message = f"{what} did not come about within {START_SECONDS:g} seconds"
            raise HelperError(message)
        time.sleep(0.01)
