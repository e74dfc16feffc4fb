"""What goes over a connection: one request and its answer, by h11.

Head and body are bounded before they are kept, and an answer that is framed in two ways is none.
"""

from __future__ import annotations

import contextlib
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import h11

from aca_tokend.core.errors import TransportError
from aca_tokend.core.outcome import Reason
from aca_tokend.net.streams import problem_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aca_tokend.net.streams import Deadline, Stream

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


def connection() -> h11.Connection:
    """The state of HTTP on a new connection."""
    return h11.Connection(h11.CLIENT, max_incomplete_event_size=_LARGEST_HEAD)


def exchange(http: h11.Connection, stream: Stream, request: Request, largest: int, deadline: Deadline) -> Response:
    """Sends a request and reads its answer, with a body of at most `largest` bytes. Raises TransportError."""
    data = written(http, request)
    try:
        with contextlib.suppress(OSError):  # an answer, or what TLS has to say of it, may be there all the same
            stream.send(data, deadline)
        head = read_head(http, stream, deadline)
    except _FAILURES as exc:
        raise _failure(exc) from None  # its text may quote the server
    body, problem = bytearray(), None
    try:
        if not _read_body(http, stream, body, largest, deadline):
            message = f"the answer is larger than {largest} bytes"
            problem = TransportError(Reason.RESPONSE_TOO_LARGE, message, sent=True)
    except _FAILURES as exc:
        problem = _failure(exc)
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(head.headers)}
    return Response(head.status_code, headers, bytes(body[: largest + 1]), problem, stream.certificate)


def written(http: h11.Connection, request: Request) -> bytes:
    """A request as bytes. Raises TransportError."""
    try:
        head = http.send(h11.Request(method=request.method, target=request.target, headers=request.headers))
        body = http.send(h11.Data(request.body))
        http.send(h11.EndOfMessage())
    except (h11.LocalProtocolError, UnicodeError):  # their texts quote a header, which may be a token
        raise TransportError(Reason.REQUEST_REFUSED, "no request can be made of this") from None
    return (head or b"") + (body or b"")


def read_head(http: h11.Connection, stream: Stream, deadline: Deadline) -> h11.Response:
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
            if received > len(body) + _LARGEST_HEAD:
                raise ConnectionError
            http.receive_data(data)
    return False


def _failure(exc: Exception) -> TransportError:
    """The error of a request that was sent."""
    exc.__traceback__ = None  # it leads to what was sent, and h11's errors keep themselves alive
    if isinstance(exc, TransportError):
        return TransportError(exc.reason, exc.message, sent=True)
    if isinstance(exc, ssl.SSLError):
        return TransportError(Reason.TLS_FAILED, f"TLS failed{problem_of(exc)}", sent=True)
    message = f"the connection ended before a whole answer in HTTP{problem_of(exc)}"
    return TransportError(Reason.CONNECTION_LOST, message, sent=True)
