"""What the look-alike does to a connection that no web server would do: hang, reset, cut off, drip, never end.

For these the connection is taken away from cheroot and played to the end in a thread of its own, so no such fault ever
occupies a thread that others need.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from typing import TYPE_CHECKING, Any

from cheroot.server import HTTPConnection
from cheroot.wsgi import Gateway_10

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask import Response

    from aca_tokend.demo.levers import Fault

ENVIRON_KEY = "aca_tokend.connection"
CHUNK = b" " * 65_536
HEAD_OF_ENDLESS = b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\n"


class Connection(HTTPConnection):
    """A connection that can be taken away from the server while it answers."""

    taken = False

    def take(self) -> socket.socket:
        """Takes the connection: from now on the server writes into the void and neither keeps nor closes it."""
        self.taken = True
        self.wfile = _Void()
        taken: socket.socket = self.socket
        return taken

    def communicate(self) -> bool:
        """Answers one request; whether the server is to keep the connection."""
        return bool(super().communicate()) and not self.taken  # type: ignore[no-untyped-call]  # cheroot's stubs

    def close(self) -> None:
        """Closes the connection, unless someone took it."""
        if not self.taken:
            super().close()


class Gateway(Gateway_10):
    """Gives the application the connection that its request came on."""

    def get_environ(self) -> dict[str, Any]:  # type: ignore[override]  # cheroot's stubs say None
        """The WSGI environment."""
        return {**super().get_environ(), ENVIRON_KEY: self.req.conn}  # type: ignore[no-untyped-call]  # cheroot's stubs


class _Void:
    """A file that keeps nothing of what is written to it."""

    def write(self, data: bytes) -> int:
        return len(data)


class Player:
    """Plays faults on connections, and ends all plays that are under way when told so.

    Attributes:
        round: how often all was ended. A request keeps the round that it came in, so that one which was only on its way
            to its play when all was ended is ended as well.
    """

    def __init__(self) -> None:
        self.round = 0
        self._lock = threading.Lock()
        self._under_way: dict[socket.socket, threading.Event] = {}

    def play(
        self, connection: Connection, fault: Fault, natural: Response, came_in: int, at_end: Callable[[], None]
    ) -> None:
        """Takes the connection and plays the fault on it.

        Args:
            connection: where the request came from.
            fault: what to play.
            natural: what the request would have been answered.
            came_in: the round that the request came in.
            at_end: called when the connection is closed.
        """
        sock, released = connection.take(), threading.Event()
        raw = _head(natural), natural.get_data()
        with self._lock:
            self._under_way[sock] = released
            if came_in != self.round:
                _release(sock, released)

        def run() -> None:
            try:
                with contextlib.suppress(OSError):  # the client went away, which is how most of these end
                    _PLAYS[fault.kind](_Stage(sock, released, fault), *raw)
            finally:
                with self._lock:
                    del self._under_way[sock]
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
                sock.close()
                at_end()

        threading.Thread(target=run, name=f"fault {fault.kind}", daemon=True).start()

    def release_all(self) -> None:
        """Ends what is under way: each client sees its connection close."""
        with self._lock:
            self.round += 1
            for sock, released in self._under_way.items():
                _release(sock, released)


def _release(sock: socket.socket, released: threading.Event) -> None:
    """Ends the play on a connection."""
    released.set()
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


class _Stage:
    """A taken connection with the fault that is played on it."""

    def __init__(self, sock: socket.socket, released: threading.Event, fault: Fault) -> None:
        self.sock = sock
        self.released = released
        self.fault = fault

    def wait_for_the_client_to_leave(self) -> None:
        self.sock.settimeout(None)
        while self.sock.recv(4096):
            pass

    def drip(self, data: bytes) -> None:
        for position in range(len(data)):
            if self.released.wait(self.fault.seconds):
                return
            self.sock.sendall(data[position : position + 1])


def _hang(stage: _Stage, _head: bytes, _body: bytes) -> None:
    stage.wait_for_the_client_to_leave()


def _reset(stage: _Stage, _head: bytes, _body: bytes) -> None:
    # lingering for no time at all turns the close into a reset
    stage.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stage.sock.close()


def _close(_stage: _Stage, _head: bytes, _body: bytes) -> None:
    """The connection closes without a word, as after every play."""


def _cut_body(stage: _Stage, head: bytes, body: bytes) -> None:
    stage.sock.sendall(head + body[: len(body) // 2])


def _drip_headers(stage: _Stage, head: bytes, body: bytes) -> None:
    stage.drip(head + body)


def _drip_body(stage: _Stage, head: bytes, body: bytes) -> None:
    stage.sock.sendall(head)
    stage.drip(body)


def _endless_body(stage: _Stage, _head: bytes, _body: bytes) -> None:
    stage.sock.sendall(HEAD_OF_ENDLESS + b"Transfer-Encoding: chunked\r\n\r\n")
    while not stage.released.is_set():
        stage.sock.sendall(b"%x\r\n%s\r\n" % (len(CHUNK), CHUNK))


def _huge_body(stage: _Stage, _head: bytes, _body: bytes) -> None:
    left = stage.fault.megabytes * 1_000_000
    stage.sock.sendall(HEAD_OF_ENDLESS + b"Content-Length: %d\r\n\r\n" % left)
    while left > 0 and not stage.released.is_set():
        stage.sock.sendall(CHUNK[:left])
        left -= len(CHUNK)


_PLAYS: dict[str, Callable[[_Stage, bytes, bytes], None]] = {
    "hang": _hang,
    "reset": _reset,
    "close": _close,
    "cut_body": _cut_body,
    "drip_headers": _drip_headers,
    "drip_body": _drip_body,
    "endless_body": _endless_body,
    "huge_body": _huge_body,
}


def _head(response: Response) -> bytes:
    """The status line and headers as they go over the wire."""
    response.headers["Content-Length"] = str(len(response.get_data()))
    response.headers["Connection"] = "close"
    lines = [f"HTTP/1.1 {response.status}", *(f"{name}: {value}" for name, value in response.headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
