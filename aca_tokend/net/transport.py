"""Requests to one server, over connections that are kept for the next one.

A connection serves again only if its answer was whole, nothing came after it, the server has not closed it, and the
certificates that it was opened by still count. After any failure it is closed.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import h11

from aca_tokend.net import messages

if TYPE_CHECKING:
    from aca_tokend.net.messages import Request, Response
    from aca_tokend.net.opening import Opener, Origin
    from aca_tokend.net.streams import Deadline, Stream

# An idle connection is closed after this rather than used again: common servers close theirs after 5 s or more, and a
# request sent into that very moment would be lost.
KEEPALIVE_SECONDS = 4.0


class Transport:
    """Requests to one server, for several threads. At most `kept` connections wait for the next request.

    The server shows a certificate for `tls_name`, where that is another than the host of its address.
    """

    def __init__(self, opener: Opener, origin: Origin, kept: int, tls_name: str = "") -> None:
        self._opener = opener
        self._origin = origin
        self._tls_name = tls_name or origin.host
        self._kept = kept
        self._lock = threading.Lock()
        self._idle: list[_Connection] = []
        self._asks_proxy = opener.proxy is not None and not origin.tls

    def send(self, request: Request, largest: int, deadline: Deadline, opening: Deadline | None = None) -> Response:
        """Sends a request once, and reads a body of at most `largest` bytes.

        Where a connection is to be there sooner than the answer, `opening` says when. Raises TransportError where no
        answer came; one that breaks off after its head says so itself.
        """
        if self._asks_proxy:  # a proxy needs the whole address
            request = replace(request, target=f"http://{self._origin}{request.target}")
        idle = self._idle
        connection = self._take(idle)
        if connection is None:
            connection = _Connection(self._opener.open(self._origin, self._tls_name, opening or deadline))
        try:
            response = messages.exchange(connection.http, connection.stream, request, largest, deadline)
            kept = connection.is_done() and self._keep(connection, idle)
        except BaseException:  # whatever it was: what is left on the connection would be another's answer
            connection.stream.close()
            raise
        if not kept:
            connection.stream.close()
        return response

    def close(self) -> None:
        """Closes the connections, those under way when they are done. The next request opens others."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.stream.close()

    def _take(self, idle: list[_Connection]) -> _Connection | None:
        """A connection that was kept and still serves."""
        while True:
            with self._lock:
                if not idle:
                    return None
                connection = idle.pop()
            if connection.serves() and self._opener.is_current(connection.stream):
                return connection
            connection.stream.close()

    def _keep(self, connection: _Connection, idle: list[_Connection]) -> bool:
        """Keeps a connection, unless all were closed since it was taken or opened."""
        with self._lock:
            kept = idle is self._idle and len(idle) < self._kept
            if kept:
                idle.append(connection)
            return kept


class _Connection:
    """A connection to one server."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.http = messages.connection()
        self._done_at = 0.0

    def is_done(self) -> bool:
        """Whether it may serve again, which begins now."""
        http = self.http
        if http.our_state is not h11.DONE or http.their_state is not h11.DONE or http.trailing_data[0]:
            return False
        http.start_next_cycle()
        self._done_at = time.monotonic()
        return True

    def serves(self) -> bool:
        """Whether it has not been idle for too long, and nothing came meanwhile, be it an end."""
        return time.monotonic() - self._done_at < KEEPALIVE_SECONDS and self.stream.quiet()
