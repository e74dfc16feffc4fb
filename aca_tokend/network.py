"""The sockets below oauth.py: one deadline for a whole request, and TLS by the configured name and certificates.

httpx's timeouts are for each single read, and none covers the resolver: a server that drips a byte a second would hold
a thread for hours. Here the look-up of the name, the connection, TLS, every write and every read share the time of
their request. It knows nothing of OAuth, and never sends anything twice.
"""

from __future__ import annotations

import ipaddress
import math
import socket
import ssl
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpcore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    LookUp = Callable[[str, int], Sequence[str]]

# An idle connection is closed after this rather than used again: common servers close theirs after 5 s or more, and a
# request sent into that very moment would be lost.
KEEPALIVE_SECONDS = 4.0

# A receiver that takes a few bytes at a time must not hold us: the deadline is looked at between slices.
_SLICE_BYTES = 4096


class NameNotResolvedError(httpcore.ConnectError):
    """A host name has no address, or the resolver does not say."""


class CertificatesError(httpcore.ConnectError):
    """`ca_file` cannot be read, or holds no certificate. The message says so and names it."""


class Deadline(threading.local):
    """When the request that this thread makes must be over; a thread makes one at a time."""

    def __init__(self) -> None:
        self._at = math.inf

    def start(self, seconds: float) -> None:
        """The request of this thread begins now."""
        self._at = time.monotonic() + seconds

    def limit(self, timeout: float | None, error: type[httpcore.TimeoutException]) -> float:
        """`timeout`, or what is left if that is less. Raises `error` where nothing is."""
        left = self._at - time.monotonic()
        if left <= 0:
            message = "the time for the whole request is over"
            raise error(message)
        return left if timeout is None else min(timeout, left)


class Certificates:
    """The authorities that a server's certificate must lead to: those of `ca_file` alone, else the public ones.

    The file is read again when it changes, so that a replaced or later mounted one is taken up without a restart.
    """

    def __init__(self, ca_file: str) -> None:
        self._ca_file = ca_file
        self._lock = threading.Lock()
        self._read: tuple[object, ssl.SSLContext] | None = None

    def context(self) -> ssl.SSLContext:
        """What to verify a server by, now. Raises CertificatesError."""
        with self._lock:
            try:
                stamp = self._stamp()
                if self._read is None or self._read[0] != stamp:
                    self._read = (stamp, self._load())
            except OSError as exc:
                problem = "holds no certificate that can be read" if isinstance(exc, ssl.SSLError) else exc.strerror
                message = f"ca_file {self._ca_file}: {problem}"
                raise CertificatesError(message) from exc
            return self._read[1]

    def _stamp(self) -> object:
        if not self._ca_file:
            return None
        status = Path(self._ca_file).stat()
        return (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)

    def _load(self) -> ssl.SSLContext:
        ca_file = self._ca_file
        context = ssl.create_default_context(cafile=ca_file) if ca_file else httpcore.default_ssl_context()
        context.set_alpn_protocols(["http/1.1"])
        return context


