"""Bytes to and from one server until a deadline: over TCP, or over TLS on top of another stream.

Sockets do not block; every wait is a poll until the deadline.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import select
import socket
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from aca_tokend.core.errors import TransportError
from aca_tokend.core.outcome import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")

# The most that is taken at once, and so what is looked through between two looks at the clock.
_CHUNK = 32_768


@dataclass(frozen=True, slots=True)
class Deadline:
    """When a request must be over, on the monotonic clock. `seconds` is how long there was until then."""

    seconds: float
    at: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """The deadline of what begins now."""
        return cls(seconds, time.monotonic() + seconds)

    def within(self, seconds: float) -> Deadline:
        """The deadline of a part that begins now and may take this long."""
        return Deadline(seconds, min(self.at, time.monotonic() + seconds))

    def left(self) -> float:
        """The seconds until then. Raises TransportError where there are none."""
        left = self.at - time.monotonic()
        if left <= 0:
            raise self.over()
        return left

    def over(self) -> TransportError:
        """The error of a request that has no time left."""
        return TransportError(Reason.TIMEOUT, f"no whole answer within {round(self.seconds, 2):g} s")


class Tcp:
    """A connection as it is. Everything raises TransportError where the time is over, and OSError."""

    certificate: Mapping[str, Any] | None = None
    context: ssl.SSLContext | None = None

    def __init__(self, address: str, port: int, deadline: Deadline) -> None:
        """Connects."""
        self._socket = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        self._poll = select.poll()
        try:
            self._connect((address, port), deadline)
        except BaseException:  # nobody else has the socket yet
            self.close()
            raise

    def _connect(self, place: tuple[str, int], deadline: Deadline) -> None:
        self._socket.settimeout(0)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        problem = self._socket.connect_ex(place)
        self._poll.register(self._socket)
        if problem == errno.EINPROGRESS:
            self._wait(select.POLLOUT, deadline)
            problem = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if problem:
            raise OSError(problem, os.strerror(problem))

    def send(self, data: bytes, deadline: Deadline) -> None:
        """Sends all of it."""
        left = memoryview(data)
        while left:
            try:
                left = left[self._socket.send(left) :]
            except BlockingIOError:
                self._wait(select.POLLOUT, deadline)

    def receive(self, deadline: Deadline) -> bytes:
        """What comes next; nothing where the other side has ended."""
        while True:
            self._wait(select.POLLIN, deadline)
            with contextlib.suppress(BlockingIOError):
                return self._socket.recv(_CHUNK)

    def quiet(self) -> bool:
        """Whether nothing has come that was not received, be it an end."""
        self._poll.modify(self._socket, select.POLLIN)
        return not self._poll.poll(0)

    def close(self) -> None:
        """Closes it."""
        self._socket.close()

    def _wait(self, event: int, deadline: Deadline) -> None:
        self._poll.modify(self._socket, event)
        while not self._poll.poll(math.ceil(deadline.left() * 1000)):
            pass


class Tls:
    """TLS over another stream, which may be TLS itself: that of a proxy."""

    def __init__(self, inner: Stream, context: ssl.SSLContext, name: str, deadline: Deadline) -> None:
        """Shakes hands with the server of this name. Raises ValueError too: no server can have that name."""
        self._inner = inner
        self.context = context
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_hostname=name)
        self._do(self._tls.do_handshake, deadline)
        self.certificate: Mapping[str, Any] | None = self._tls.getpeercert()

    def send(self, data: bytes, deadline: Deadline) -> None:
        """Sends all of it."""
        self._do(lambda: self._tls.write(data), deadline)

    def receive(self, deadline: Deadline) -> bytes:
        """What comes next; nothing where the other side has ended, also without a farewell."""
        try:
            return self._do(lambda: self._tls.read(_CHUNK), deadline)
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""

    def quiet(self) -> bool:
        """Whether nothing has come that was not received, be it an end."""
        if not self._inner.quiet():
            return False
        try:
            self._tls.read(1)
        except ssl.SSLError as exc:
            return isinstance(exc, ssl.SSLWantReadError)
        return False

    def close(self) -> None:
        """Closes it."""
        self._inner.close()

    def _do(self, step: Callable[[], T], deadline: Deadline) -> T:
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                pass
            finally:
                if data := self._out.read():
                    with contextlib.suppress(OSError):  # what was received before that says more
                        self._inner.send(data, deadline)
            if data := self._inner.receive(deadline):
                self._in.write(data)
            else:
                self._in.write_eof()


Stream = Tcp | Tls


def problem_of(exc: BaseException) -> str:
    """What went wrong, in words of ours, of the system or of OpenSSL's own list; none where there are none."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f": {exc.verify_message.rstrip('.')}"
    if isinstance(exc, ssl.SSLError):
        reason = (exc.reason or "the server broke it off").replace("_", " ").lower()
        return ": the server demands a client certificate" if "certificate required" in reason else f": {reason}"
    return f": {os.strerror(exc.errno).lower()}" if isinstance(exc, OSError) and exc.errno else ""
