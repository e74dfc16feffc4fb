"""Requests to one server, over connections that are kept for the next one.

A connection serves again only if its answer was whole, nothing came after it, and the server has not closed it. After
any failure it is closed.
"""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import h11

from aca_tokend.core.errors import TransportError
from aca_tokend.core.outcome import Reason
from aca_tokend.net.opening import problem_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aca_tokend.net.opening import Opener, Origin
    from aca_tokend.net.streams import Deadline, Stream

# An idle connection is closed after this rather than used again: common servers close theirs after 5 s or more, and a
# request sent into that very moment would be lost.
KEEPALIVE_SECONDS = 4.0
# The most that is read until the head of an answer is whole, interim answers included; and of what stands around the
# chunks of a body beside a body's own length.
_LARGEST_HEAD = 65_536
_FAILURES = (TransportError, OSError, h11.ProtocolError)


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent. `headers` are all of them, Host and Content-Length too."""

    method: str
    target: str
    headers: list[tuple[bytes, bytes]] | list[tuple[str, str]] = field(repr=False)
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Response:
    """What a server answered.

    Attributes:
        headers: by their names in lower case; of several the first.
        body: at most one byte more than was asked for.
        problem: why the body is not whole, None where it is.
        certificate: what the server showed, as `ssl.SSLObject.getpeercert` has it; None over plain HTTP.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    problem: TransportError | None
    certificate: Mapping[str, Any] | None = field(repr=False)

    def check_whole(self) -> None:
        """Raises TransportError where the body is not whole."""
        if self.problem is not None:  # another one, since this would keep what its traceback leads to
            raise TransportError(self.problem.reason, self.problem.message, sent=True)


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
        # a proxy is told the whole address of what it is to ask unencrypted
        self._prefix = f"http://{origin}" if opener.proxy and not origin.tls else ""

    def send(self, request: Request, largest: int, deadline: Deadline, opening: Deadline | None = None) -> Response:
        """Sends a request once, and reads a body of at most `largest` bytes.

        Where a connection is to be there sooner than the answer, `opening` says when. Raises TransportError where no
        answer came; one that breaks off after its head says so itself.
        """
        idle = self._idle
        connection = self._take(idle)
        if connection is None:
            opened = self._opener.open(self._origin, self._tls_name, _tunnel, opening or deadline)
            connection = _Connection(opened)
        try:
            response = connection.ask(request, self._prefix, largest, deadline)
            kept = connection.is_done() and self._keep(connection, idle)
        except BaseException:
            connection.close()
            raise
        if not kept:
            connection.close()
        return response

    def close(self) -> None:
        """Closes the connections, those under way when they are done. The next request opens others."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _take(self, idle: list[_Connection]) -> _Connection | None:
        """A connection that was kept and still serves."""
        while True:
            with self._lock:
                if not idle:
                    return None
                connection = idle.pop()
            if connection.serves():
                return connection
            connection.close()

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
        self._stream = stream
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_LARGEST_HEAD)
        self._done_at = 0.0
        self.close = stream.close

    def ask(self, request: Request, prefix: str, largest: int, deadline: Deadline) -> Response:
        """Sends a request and reads its answer. Raises TransportError."""
        data = _written(self._http, request, prefix)
        try:
            with contextlib.suppress(OSError):  # an answer, or what TLS has to say of it, may be there all the same
                self._stream.send(data, deadline)
            head = _read_head(self._http, self._stream, deadline)
        except _FAILURES as exc:
            raise _failure(exc) from None  # its text may quote the server
        body, problem = bytearray(), None
        try:
            if not _read_body(self._http, self._stream, body, largest, deadline):
                message = f"the answer is larger than {largest} bytes"
                problem = TransportError(Reason.RESPONSE_TOO_LARGE, message, sent=True)
        except _FAILURES as exc:
            problem = _failure(exc)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(head.headers)}
        return Response(head.status_code, headers, bytes(body[: largest + 1]), problem, self._stream.certificate)

    def is_done(self) -> bool:
        """Whether it may serve again, which begins now."""
        http = self._http
        if http.our_state is not h11.DONE or http.their_state is not h11.DONE or http.trailing_data[0]:
            return False
        http.start_next_cycle()
        self._done_at = time.monotonic()
        return True

    def serves(self) -> bool:
        """Whether it has not been idle for too long, and nothing came meanwhile, be it an end."""
        return time.monotonic() - self._done_at < KEEPALIVE_SECONDS and self._stream.quiet()


def _written(http: h11.Connection, request: Request, prefix: str = "") -> bytes:
    """A request as bytes. Raises TransportError."""
    try:
        head = http.send(h11.Request(method=request.method, target=prefix + request.target, headers=request.headers))
        body = http.send(h11.Data(request.body))
        http.send(h11.EndOfMessage())
    except (h11.LocalProtocolError, UnicodeError):  # their texts quote a header, which may be a token
        raise TransportError(Reason.REQUEST_REFUSED, "no request can be made of this") from None
    return (head or b"") + (body or b"")


def _read_head(http: h11.Connection, stream: Stream, deadline: Deadline) -> h11.Response:
    """The head of the answer, after all interim ones. Raises one of _FAILURES."""
    received = 0
    while not isinstance(event := http.next_event(), h11.Response):
        if not isinstance(event, h11.InformationalResponse):
            data = stream.receive(deadline)
            received += len(data)
            if received > _LARGEST_HEAD:
                raise ConnectionError
            http.receive_data(data)
    if {b"content-length", b"transfer-encoding"} <= {name for name, _ in event.headers}:
        # two lengths, of which h11 takes one: by the other, something before the server may have begun a next answer
        raise ConnectionError
    return event


def _read_body(http: h11.Connection, stream: Stream, body: bytearray, largest: int, deadline: Deadline) -> bool:
    """Reads the body up to a bit more than `largest` bytes; whether that is all of it. Raises one of _FAILURES."""
    received = 0
    while len(body) <= largest:
        event = http.next_event()
        if isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return True
        else:
            data = stream.receive(deadline)
            received += len(data)
            if received > 2 * largest + _LARGEST_HEAD:
                raise ConnectionError
            http.receive_data(data)
    return False


def _tunnel(stream: Stream, place: str, deadline: Deadline) -> None:
    """Has a proxy connect us to a place. Raises TransportError."""
    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_LARGEST_HEAD)
    try:
        stream.send(_written(http, Request("CONNECT", place, [("Host", place)])), deadline)
        connected = _read_head(http, stream, deadline).status_code == 200 and not http.trailing_data[0]  # noqa: PLR2004
    except (OSError, h11.ProtocolError):
        connected = False
    if not connected:
        raise TransportError(Reason.PROXY_FAILED, "the proxy refused to connect to the server")


def _failure(exc: Exception) -> TransportError:
    """The error of a request that was sent."""
    exc.__traceback__ = None  # it leads to what was sent, and h11's errors keep themselves alive
    if isinstance(exc, TransportError):
        return TransportError(exc.reason, exc.message, sent=True)
    if isinstance(exc, ssl.SSLError):
        return TransportError(Reason.TLS_FAILED, f"TLS failed{problem_of(exc)}", sent=True)
    message = f"the connection ended before a whole answer in HTTP{problem_of(exc)}"
    return TransportError(Reason.CONNECTION_LOST, message, sent=True)