class Network(httpcore.NetworkBackend):
    """Connects within the deadline."""

    def __init__(
        self, deadline: Deadline, certificates: Certificates, tls_name: str, look_up: LookUp | None = None
    ) -> None:
        self.deadline = deadline
        self.certificates = certificates
        self.tls_name = tls_name
        # What httpcore is given in place of contexts: `start_tls` takes the current one instead, and tells by these
        # whether it speaks to the server or to a proxy before it. httpcore's own way to give another name,
        # sni_hostname, is ignored in a tunnel and used for the proxy. They trust nobody, should one ever be used.
        self.for_server = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.for_proxy = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._names = _Names(look_up or _system_addresses)
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Connects to the first address that answers. One that does not leaves the others their share of the time."""
        addresses = self._names.addresses(host, port, self.deadline.limit(timeout, httpcore.ConnectTimeout))
        failure: Exception = NameNotResolvedError("no address")
        for position, address in enumerate(addresses):
            share = self.deadline.limit(timeout, httpcore.ConnectTimeout) / (len(addresses) - position)
            try:
                stream = self._sockets.connect_tcp(address, port, share, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as exc:
                failure = exc
            else:
                return _Stream(stream, self)
        raise failure


class _Stream(httpcore.NetworkStream):
    """A connection whose every read and write ends within the deadline of the request under way.

    Inside the TLS of an https:// proxy a read may be several of the socket, so there it is only nearly so.
    """

    def __init__(self, stream: httpcore.NetworkStream, network: Network) -> None:
        self._stream = stream
        self._network = network
        self.heard = False  # whether anything came since the last write

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        received = self._stream.read(max_bytes, self._network.deadline.limit(timeout, httpcore.ReadTimeout))
        self.heard = True
        return received

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self.heard = False
        for start in range(0, len(buffer), _SLICE_BYTES):
            left = self._network.deadline.limit(timeout, httpcore.WriteTimeout)
            self._stream.write(buffer[start : start + _SLICE_BYTES], left)

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        network = self._network
        name = server_hostname if ssl_context is network.for_proxy else network.tls_name
        try:
            left = network.deadline.limit(timeout, httpcore.ConnectTimeout)
            return _Stream(self._stream.start_tls(network.certificates.context(), name, left), network)
        except (httpcore.NetworkError, httpcore.TimeoutException):
            self.close()
            raise

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 - httpcore's own signature
        return self._stream.get_extra_info(info)


class _Names:
    """Resolves names, waiting no longer than asked. Those who ask for one name at once share one look-up.

    The system's resolver cannot be interrupted and may take half a minute. So it runs in a thread of its own, which is
    left behind when the time is over: one for each name, however many wait or come back.
    """

    def __init__(self, look_up: LookUp) -> None:
        self._look_up = look_up
        self._lock = threading.Lock()
        self._under_way: dict[tuple[str, int], Future[Sequence[str]]] = {}

    def addresses(self, host: str, port: int, timeout: float) -> Sequence[str]:
        if _is_address(host):
            return (host,)
        with self._lock:
            future = self._under_way.get((host, port))
            if future is None:
                future = self._under_way[host, port] = Future()
                threading.Thread(target=self._run, args=(host, port, future), name=f"name {host}", daemon=True).start()
        try:
            return future.result(timeout)
        except TimeoutError as exc:
            message = f"the resolver did not answer for {host}"
            raise httpcore.ConnectTimeout(message) from exc
        except (OSError, UnicodeError) as exc:  # UnicodeError: a label that is no label
            message = f"{host} does not resolve"
            raise NameNotResolvedError(message) from exc

    def _run(self, host: str, port: int, future: Future[Sequence[str]]) -> None:
        try:
            found = self._look_up(host, port)
        except (OSError, UnicodeError) as exc:
            self._forget(host, port)
            future.set_exception(exc)
        else:
            self._forget(host, port)
            future.set_result(found)

    def _forget(self, host: str, port: int) -> None:
        with self._lock:
            del self._under_way[host, port]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _system_addresses(host: str, port: int) -> Sequence[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))


class Pool(httpcore.ConnectionPool):
    """Connections that are kept for the next request, direct or through a proxy, HTTP/1.1 only."""

    def __init__(self, network: Network, proxy: str, max_connections: int) -> None:
        super().__init__(
            ssl_context=network.for_server,
            proxy=httpcore.Proxy(proxy, ssl_context=network.for_proxy) if proxy else None,
            max_connections=max_connections,
            max_keepalive_connections=max_connections,
            keepalive_expiry=KEEPALIVE_SECONDS,
            network_backend=network,
        )

    def create_connection(self, origin: httpcore.Origin) -> httpcore.ConnectionInterface:
        """A connection that neither outlives a failure nor answers before it was asked."""
        return _Connection(super().create_connection(origin))


class _Connection(httpcore.ConnectionInterface):
    """Mends two things of httpcore 1.0's connections.

    A tunnel whose TLS failed stays busy for ever, so that soon the pool has no place left: here a failure closes it.
    And a response that came together with the one before it would pass for the answer to the next request, so that one
    account would get another's token: here it is refused.
    """

    def __init__(self, connection: httpcore.ConnectionInterface) -> None:
        self._connection = connection

    def handle_request(self, request: httpcore.Request) -> httpcore.Response:
        try:
            response = self._connection.handle_request(request)
            _check_heard(response)
        except httpcore.ConnectionNotAvailable:  # another thread has it
            raise
        except BaseException:
            self._connection.close()
            raise
        return response

    def close(self) -> None:
        self._connection.close()

    def info(self) -> str:
        return self._connection.info()

    def can_handle_request(self, origin: httpcore.Origin) -> bool:
        return self._connection.can_handle_request(origin)

    def is_available(self) -> bool:
        return self._connection.is_available()

    def has_expired(self) -> bool:
        return self._connection.has_expired()

    def is_idle(self) -> bool:
        return self._connection.is_idle()

    def is_closed(self) -> bool:
        return self._connection.is_closed()


def _check_heard(response: httpcore.Response) -> None:
    stream = response.extensions["network_stream"]
    if isinstance(stream, _Stream) and not stream.heard:
        message = "a response that came before the request"
        raise httpcore.RemoteProtocolError(message)
