"""Opens a connection to a server: its name, its addresses one after another, a proxy before it, TLS."""

from __future__ import annotations

import ipaddress
import re
import socket
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import h11

from aca_tokend.core.errors import TransportError, is_exhausted
from aca_tokend.core.outcome import Reason
from aca_tokend.net import messages
from aca_tokend.net.streams import Tcp, Tls, problem_of
from aca_tokend.threads import Thread

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aca_tokend.net.streams import Deadline, Stream
    from aca_tokend.net.trust import Trust

    LookUp = Callable[[str, int], Sequence[str]]

_PORTS = {"https": 443, "http": 80}
_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]+")


@dataclass(frozen=True, slots=True)
class Origin:
    """A server: scheme, host and port. As text it is what a Host header says."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Origin:
        """The server of an address. Raises ValueError where it is none."""
        parts = urlsplit(url)
        named = parts.hostname is not None and _HOST.fullmatch(parts.hostname) is not None
        if parts.scheme not in _PORTS or not named or parts.port == 0 or "@" in parts.netloc:
            message = "not the address of a server"
            raise ValueError(message)
        return cls(parts.scheme, parts.hostname or "", parts.port or _PORTS[parts.scheme])

    @property
    def tls(self) -> bool:
        """Whether it is encrypted."""
        return self.scheme == "https"

    @property
    def place(self) -> str:
        """Host and port."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return self.place.removesuffix(f":{_PORTS[self.scheme]}")


class Opener:
    """Opens connections by one set of certificates, through one proxy or none. For several threads."""

    def __init__(self, trust: Trust, proxy: str = "", look_up: LookUp | None = None) -> None:
        self.proxy = Origin.of(proxy) if proxy else None
        self._trust = trust
        self._names = _Names(look_up or _system_addresses)

    def open(self, origin: Origin, tls_name: str, deadline: Deadline) -> Stream:
        """A connection for requests to `origin`, which shows a certificate for this name. Raises TransportError."""
        if self.proxy is None:
            return self._encrypted(self._connected(origin, deadline), origin, tls_name, deadline)
        try:
            stream = self._connected(self.proxy, deadline)
            stream = self._encrypted(stream, self.proxy, self.proxy.host, deadline)
        except TransportError as error:
            if error.reason is Reason.TIMEOUT:
                raise
            raise TransportError(Reason.PROXY_FAILED, f"the proxy: {error.message}") from error
        if not origin.tls:
            return stream
        try:
            _tunnel(stream, origin.place, deadline)
        except BaseException:  # nobody else has the connection yet
            stream.close()
            raise
        return self._encrypted(stream, origin, tls_name, deadline)

    def is_current(self, stream: Stream) -> bool:
        """Whether a connection was opened by the certificates that count now."""
        try:
            return stream.context is None or stream.context is self._trust.context()
        except (TransportError, OSError):  # a new connection fails on that, and says why
            return False

    def _connected(self, origin: Origin, deadline: Deadline) -> Stream:
        """Connects to the first address that answers. One that does not leaves the others their share of the time."""
        addresses = self._names.addresses(origin.host, origin.port, deadline)
        if not addresses:
            raise TransportError(Reason.NAME_NOT_RESOLVED, "the host name does not resolve")
        problem = ""
        for position, address in enumerate(addresses):
            share = deadline.within(deadline.left() / (len(addresses) - position))
            try:
                return Tcp(address, origin.port, share)
            except TransportError:
                if position == len(addresses) - 1:
                    raise
            except OSError as exc:
                if is_exhausted(exc):  # which says nothing of the server
                    raise
                problem = problem_of(exc)
        raise TransportError(Reason.CONNECT_FAILED, f"no connection{problem}")

    def _encrypted(self, stream: Stream, origin: Origin, name: str, deadline: Deadline) -> Stream:
        if not origin.tls:
            return stream
        try:
            return Tls(stream, self._trust.context(), name, deadline)
        except BaseException as exc:  # as above
            stream.close()
            if is_exhausted(exc) or not isinstance(exc, OSError | ValueError):
                raise
            raise TransportError(Reason.TLS_FAILED, f"TLS failed{problem_of(exc)}") from exc


class _Names:
    """Resolves names, waiting no longer than asked. Those who ask for one name at once share one look-up.

    The system's resolver cannot be interrupted and may take half a minute. So it runs in a thread of its own, which is
    left behind when the time is over: one for each name, however many wait or come back.
    """

    def __init__(self, look_up: LookUp) -> None:
        self._look_up = look_up
        self._lock = threading.Lock()
        self._under_way: dict[tuple[str, int], Future[Sequence[str]]] = {}

    def addresses(self, host: str, port: int, deadline: Deadline) -> Sequence[str]:
        """The addresses of a host, none where it has none. Raises TransportError where the time is over."""
        if _is_address(host):
            return (host,)
        with self._lock:
            future = self._under_way.get((host, port))
            begins = future is None
            if future is None:
                future = self._under_way[host, port] = Future()
        if begins:
            run = partial(self._run, host, port, future)
            try:
                Thread(target=run, name=f"name {host}", daemon=True).start()
            except (RuntimeError, MemoryError):  # the machine gives no further thread: better late than never
                run()
        try:
            return future.result(deadline.left())
        except TimeoutError:
            raise deadline.over() from None

    def _run(self, host: str, port: int, future: Future[Sequence[str]]) -> None:
        problem: Exception | None = None
        try:
            found = self._look_up(host, port)
        except (OSError, UnicodeError, MemoryError) as exc:  # UnicodeError: a label that is no label
            found, problem = (), exc if is_exhausted(exc) else None
        with self._lock:
            del self._under_way[host, port]
        if problem is not None:
            future.set_exception(problem)
        else:
            future.set_result(found)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _system_addresses(host: str, port: int) -> Sequence[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))


def _tunnel(stream: Stream, place: str, deadline: Deadline) -> None:
    """Has a proxy connect us to a place. Raises TransportError."""
    http = messages.connection()
    try:
        stream.send(messages.written(http, messages.Request("CONNECT", place, [("Host", place)])), deadline)
        head = messages.read_head(http, stream, deadline)
        connected = head.status_code == HTTPStatus.OK and not http.trailing_data[0]
    except (OSError, h11.ProtocolError):
        connected = False
    if not connected:
        raise TransportError(Reason.PROXY_FAILED, "the proxy refused to connect to the server")
