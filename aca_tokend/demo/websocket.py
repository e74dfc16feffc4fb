"""The realtime API of the look-alike: a websocket that repeats what it is sent.

The token stands in the address and is looked at once, as the connection is made; what becomes of it later does not
matter, as in PlaceOS. The protocol is that of `websockets`; the connection is one that was taken away from cheroot.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from websockets.datastructures import Headers
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable

CHUNK_BYTES = 65_536


def speak(sock: socket.socket, target: str, headers: Iterable[tuple[str, str]]) -> None:
    """Answers the handshake on a taken connection and repeats each text until the client goes, in a thread."""
    protocol = ServerProtocol()
    protocol.receive_data(Request(target, Headers(headers)).serialize())
    (asked,) = protocol.events_received()
    assert isinstance(asked, Request)  # noqa: S101 - it was serialized above
    protocol.send_response(protocol.accept(asked))
    threading.Thread(target=_repeat, args=(sock, protocol), name="websocket", daemon=True).start()


def _repeat(sock: socket.socket, protocol: ServerProtocol) -> None:
    """Sends what the protocol has to say, and each text back, until either side closes the connection."""
    with contextlib.closing(sock), contextlib.suppress(OSError):
        sock.settimeout(None)
        while True:
            for data in protocol.data_to_send():
                if not data:
                    return  # the protocol is at its end
                sock.sendall(data)
            received = sock.recv(CHUNK_BYTES)
            if not received:
                return
            protocol.receive_data(received)
            for event in protocol.events_received():
                if isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                    protocol.send_text(bytes(event.data))
